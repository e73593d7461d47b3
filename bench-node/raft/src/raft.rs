//! One member of one group: its state, its inputs, and `ready`, which turns what accumulated into
//! effects.
//!
//! Invariant: an input only changes state; every message that the state then calls for is made in
//! `ready`, from the state of that moment. So a batch of inputs costs one write and few messages,
//! and nothing leaves under a term that has passed. How members win elections is in `election`,
//! how logs are made equal in `replication` (the leader's side) and `following` (the other's).

use alloc::vec::Vec;
use core::time::Duration;

use crate::config::{Config, ConfigError};
use crate::durability::Durability;
use crate::effects::{
    Effects, Event, NotLeader, PeerStatus, ProposeError, ReadOutcome, Reason, Recovered, Role,
    Status,
};
use crate::election::{ElectionTimer, Tally};
use crate::following::Following;
use crate::log::Log;
use crate::membership::Memberships;
use crate::message::{
    Body, Entry, EntryId, HardState, Index, Message, NodeId, Payload, Snapshot, Term,
};
use crate::replication::Leading;

/// One member of one group.
///
/// Give it inputs in any number, then call [`Raft::ready`] and carry out what it returns. After a
/// pause of the process, hand in the messages that waited before calling [`Raft::tick`]: they may
/// show that the leader is alive.
pub struct Raft<D> {
    pub(crate) config: Config,
    pub(crate) memberships: Memberships<D>,
    pub(crate) hard_state: HardState,
    pub(crate) part: Part,
    pub(crate) log: Log<D>,
    pub(crate) durability: Durability,
    pub(crate) commit_index: Index,
    /// Up to here, committed entries were handed out.
    handed_out: Index,
    pub(crate) timer: ElectionTimer,
    pub(crate) now: Duration,
    /// When this member last promised, by hearing a leader, to elect nobody else for an election
    /// timeout: what leases rest on. It outlives the term.
    pub(crate) promised: Option<Duration>,
    /// A granted vote in the current term that its candidate is still to be told.
    pub(crate) vote_owed: bool,
    pub(crate) outbox: Vec<Message<D>>,
    pub(crate) read_outcomes: Vec<ReadOutcome>,
    pub(crate) restore: Option<Snapshot<D>>,
    pub(crate) snapshots: Vec<NodeId>,
    events: Vec<Event>,
}

/// A member's part in its term, with what belongs to that part alone.
pub(crate) enum Part {
    Follower(Following),
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Leading),
}

impl<D: Clone + AsRef<[u8]>> Raft<D> {
    /// Starts a member from what its disk held. `now` counts from any fixed origin, here and in
    /// every later call; where it goes backwards, the latest one stands.
    ///
    /// # Errors
    /// Settings that contradict each other, and a recovered log that no member can have written.
    pub fn new(
        config: Config,
        recovered: Recovered<D>,
        now: Duration,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        recovered.check()?;
        let Snapshot { last: base, membership } = recovered.snapshot;
        let log = Log::new(base, recovered.entries);
        let hard_state = recovered.hard_state;
        let mut raft = Self {
            memberships: Memberships::new(base.index, membership, config.counts_learners()),
            hard_state,
            part: Part::Follower(Following::default()),
            durability: Durability::new(base, log.last_index()),
            log,
            commit_index: base.index,
            handed_out: base.index,
            timer: ElectionTimer::new(config.seed, config.election_timeout, now),
            now,
            // It may have promised just before it stopped.
            promised: (!config.forgets_its_promise()).then_some(now),
            vote_owed: false,
            outbox: Vec::new(),
            read_outcomes: Vec::new(),
            restore: None,
            snapshots: Vec::new(),
            events: Vec::new(),
            config,
        };
        raft.adopt_memberships(base.index + 1);
        if base.term > hard_state.term {
            // A snapshot came from a leader of a later term, and became durable before that term
            // did. Nothing was promised in it.
            raft.set_hard_state(HardState { term: base.term, voted_for: None });
        }
        raft.record(Reason::Started);
        Ok(raft)
    }

    /// Appends a command to the leader's log. It is committed, if it ever is, as the entry of this
    /// term at this index.
    ///
    /// # Errors
    /// The command was not taken and never happens.
    pub fn propose(&mut self, data: D) -> Result<(Term, Index), ProposeError> {
        if !matches!(self.part, Part::Leader(_)) {
            return Err(ProposeError::NotLeader(NotLeader { leader: self.leader() }));
        }
        if self.is_transferring() {
            return Err(ProposeError::Transferring);
        }
        let term = self.hard_state.term;
        Ok((term, self.log.push(term, Payload::Data(data))))
    }

