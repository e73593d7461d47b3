//! The follower's side of replication (paper, section 5.3).
//!
//! Invariant: an acceptance covers only what is both durable here and known equal to the log of
//! the leader of the current term, in a term that is itself durable. It is made from the state at
//! the moment of sending, so many appends share one, and one that is late says what is true then.

use alloc::vec::Vec;
use core::time::Duration;

use crate::effects::Reason;
use crate::log::Log;
use crate::message::{Body, Entry, Index, NodeId, Snapshot, Term};
use crate::raft::{Part, Raft};

/// What a follower knows in its term.
#[derive(Default)]
pub(crate) struct Following {
    pub(crate) leader: Option<NodeId>,
    /// When the leader was last heard from.
    pub(crate) heard: Option<Duration>,
    /// Up to here the log equals the leader's.
    matched: Index,
    /// The latest round of reads heard of.
    read_round: u64,
    /// What the last acceptance covered.
    accepted: Index,
    /// An acceptance is wanted even if it covers nothing new.
    answer_due: bool,
}

impl Following {
    pub(crate) fn of(leader: Option<NodeId>) -> Self {
        Self { leader, ..Self::default() }
    }
}

impl<D: Clone + AsRef<[u8]>> Raft<D> {
    /// Takes in an append of the current term.
    pub(crate) fn follow(
        &mut self,
        leader: NodeId,
        prev_index: Index,
        prev_term: Term,
        entries: Vec<Entry<D>>,
        commit: Index,
        read_round: u64,
    ) {
        if !is_consecutive(prev_index, prev_term, &entries, self.hard_state.term) {
            return;
        }
        if !self.follow_leader(leader) {
            return;
        }
        self.timer.put_off(self.now);

        // What lies before the log's beginning is committed, and so equal.
        let held = prev_index < self.log.base().index || self.log.holds(prev_index, prev_term);
        let last_new = prev_index + entries.len() as u64;
        let news = !entries.is_empty();
        if held {
            self.adopt(entries);
        }
        let persisted_index = self.durability.persisted_index();
        let Part::Follower(following) = &mut self.part else {
            unreachable!("an append of this term makes a follower");
        };
        following.heard = Some(self.now);
        self.promised = Some(self.now);
        let new_round = read_round > following.read_round;
        following.read_round = following.read_round.max(read_round);
        if !held {
            let read_round = following.read_round;
            return self.reject(leader, prev_index, read_round);
        }
        // All that is committed is in the log of every later leader.
        following.matched = following.matched.max(last_new).max(self.commit_index);
        // What waits for the disk is answered when it is durable; a heartbeat, a new round of
        // reads and what was durable before are answered at once.
        following.answer_due |= !news || new_round || last_new <= persisted_index;
        self.commit_index = self.commit_index.max(commit.min(following.matched));
    }

    /// Takes in what a snapshot's last message says. Its state is durable here.
    pub(crate) fn install(&mut self, leader: NodeId, snapshot: Snapshot<D>) {
        let last = snapshot.last;
        if last.index == 0
            || last.term > self.hard_state.term
            || snapshot.membership.unsound().is_some()
        {
            return;
        }
        if !self.follow_leader(leader) {
            return;
        }
        self.timer.put_off(self.now);
        if last.index > self.commit_index {
            if !self.log.holds(last.index, last.term) {
                self.log = Log::new(last, Vec::new());
                if !self.config.ignores_membership_of_snapshots() {
                    self.restart_memberships(last, snapshot.membership.clone());
                }
                self.durability.restarted(last);
                self.restore_from(snapshot);
            }
            self.commit_index = last.index;
        }
        let commit_index = self.commit_index;
        let Part::Follower(following) = &mut self.part else { unreachable!("it follows") };
        following.heard = Some(self.now);
        self.promised = Some(self.now);
        following.matched = following.matched.max(commit_index);
        following.answer_due = true;
    }

    /// Sends the acceptance that is owed to the leader, if there is one.
    pub(crate) fn acknowledge(&mut self) {
        let persisted_index = if self.config.acknowledges_before_durable() {
            self.log.last_index()
        } else {
            self.durability.persisted_index()
        };
        if !self.durability.hard_state_is_durable() {
            return;
        }
        let Part::Follower(following) = &mut self.part else { return };
        let Some(leader) = following.leader else { return };
        let match_index = following.matched.min(persisted_index);
        if following.answer_due || match_index > following.accepted {
            following.answer_due = false;
            following.accepted = match_index;
            let read_round = following.read_round;
            self.send(leader, Body::AppendAccepted { match_index, read_round });
        }
    }

    /// Follows the leader of the current term, if that is who this is.
    fn follow_leader(&mut self, leader: NodeId) -> bool {
        match &self.part {
            Part::Follower(following) if following.leader == Some(leader) => {}
            // A term has one leader: whoever else claims to be it is not listened to.
            Part::Follower(following) if following.leader.is_some() => return false,
            Part::Leader(_) => return false,
            _ => self.become_follower(Some(leader), Reason::LeaderHeard),
        }
        true
    }

    /// Makes the log hold these entries. What is equal stays, also beyond them: an append that
    /// comes late must not undo a later one.
    fn adopt(&mut self, entries: Vec<Entry<D>>) {
        let base = self.log.base().index;
        let equal =
            |entry: &&Entry<D>| entry.index <= base || self.log.holds(entry.index, entry.term);
        let cuts_always = self.config.truncates_at_every_append();
        let equal = if cuts_always { 0 } else { entries.iter().take_while(equal).count() };
        let Some(first) = entries.get(equal).map(|entry| entry.index) else { return };
        if first <= self.log.last_index() {
            assert!(
                first > self.commit_index || cuts_always,
                "entry {first} is committed and the leader of term {} has another: \
                 a durable log was lost or changed",
                self.hard_state.term,
            );
            self.log.truncate(first);
            self.durability.truncated(first);
            self.memberships.truncate(first);
        }
        self.log.extend(entries.into_iter().skip(equal));
        self.adopt_memberships(first);
    }

    fn reject(&mut self, leader: NodeId, prev_index: Index, read_round: u64) {
        let (hint_index, hint_term) = match self.log.term(prev_index) {
            Some(term) => (self.log.first_index_of(term), term),
            None => (self.log.last_index() + 1, 0),
        };
        self.send(leader, Body::AppendRejected { prev_index, hint_index, hint_term, read_round });
    }
}

/// Whether entries can be what a leader of `term` sent: indexes without gaps, terms that never go
/// down.
fn is_consecutive<D>(prev_index: Index, prev_term: Term, entries: &[Entry<D>], term: Term) -> bool {
    let mut previous = (prev_index, prev_term);
    for entry in entries {
        if entry.index != previous.0 + 1 || entry.term < previous.1 {
            return false;
        }
        previous = (entry.index, entry.term);
    }
    previous.1 <= term
}
