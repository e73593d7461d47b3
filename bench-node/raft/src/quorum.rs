//! Who votes, and what a majority of them has reached.
//!
//! Invariant: every decision that needs a quorum (election, commit, read, check-quorum, lease) is
//! asked here. While C_old,new is in force it needs a majority of both (paper, section 6), and no
//! other file knows of that.

use alloc::vec::Vec;

use crate::message::{Membership, NodeId};

/// The voting members: one configuration, or two of which each must agree.
pub(crate) struct Quorum {
    incoming: Vec<NodeId>,
    /// C_old, while C_old,new is in force; empty otherwise.
    outgoing: Vec<NodeId>,
}

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    Won,
    Lost,
    Open,
}

impl Quorum {
    /// `learners_count` is a planted bug.
    pub(crate) fn of<D>(membership: &Membership<D>, learners_count: bool) -> Self {
        let mut incoming = membership.voters.clone();
        if learners_count {
            incoming.extend(&membership.learners);
        }
        Self { incoming, outgoing: membership.outgoing.clone() }
    }

    /// All voters but one, each once.
    pub(crate) fn except(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let only_outgoing = self.outgoing.iter().filter(|id| !self.incoming.contains(id));
        self.incoming.iter().chain(only_outgoing).copied().filter(move |&other| other != id)
    }

    /// The largest value that a quorum has reached.
    pub(crate) fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> T {
        let reached = |ids| reached_by_majority(ids, &value);
        reached(&self.incoming)
            .into_iter()
            .chain(reached(&self.outgoing))
            .min()
            .expect("who asks is a voter, or leads voters")
    }

    /// Counts answers: yes, no, or none yet.
    pub(crate) fn poll(&self, answer: impl Fn(NodeId) -> Option<bool>) -> Poll {
        if self.incoming.is_empty() {
            return Poll::Lost;
        }
        match (poll_majority(&self.incoming, &answer), poll_majority(&self.outgoing, &answer)) {
            (Poll::Lost, _) | (_, Poll::Lost) => Poll::Lost,
            (Poll::Won, Poll::Won) => Poll::Won,
            _ => Poll::Open,
        }
    }
}

fn majority(ids: &[NodeId]) -> usize {
    ids.len() / 2 + 1
}

/// None where there is nobody. (A handful of voters: counting is quicker than sorting, and needs
/// no memory.)
fn reached_by_majority<T: Ord + Copy>(ids: &[NodeId], value: impl Fn(NodeId) -> T) -> Option<T> {
    ids.iter()
        .map(|&id| value(id))
        .filter(|mine| ids.iter().filter(|&&id| value(id) >= *mine).count() >= majority(ids))
        .max()
}

/// Where there is nobody, nobody refuses.
fn poll_majority(ids: &[NodeId], answer: impl Fn(NodeId) -> Option<bool>) -> Poll {
    if ids.is_empty() {
        return Poll::Won;
    }
    let count = |wanted| ids.iter().filter(|&&id| answer(id) == Some(wanted)).count();
    if count(true) >= majority(ids) {
        Poll::Won
    } else if ids.len() - count(false) < majority(ids) {
        Poll::Lost
    } else {
        Poll::Open
    }
}
