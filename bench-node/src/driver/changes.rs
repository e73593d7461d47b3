//! Changes of the members: those that wait, the one under way, and what everyone else is told.
//!
//! Invariant: a change is answered as done only once it is committed, through C_new where it went
//! through C_old,new; as refused only where it was never begun; and as unknown otherwise. What the
//! rest of the node takes for the members is what the log says, and as committed only what is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::{ChangeError, EntryId, Index, Membership, NodeId, Role, Term};
use tokio::sync::{oneshot, watch};

use super::{Channels, Refusal};
use crate::DEFAULT_GROUP;
use crate::members::{
    Ask, MembersError, Planned, RecordsError, Roster, Rosters, Standing, plan, promotion,
};
use crate::store::Groups;

/// How often a leader looks whether a learner has caught up.
const PROMOTION_LOOK: Duration = Duration::from_millis(20);

/// How often what waits is looked at again, when nothing else brings the loop round.
const WAITING_LOOK: Duration = Duration::from_millis(20);

/// How long an ask waits for its turn; etcdctl waits for 5 s in all.
const WAIT: Duration = Duration::from_secs(3);

/// Why there was no change, or none that this member can tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoChange {
    /// It never happens.
    Refused(MembersError),
    /// As of any request.
    Request(Refusal),
}

/// Who are members now, and since which entry of the log.
pub(crate) type Changed = (Index, Arc<Roster>);
/// Tells who asked.
pub(crate) type ChangeSender = oneshot::Sender<Result<Changed, NoChange>>;

struct Waiting {
    ask: Ask,
    since: Duration,
    reply: ChangeSender,
}

/// Begun, and not known to be committed.
struct Pending {
    term: Term,
    index: Index,
    since: Duration,
    /// A promotion has nobody who asked for it.
    reply: Option<ChangeSender>,
}

/// What the loop keeps of the members.
pub(super) struct Changes {
    rosters: watch::Sender<Rosters>,
    waiting: VecDeque<Waiting>,
    pending: Option<Pending>,
    next_look: Duration,
    /// When the loop must come round for what waits.
    deadline: Duration,
    stopping: bool,
}

impl Changes {
    pub(super) fn new(rosters: watch::Sender<Rosters>) -> Self {
        let (waiting, next_look, deadline) = (VecDeque::new(), Duration::ZERO, Duration::MAX);
        Self { rosters, waiting, pending: None, next_look, deadline, stopping: false }
    }

