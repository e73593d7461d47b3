//! Planted bugs: proof that the tests of the log test something.
//!
//! Invariant: without the feature `seeded-bugs` every question here is the constant `false`.
//! `tests/log/bugs.rs` states which test catches which bug, and after how many seeds.

use super::Options;

/// A bug that can be planted in the log.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// Reports a write as persisted without the sync. Killing the process does not show it: the
    /// page cache outlives the process. Only a loss of power does, simulated or real.
    AcknowledgeBeforeSync,
    /// Releases the oldest segment that is still needed along with those that are not.
    LogCutTooFar,
    /// A start does not void what it cut: what earlier segments hold behind the cut counts again
    /// at the next start.
    TornTailNotCut,
    /// Takes a batch that an earlier use of a segment's file left behind for one of this use.
    StaleRecordAccepted,
    /// Does not sync the directory after a segment got its name.
    DirectoryNotSynced,
    /// A start takes what it reads for durable, also where no batch records that it is: the sync
    /// that failed before had marked it clean in the page cache.
    CacheTrustedAfterFailedSync,
    /// Reports a batch as persisted when it is durable itself, while one before it is on its way.
    ReportedOutOfOrder,
    /// Records as durable prefix the last batch that is durable, while one before it is not.
    DurablePrefixSkipsBatches,
    /// Takes a write in flight that failed for one that is done.
    FailureInFlightIgnored,
}

macro_rules! question {
    ($name:ident, $bug:ident) => {
        pub(super) fn $name(&self) -> bool {
            #[cfg(feature = "seeded-bugs")]
            return self.bug == Some(SeededBug::$bug);
            #[cfg(not(feature = "seeded-bugs"))]
            false
        }
    };
}

impl Options {
    question!(acknowledges_before_sync, AcknowledgeBeforeSync);
    question!(releases_too_far, LogCutTooFar);
    question!(keeps_torn_tail, TornTailNotCut);
    question!(accepts_stale_records, StaleRecordAccepted);
    question!(skips_directory_sync, DirectoryNotSynced);
    question!(trusts_the_cache, CacheTrustedAfterFailedSync);
    question!(reports_out_of_order, ReportedOutOfOrder);
    question!(skips_in_durable_prefix, DurablePrefixSkipsBatches);
    question!(ignores_failures_in_flight, FailureInFlightIgnored);
}