    /// Asks for a linearizable read; [`Effects::reads`] answers under the same context.
    ///
    /// # Errors
    /// This member does not lead.
    pub fn read(&mut self, context: u64) -> Result<(), NotLeader> {
        let leader = self.leader();
        match &mut self.part {
            Part::Leader(leading) => {
                leading.reads.push(context);
                Ok(())
            }
            _ => Err(NotLeader { leader }),
        }
    }

    /// Takes in a message from a peer. One that is malformed, or not for this member, is dropped.
    /// The sender need not be a member as far as this one knows: its log may be behind (thesis,
    /// section 4.1).
    ///
    /// # Panics
    /// If the leader's log contradicts what this member knows to be committed: somewhere a durable
    /// log was lost or changed, and to go on would spread that.
    pub fn receive(&mut self, now: Duration, message: Message<D>) {
        self.observe(now);
        let Message { from, to, term, body } = message;
        if to != self.config.id || from == to || from == 0 {
            return;
        }
        // What only asks about a term that nobody is in yet moves no one's term.
        let hypothetical = matches!(
            body,
            Body::Vote { pre_vote: true, .. } | Body::VoteReply { pre_vote: true, granted: true }
        );
        if matches!(body, Body::Vote { pre_vote: false, transfer: false, .. })
            && self.promise_holds()
            && self.hard_state.voted_for != Some(from)
        {
            // In whatever term: a lease may rest on the promise.
            return;
        }
        if !hypothetical {
            if term < self.hard_state.term {
                return self.answer_stale(from, &body);
            }
            if term > self.hard_state.term {
                if self.role() == Role::Leader && self.config.stale_leader_stays() {
                    return;
                }
                let disturbs = matches!(body, Body::Vote { transfer: false, .. });
                if disturbs && self.config.check_quorum && self.leader_is_alive() {
                    return;
                }
                self.enter_term(term, Reason::HigherTerm);
            }
        }
        match body {
            Body::Vote { pre_vote: true, last_index, last_term, .. } => {
                self.answer_pre_vote(from, term, last_index, last_term);
            }
            Body::Vote { pre_vote: false, last_index, last_term, .. } => {
                self.answer_vote(from, last_index, last_term);
            }
            Body::VoteReply { pre_vote, granted } => {
                self.count_vote(from, term, pre_vote, granted);
            }
            Body::Append { prev_index, prev_term, entries, commit, read_round } => {
                self.follow(from, prev_index, prev_term, entries, commit, read_round);
            }
            Body::AppendAccepted { match_index, read_round } => {
                self.note_accepted(from, match_index, read_round);
            }
            Body::AppendRejected { prev_index, hint_index, hint_term, read_round } => {
                self.note_rejected(from, prev_index, hint_index, hint_term, read_round);
            }
            Body::TimeoutNow => self.take_over(from),
            Body::InstallSnapshot(snapshot) => self.install(from, snapshot),
        }
    }

    /// The connection to a peer broke. That is no proof of its end, for others can reset it too:
    /// with the failover hint, a follower of that peer asks soon whether it could win.
    pub fn connection_lost(&mut self, now: Duration, peer: NodeId) {
        self.observe(now);
        self.lose_touch(peer);
    }

    /// Forgets the entries up to `index`: a snapshot that is durable holds what came of them. Those
    /// that are not handed out or not durable here stay.
    pub fn compact(&mut self, index: Index) {
        let index = index.min(self.handed_out).min(self.durability.persisted_index());
        if index > self.log.base().index {
            self.log.compact(index);
            self.memberships.compact(index);
            self.durability.compacted();
        }
    }

    /// Sending a snapshot to this member ended, well or not.
    pub fn snapshot_ended(&mut self, to: NodeId) {
        self.retry_after_snapshot(to);
    }

    /// A leader's heartbeats that would be due within half an interval go out now: for a layer that
    /// sends those of many groups together.
    pub fn beat(&mut self, now: Duration) {
        self.observe(now);
        self.hasten_heartbeats();
    }

    /// Fires whatever timers are due.
    pub fn tick(&mut self, now: Duration) {
        self.observe(now);
        match &self.part {
            Part::Leader(_) => self.tick_leader(),
            _ if self.timer.deadline() <= self.now => self.time_out(),
            _ => {}
        }
    }

    /// Reports that this write, and all before it, are durable.
    ///
    /// # Panics
    /// If no such write was asked for: the caller mixed up its writes, and durability is a guess.
    pub fn persisted(&mut self, write_id: u64) {
        self.durability.persisted(write_id);
    }

    /// When [`Raft::tick`] is needed next. Ask after [`Raft::ready`].
    pub fn deadline(&self) -> Duration {
        match &self.part {
            Part::Leader(leading) => self.leader_deadline(leading),
            _ => self.timer.deadline(),
        }
    }

