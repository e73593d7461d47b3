//! Planted bugs: proof that the tests of snapshots test something.
//!
//! Invariant: without the feature `seeded-bugs` every question here is the constant `false`.
//! `tests/snapshot/bugs.rs` states which test catches which bug, and after how many seeds.

use super::Options;

/// A bug that can be planted in snapshots.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// A snapshot has no membership in it.
    MembershipLeftOut,
    /// Does not sync the directory after a snapshot got its name.
    DirectoryNotSynced,
    /// Gives a snapshot its name before its last bytes are durable.
    NamedBeforeSync,
    /// Takes what an interrupted transfer left for as much as its length says.
    ResumedUnchecked,
    /// A start from a snapshot takes the log up anew from where the log begins: entries that the
    /// snapshot covers are applied to it again.
    DuplicateApplyAfterRestart,
}

macro_rules! question {
    ($name:ident, $bug:ident) => {
        pub(crate) fn $name(&self) -> bool {
            #[cfg(feature = "seeded-bugs")]
            return self.bug == Some(SeededBug::$bug);
            #[cfg(not(feature = "seeded-bugs"))]
            false
        }
    };
}

impl Options {
    question!(leaves_out_membership, MembershipLeftOut);
    question!(skips_directory_sync, DirectoryNotSynced);
    question!(names_before_sync, NamedBeforeSync);
    question!(resumes_unchecked, ResumedUnchecked);
    question!(forgets_to_rebase, DuplicateApplyAfterRestart);
}