    /// When to be asked again, whatever comes in; [`Duration::MAX`]: nobody waits.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Nothing under way, and nobody who waits.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_none() && self.waiting.is_empty()
    }

    pub(super) fn ask(&mut self, ask: Ask, now: Duration, reply: ChangeSender) {
        match self.stopping {
            true => drop(reply.send(Err(NoChange::Request(Refusal::Stopped)))),
            false => self.waiting.push_back(Waiting { ask, since: now, reply }),
        }
    }

    /// Nothing more is taken.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether messages in this name must not count: they come from another data directory than the
    /// one that the membership in force binds.
    pub(super) fn is_stranger(&self, id: NodeId, incarnation: u64) -> bool {
        self.rosters.borrow().in_force.is_stranger(id, incarnation)
    }

    /// Begins what can be begun; `heard_within`: how recently a member must have been heard from
    /// that counts as alive.
    pub(super) fn begin(
        &mut self,
        groups: &mut Groups<Channels>,
        us: NodeId,
        now: Duration,
        heard_within: Duration,
    ) {
        self.begin_now(groups, us, now, heard_within);
        self.deadline = if self.waiting.is_empty() { Duration::MAX } else { now + WAITING_LOOK };
    }

    fn begin_now(
        &mut self,
        groups: &mut Groups<Channels>,
        us: NodeId,
        now: Duration,
        heard_within: Duration,
    ) {
        let leads = groups.status(DEFAULT_GROUP).is_some_and(|status| status.role == Role::Leader);
        if !leads {
            let not_leader = NoChange::Request(Refusal::NotLeader);
            for waiting in self.waiting.drain(..) {
                let _ = waiting.reply.send(Err(not_leader.clone()));
            }
            return;
        }
        if self.rosters.borrow().is_open() {
            // What is not committed may be undone: it is nothing to build on, or to refuse by.
            return;
        }
        if self.waiting.is_empty() {
            return self.promote(groups, now);
        }
        let heard: Vec<_> = groups
            .peers(DEFAULT_GROUP)
            .filter(|peer| now < peer.heard + heard_within)
            .map(|peer| peer.id)
            .collect();
        let mut not_yet = Vec::new();
        while self.pending.is_none()
            && let Some(Waiting { ask, since, reply }) = self.waiting.pop_front()
        {
            let in_force = Arc::clone(&self.rosters.borrow().in_force);
            let standing = Standing { us, hears: &|id| heard.contains(&id) };
            let change = match plan(&in_force, &standing, &ask) {
                Ok(Planned::Change(change)) => change,
                Ok(Planned::Nothing) => {
                    let changed = (self.rosters.borrow().committed_at, in_force);
                    confirm(groups, changed, reply);
                    continue;
                }
                Err(MembersError::VoterNotBound) => {
                    // What would bind it may wait behind this one.
                    not_yet.push(Waiting { ask, since, reply });
                    continue;
                }
                Err(error) => {
                    let _ = reply.send(Err(NoChange::Refused(error)));
                    continue;
                }
            };
            match groups.change(DEFAULT_GROUP, change) {
                Ok((term, index)) => {
                    tracing::info!(index, ask = format!("{ask:?}"), "members change");
                    self.pending = Some(Pending { term, index, since, reply: Some(reply) });
                }
                Err(ChangeError::UnderWay | ChangeError::TooEarly) => {
                    not_yet.push(Waiting { ask, since, reply });
                    break;
                }
                Err(error) => drop(reply.send(Err(refusal(error)))),
            }
        }
        for waiting in not_yet.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        self.promote(groups, now);
    }

    /// Gives a learner the vote it was added for, where one has caught up.
    fn promote(&mut self, groups: &mut Groups<Channels>, now: Duration) {
        if self.pending.is_some() || now < self.next_look {
            return;
        }
        self.next_look = now + PROMOTION_LOOK;
        let in_force = Arc::clone(&self.rosters.borrow().in_force);
        for change in promotion(&in_force) {
            if let Ok((term, index)) = groups.change(DEFAULT_GROUP, change) {
                tracing::info!(index, "a member that has caught up gets its vote");
                self.pending = Some(Pending { term, index, since: now, reply: None });
                return;
            }
        }
    }

    /// The membership in force is another one.
    pub(super) fn in_force(&mut self, membership: &Membership<Bytes>) -> Result<(), RecordsError> {
        let roster = Arc::new(Roster::of(membership)?);
        self.rosters.send_modify(|rosters| rosters.in_force = roster);
        Ok(())
    }

    /// A membership is committed.
    pub(super) fn committed(
        &mut self,
        at: EntryId,
        membership: &Membership<Bytes>,
    ) -> Result<(), RecordsError> {
        let EntryId { index, term } = at;
        let mut roster = Arc::new(Roster::of(membership)?);
        self.rosters.send_modify(|rosters| {
            if rosters.in_force == roster {
                // Shared, so that seeing that they are equal costs nothing.
                roster = Arc::clone(&rosters.in_force);
            }
            rosters.committed = Arc::clone(&roster);
            rosters.committed_at = index;
            rosters.settled = true;
        });
        if !self.waiting.is_empty() {
            // What waited for this may be begun now.
            self.deadline = Duration::ZERO;
        }
        let Some(pending) = &mut self.pending else { return Ok(()) };
        if index >= pending.index && term != pending.term {
            // Another leader's, at its place or behind it: whether ours came before it is not told here.
            self.refuse_pending(Refusal::LeaderChanged);
        } else if index >= pending.index && !roster.is_joint() {
            let reply = self.pending.take().and_then(|pending| pending.reply);
            if let Some(reply) = reply {
                let _ = reply.send(Ok((index, roster)));
            }
        }
        Ok(())
    }

    /// This process knows what is committed, from here on.
    pub(super) fn settled(&mut self) {
        self.rosters.send_if_modified(|rosters| !std::mem::replace(&mut rosters.settled, true));
    }

    /// This member leads no more: what it began may be undone, or not.
    pub(super) fn lost_office(&mut self) {
        self.refuse_pending(Refusal::LeaderChanged);
    }

    pub(super) fn refuse_all(&mut self, refusal: Refusal) {
        self.refuse_pending(refusal);
        for waiting in self.waiting.drain(..) {
            let _ = waiting.reply.send(Err(NoChange::Request(refusal)));
        }
    }

    /// Nothing that waits was begun, and never will be here.
    pub(super) fn send_away(&mut self) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.reply.send(Err(NoChange::Request(Refusal::NotLeader)));
        }
    }

    /// Whoever waits longer than `patience` is told so.
    pub(super) fn expire(&mut self, now: Duration, patience: Duration) {
        if self.pending.as_ref().is_some_and(|pending| pending.since + patience <= now) {
            let reply = self.pending.as_mut().and_then(|pending| pending.reply.take());
            if let Some(reply) = reply {
                let _ = reply.send(Err(NoChange::Request(Refusal::TimedOut)));
            }
        }
        while let Some(waiting) = self.waiting.pop_front_if(|front| front.since + WAIT <= now) {
            // Not begun, and never will be.
            let refused = NoChange::Refused(MembersError::Unhealthy);
            let _ = waiting.reply.send(Err(refused));
        }
    }

    /// Whether the committed membership no longer holds this member, which was one.
    pub(super) fn has_left(&self, us: NodeId) -> bool {
        self.rosters.borrow().committed.is_removed(us)
    }

    fn refuse_pending(&mut self, refusal: Refusal) {
        if let Some(reply) = self.pending.take().and_then(|pending| pending.reply) {
            let _ = reply.send(Err(NoChange::Request(refusal)));
        }
    }
}

