//! Who votes, and what a majority of them has reached.
//!
//! Invariant: every decision that needs a quorum (election, commit, read, check-quorum) is asked
//! here, so that a configuration with two majorities changes this file and no other.

use alloc::vec::Vec;

use crate::message::NodeId;

/// The voting members.
pub(crate) struct Voters {
    ids: Vec<NodeId>,
}

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    Won,
    Lost,
    Open,
}

impl Voters {
    pub(crate) fn new(mut ids: Vec<NodeId>) -> Self {
        ids.sort_unstable();
        Self { ids }
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.ids.contains(&id)
    }

    /// All voters but one.
    pub(crate) fn except(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.ids.iter().copied().filter(move |&other| other != id)
    }

    fn majority(&self) -> usize {
        self.ids.len() / 2 + 1
    }

    /// The largest value that a majority has reached. (A handful of voters: counting is quicker
    /// than sorting, and needs no memory.)
    pub(crate) fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> T {
        self.ids
            .iter()
            .map(|&id| value(id))
            .filter(|mine| {
                self.ids.iter().filter(|&&id| value(id) >= *mine).count() >= self.majority()
            })
            .max()
            .expect("there is at least one voter")
    }

    /// Counts answers: yes, no, or none yet.
    pub(crate) fn poll(&self, answer: impl Fn(NodeId) -> Option<bool>) -> Poll {
        let (mut yes, mut no) = (0, 0);
        for &id in &self.ids {
            match answer(id) {
                Some(true) => yes += 1,
                Some(false) => no += 1,
                None => {}
            }
        }
        if yes >= self.majority() {
            Poll::Won
        } else if self.ids.len() - no < self.majority() {
            Poll::Lost
        } else {
            Poll::Open
        }
    }
}
