//! Who belongs to the group, and how that changes (paper, section 6; thesis, chapter 4).
//!
//! Invariant: the membership in force is the latest one in the log, committed or not. One change
//! is under way at a time, and none begins before the leader has committed an entry of its own term
//! (Ongaro, "bug in single-server membership changes", raft-dev, 2015): otherwise two leaders could
//! each build on a change that the other never saw.
//!
//! A change that adds or removes one voter goes in one step: the majorities of before and after
//! overlap. Every other one goes through C_old,new, in which both majorities are needed; once that
//! is committed, the leader moves on to C_new by itself. A leader that is not in C_new leads, and
//! does not count itself, until C_new is committed; then it hands over and steps down.
//!
//! What the layer above keeps of its members (`context`) is not looked into. While C_old,new is in
//! force, and after it, the context is that of the change: the layer above keeps in it what it has
//! of all members, old and new, and goes by the ids.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use crate::effects::Role;
use crate::message::{EntryId, Index, Membership, NodeId, Payload, Term};
use crate::quorum::Quorum;
use crate::raft::{Part, Raft};

impl<D> Membership<D> {
    /// Whether a majority of both C_old and C_new is needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether its vote counts.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// All members, each once: voters, then those that are on their way out, then learners.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        let outgoing = self.outgoing.iter().filter(|id| !self.voters.contains(id));
        let learners = self.learners.iter().filter(|id| !self.is_voter(**id));
        self.voters.iter().chain(outgoing).chain(learners).copied()
    }

    /// The first id that is 0, or that stands where another one does.
    pub(crate) fn unsound(&self) -> Option<NodeId> {
        let twice = |ids: &[NodeId]| {
            let known = |(position, id): &(usize, &NodeId)| ids[..*position].contains(id);
            ids.iter().enumerate().find(known).map(|(_, id)| *id)
        };
        let zero = self.ids().find(|&id| id == 0);
        let both = self.learners.iter().find(|id| self.voters.contains(id)).copied();
        zero.or(both).or_else(|| {
            [&self.voters, &self.outgoing, &self.learners].into_iter().find_map(|ids| twice(ids))
        })
    }
}

/// The memberships that the log holds, from the last one that cannot be undone.
pub(crate) struct Memberships<D> {
    /// By the index that brought them; the first one is the snapshot's.
    known: VecDeque<(Index, Membership<D>)>,
    /// Of the one in force.
    pub(crate) quorum: Quorum,
    /// Whether the one in force changed since it was last told.
    untold: bool,
    /// A planted bug: learners have a say.
    learners_count: bool,
}

impl<D: Clone> Memberships<D> {
    pub(crate) fn new(index: Index, membership: Membership<D>, learners_count: bool) -> Self {
        let quorum = Quorum::of(&membership, learners_count);
        let known = VecDeque::from([(index, membership)]);
        Self { known, quorum, untold: true, learners_count }
    }

    /// The one in force.
    pub(crate) fn current(&self) -> &Membership<D> {
        &self.known.back().expect("there is always one").1
    }

    /// Where the one in force came from.
    pub(crate) fn index(&self) -> Index {
        self.known.back().expect("there is always one").0
    }

    /// Those from the last committed one on: all that may turn out to be in force.
    fn open(&self, commit_index: Index) -> impl Iterator<Item = &Membership<D>> {
        let committed = self.known.iter().take_while(|(index, _)| *index <= commit_index).count();
        self.known.iter().skip(committed.saturating_sub(1)).map(|(_, membership)| membership)
    }

    /// The one in force at an index, which is not before the snapshot's.
    pub(crate) fn at(&self, index: Index) -> &Membership<D> {
        let before = self.known.iter().take_while(|(at, _)| *at <= index);
        &before.last().expect("the snapshot's is at or before every index").1
    }

    pub(crate) fn push(&mut self, index: Index, membership: Membership<D>) {
        self.known.push_back((index, membership));
        self.in_force_changed();
    }

    /// The entries from `from` on are gone.
    pub(crate) fn truncate(&mut self, from: Index) {
        let before = self.known.len();
        while self.known.len() > 1 && self.index() >= from {
            self.known.pop_back();
        }
        if self.known.len() < before {
            self.in_force_changed();
        }
    }

    /// The entries up to `index` are held by a snapshot.
    pub(crate) fn compact(&mut self, index: Index) {
        while self.known.get(1).is_some_and(|(at, _)| *at <= index) {
            self.known.pop_front();
        }
    }

    /// Whether it changed since this was last asked.
    pub(crate) fn told(&mut self) -> Option<Membership<D>> {
        core::mem::take(&mut self.untold).then(|| self.current().clone())
    }

    /// In force without an entry: the naive swap, which the `unsafe_` setting is there to show.
    pub(crate) fn swap(&mut self, membership: Membership<D>) {
        self.known.back_mut().expect("there is always one").1 = membership;
        self.in_force_changed();
    }

    fn in_force_changed(&mut self) {
        self.quorum = Quorum::of(self.current(), self.learners_count);
        self.untold = true;
    }
}

/// What the members are to be; the leader finds the way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<D> {
    /// The voters from then on.
    pub voters: Vec<NodeId>,
    /// The learners from then on.
    pub learners: Vec<NodeId>,
    /// See [`Membership::context`]: of all members, those that leave too.
    pub context: D,
}