    /// Turns everything since the last call into effects.
    pub fn ready(&mut self, now: Duration) -> Effects<D> {
        self.observe(now);
        self.count_own_vote();
        self.advance_commit();
        self.settle_membership();
        self.settle_reads();
        self.replicate();
        self.drive_transfer();
        self.tell_vote();
        self.acknowledge();
        let committed = self.log.range(self.handed_out + 1, self.commit_index);
        self.handed_out = self.commit_index;
        Effects {
            write: self.durability.write(self.hard_state, &self.log),
            messages: core::mem::take(&mut self.outbox),
            restore: self.restore.take(),
            committed,
            snapshots: core::mem::take(&mut self.snapshots),
            membership: self.memberships.told(),
            reads: core::mem::take(&mut self.read_outcomes),
            events: core::mem::take(&mut self.events),
        }
    }

    /// Where this member stands.
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            term: self.hard_state.term,
            leader: self.leader(),
            last_index: self.log.last_index(),
            commit_index: self.commit_index,
            persisted_index: self.durability.persisted_index(),
        }
    }

    /// On a leader with followers: up to here they hold its log durably, as many of them as a
    /// majority needs beside the leader. For measuring; what is committed is [`Status`]'s to tell.
    pub fn replicated_index(&self) -> Option<Index> {
        match &self.part {
            Part::Leader(leading) if !leading.peers.is_empty() => {
                Some(self.quorum_index(leading, self.log.last_index()))
            }
            _ => None,
        }
    }

    /// What a leader knows of its peers; empty on any other member.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        let peers = match &self.part {
            Part::Leader(leading) => leading.peers.as_slice(),
            _ => &[],
        };
        peers.iter().map(|peer| peer.status())
    }

    /// What the log begins after.
    pub fn base(&self) -> EntryId {
        self.log.base()
    }

    /// The log from `from` on, whether durable or committed or not.
    pub fn entries(&self, from: Index) -> impl Iterator<Item = &Entry<D>> {
        self.log.entries(from)
    }

    /// Adopts a later term, in which nobody is known to lead.
    pub(crate) fn enter_term(&mut self, term: Term, reason: Reason) {
        self.set_hard_state(HardState { term, voted_for: None });
        self.become_follower(None, reason);
    }

    /// Follows, in the current term.
    pub(crate) fn become_follower(&mut self, leader: Option<NodeId>, reason: Reason) {
        let before = core::mem::replace(&mut self.part, Part::Follower(Following::of(leader)));
        if let Part::Leader(leading) = before {
            leading.reads.lose(&mut self.read_outcomes);
            self.timer.restart(self.now);
        }
        self.record(reason);
    }

    /// The state machine starts over from a snapshot.
    pub(crate) fn restore_from(&mut self, snapshot: Snapshot<D>) {
        self.handed_out = snapshot.last.index;
        self.restore = Some(snapshot);
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        assert!(hard_state.term >= self.hard_state.term, "terms never go back");
        if hard_state.term > self.hard_state.term {
            self.vote_owed = false;
        }
        self.hard_state = hard_state;
        if hard_state.voted_for.is_none() && self.config.forgets_terms() {
            return;
        }
        self.durability.hard_state_changed();
    }

    pub(crate) fn send(&mut self, to: NodeId, body: Body<D>) {
        self.send_as(to, self.hard_state.term, body);
    }

    pub(crate) fn send_as(&mut self, to: NodeId, term: Term, body: Body<D>) {
        self.outbox.push(Message { from: self.config.id, to, term, body });
    }

    pub(crate) fn record(&mut self, reason: Reason) {
        self.events.push(Event {
            role: self.role(),
            term: self.hard_state.term,
            leader: self.leader(),
            reason,
        });
    }

    /// Tells the sender of an earlier term's request about this term. Without this, a member that
    /// came out of a partition with a higher term could neither follow nor, where campaigns are
    /// ignored, ever be heard.
    fn answer_stale(&mut self, from: NodeId, body: &Body<D>) {
        match *body {
            Body::Append { .. } | Body::InstallSnapshot(_) => self.send(
                from,
                Body::AppendRejected { prev_index: 0, hint_index: 0, hint_term: 0, read_round: 0 },
            ),
            Body::Vote { pre_vote, .. } => {
                self.send(from, Body::VoteReply { pre_vote, granted: false });
            }
            _ => {}
        }
    }

    fn observe(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    pub(crate) fn role(&self) -> Role {
        match self.part {
            Part::Follower(_) => Role::Follower,
            Part::PreCandidate(_) => Role::PreCandidate,
            Part::Candidate(_) => Role::Candidate,
            Part::Leader(_) => Role::Leader,
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        match &self.part {
            Part::Follower(following) => following.leader,
            Part::Leader(_) => Some(self.config.id),
            Part::PreCandidate(_) | Part::Candidate(_) => None,
        }
    }
}
