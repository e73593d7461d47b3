//! Planted bugs: proof that the checkers check.
//!
//! Invariant: without the feature `seeded-bugs` every question here is the constant `false`.
//! Which test catches which bug is stated in `tests/`.

use crate::config::Config;

/// A bug that the scenarios or the simulation must catch.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// Votes are given, and asked for, before term and vote are durable.
    VoteNotPersisted,
    /// A leader answers reads from its own belief that it leads.
    ReadWithoutMajority,
    /// A leader commits entries of earlier terms by counting (paper, figure 8).
    CommitEarlierTermByCounting,
    /// A follower acknowledges, and a leader counts itself, before the entries are durable.
    AcknowledgeBeforePersist,
}

impl Config {
    pub(crate) fn votes_before_durable(&self) -> bool {
        #[cfg(feature = "seeded-bugs")]
        return self.bug == Some(SeededBug::VoteNotPersisted);
        #[cfg(not(feature = "seeded-bugs"))]
        false
    }

    pub(crate) fn reads_without_majority(&self) -> bool {
        #[cfg(feature = "seeded-bugs")]
        return self.bug == Some(SeededBug::ReadWithoutMajority);
        #[cfg(not(feature = "seeded-bugs"))]
        false
    }

    pub(crate) fn commits_any_term(&self) -> bool {
        #[cfg(feature = "seeded-bugs")]
        return self.bug == Some(SeededBug::CommitEarlierTermByCounting);
        #[cfg(not(feature = "seeded-bugs"))]
        false
    }

    pub(crate) fn acknowledges_before_durable(&self) -> bool {
        #[cfg(feature = "seeded-bugs")]
        return self.bug == Some(SeededBug::AcknowledgeBeforePersist);
        #[cfg(not(feature = "seeded-bugs"))]
        false
    }
}