/// Why a change was not begun. It never happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// This member does not lead.
    NotLeader {
        /// Who does, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// Another change, or a transfer of leadership, is under way.
    UnderWay,
    /// The leader has not yet committed an entry of its own term.
    TooEarly,
    /// There would be no voter.
    NoVoters,
    /// An id is 0, or named twice.
    BadMember(NodeId),
    /// A learner that is to vote lacks more of the log than a caught-up one does.
    NotCaughtUp(NodeId),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(f, "member {leader} leads"),
            Self::NotLeader { leader: None } => write!(f, "this member does not lead"),
            Self::UnderWay => write!(f, "another change or a transfer is under way"),
            Self::TooEarly => write!(f, "the leader has not committed in its own term yet"),
            Self::NoVoters => write!(f, "a group needs a voter"),
            Self::BadMember(id) => write!(f, "member {id} is 0 or named twice"),
            Self::NotCaughtUp(id) => write!(f, "learner {id} has not caught up"),
        }
    }
}

impl core::error::Error for ChangeError {}

impl<D: Clone + AsRef<[u8]>> Raft<D> {
    /// Begins a change of members, or only of their context. It is in force at once, and committed,
    /// if it ever is, as the entry of this term at this index; a change through C_old,new is done
    /// when a later entry, C_new, is committed.
    ///
    /// # Errors
    /// Nothing was begun, and nothing of it will happen.
    pub fn change(&mut self, change: Change<D>) -> Result<(Term, Index), ChangeError> {
        let Part::Leader(leading) = &self.part else {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        };
        let current = self.memberships.current();
        let Change { voters, learners, context } = change;
        let added = voters.iter().filter(|id| !current.voters.contains(id)).count();
        let removed = current.voters.iter().filter(|id| !voters.contains(id)).count();
        let one_step = added + removed <= 1 || self.config.changes_in_one_step();
        let outgoing = if one_step { Vec::new() } else { current.voters.clone() };
        let next = Membership { voters, outgoing, learners, context };

        let under_way = self.memberships.index() > self.commit_index || current.is_joint();
        if under_way || leading.transfer.is_some() {
            return Err(ChangeError::UnderWay);
        }
        if self.commit_index < leading.first_index && !self.config.changes_too_early() {
            return Err(ChangeError::TooEarly);
        }
        if next.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        if let Some(id) = next.unsound() {
            return Err(ChangeError::BadMember(id));
        }
        let promoted = next.voters.iter().filter(|id| current.learners.contains(id));
        for &id in promoted {
            if !leading.is_caught_up(id, self.now, self.config.election_timeout) {
                return Err(ChangeError::NotCaughtUp(id));
            }
        }
        Ok(self.append_membership(next))
    }

    /// Puts a membership in force on this member alone, around the protocol: what brings two
    /// leaders about when members do it one after the other. For experiments.
    pub fn unsafe_swap_membership(&mut self, membership: Membership<D>) {
        self.memberships.swap(membership);
        self.follow_membership();
    }

    /// The membership in force.
    pub fn membership(&self) -> &Membership<D> {
        self.memberships.current()
    }

    /// The membership at an entry that is in the log, or at its beginning: for a snapshot that ends
    /// there.
    pub fn membership_at(&self, index: Index) -> &Membership<D> {
        self.memberships.at(index)
    }

    /// Whether this member may ask for votes: it is a voter of a membership that may turn out to
    /// be in force. A voter that is not in the latest one may still be the only one whose log is
    /// good enough to commit it (thesis, section 4.2.2).
    pub(crate) fn may_campaign(&self) -> bool {
        self.memberships.open(self.commit_index).any(|open| open.is_voter(self.config.id))
    }

    /// What a leader does once the membership in force is committed.
    pub(crate) fn settle_membership(&mut self) {
        let committed = self.memberships.index() <= self.commit_index;
        let current = self.memberships.current();
        let early = current.is_joint() && self.config.leaves_joint_early();
        if self.role() != Role::Leader || !(committed || early) {
            return;
        }
        if current.is_joint() {
            let next = Membership { outgoing: Vec::new(), ..current.clone() };
            self.append_membership(next);
        } else if !current.is_voter(self.config.id) {
            self.leave_office();
        }
    }

    /// Makes the leader's peers those of the membership in force.
    pub(crate) fn follow_membership(&mut self) {
        let next_index = self.log.last_index() + 1;
        if let Part::Leader(leading) = &mut self.part {
            let current = self.memberships.current();
            leading.peers.retain(|peer| current.ids().any(|id| id == peer.id));
            for id in current.ids().filter(|&id| id != self.config.id) {
                if leading.peers.iter().all(|peer| peer.id != id) {
                    leading.add_peer(id, next_index, self.now);
                }
            }
        }
    }

    fn append_membership(&mut self, membership: Membership<D>) -> (Term, Index) {
        let term = self.hard_state.term;
        let index = self.log.push(term, Payload::Membership(membership.clone()));
        self.memberships.push(index, membership);
        self.follow_membership();
        (term, index)
    }

    /// The log took in these entries from a leader.
    pub(crate) fn adopt_memberships(&mut self, from: Index) {
        let memberships: Vec<_> = self
            .log
            .entries(from)
            .filter_map(|entry| match &entry.payload {
                Payload::Membership(membership) => Some((entry.index, membership.clone())),
                Payload::Noop | Payload::Data(_) => None,
            })
            .collect();
        for (index, membership) in memberships {
            self.memberships.push(index, membership);
        }
    }

    /// The log begins anew after a snapshot.
    pub(crate) fn restart_memberships(&mut self, last: EntryId, membership: Membership<D>) {
        let learners_count = self.config.counts_learners();
        self.memberships = Memberships::new(last.index, membership, learners_count);
    }
}