/// Answers that it is so already, as soon as a majority has said that this member still leads: as a
/// linearizable read does, for a later leader may have changed it since.
fn confirm(groups: &mut Groups<Channels>, changed: Changed, reply: ChangeSender) {
    let (confirmed, outcome) = oneshot::channel();
    groups.read(DEFAULT_GROUP, confirmed);
    tokio::spawn(async move {
        let outcome = outcome.await.unwrap_or(Err(Refusal::Stopped));
        let _ = reply.send(outcome.map(|()| changed).map_err(NoChange::Request));
    });
}

fn refusal(error: ChangeError) -> NoChange {
    NoChange::Refused(match error {
        ChangeError::NotLeader { .. } => return NoChange::Request(Refusal::NotLeader),
        ChangeError::UnderWay | ChangeError::TooEarly => MembersError::Unhealthy,
        ChangeError::NoVoters => MembersError::NotEnoughStarted,
        ChangeError::BadMember(id) => MembersError::NamedTwice(id),
        ChangeError::NotCaughtUp(_) => MembersError::LearnerNotReady,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_leader_committed_behind_it_is_no_answer_to_a_change() {
        let committed_in = |term| {
            let mut changes = Changes::new(watch::Sender::new(Rosters::default()));
            let (reply, mut answer) = oneshot::channel();
            let since = Duration::ZERO;
            changes.pending = Some(Pending { term: 3, index: 10, since, reply: Some(reply) });
            let membership = Roster::default().membership();
            changes.committed(EntryId { index: 11, term }, &membership).expect("sound");
            answer.try_recv().expect("answered")
        };
        assert!(matches!(committed_in(3), Ok((11, _))));
        assert_eq!(committed_in(4), Err(NoChange::Request(Refusal::LeaderChanged)));
    }
}
