//! Planted bugs: proof that the checkers check.
//!
//! Invariant: without the feature `seeded-bugs` every question here is the constant `false`.
//! Which test catches which bug is stated in `tests/`.

use crate::config::Config;

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident asked by $question:ident;)*) => {
        /// A bug that the scenarios or the simulation must catch.
        #[cfg(feature = "seeded-bugs")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum SeededBug {
            $($(#[$doc])* $bug,)*
        }

        #[cfg(feature = "seeded-bugs")]
        impl SeededBug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];
        }

        impl Config {
            $(pub(crate) fn $question(&self) -> bool {
                #[cfg(feature = "seeded-bugs")]
                return self.bug == Some(SeededBug::$bug);
                #[cfg(not(feature = "seeded-bugs"))]
                false
            })*
        }
    };
}

bugs! {
    /// Votes are given, and asked for, before term and vote are durable.
    VoteNotPersisted asked by votes_before_durable;
    /// A leader answers reads from its own belief that it leads.
    ReadWithoutMajority asked by reads_without_majority;
    /// A leader commits entries of earlier terms by counting (paper, figure 8).
    CommitEarlierTermByCounting asked by commits_any_term;
    /// A follower acknowledges, and a leader counts itself, before the entries are durable.
    AcknowledgeBeforePersist asked by acknowledges_before_durable;
    /// A term that was only heard of is not written down.
    TermNotPersisted asked by forgets_terms;
    /// A follower cuts its log where a late append ends, committed entries behind it too.
    ConflictTruncatesCommitted asked by truncates_at_every_append;
    /// A change of several voters goes in one step, without C_old,new.
    ChangeWithoutJoint asked by changes_in_one_step;
    /// A leader begins a change before it has committed in its own term (Ongaro, 2015).
    ChangeBeforeFirstCommit asked by changes_too_early;
    /// Learners are counted in the quorum.
    LearnerCounted asked by counts_learners;
    /// A new leader answers reads before its first entry is committed.
    ReadBeforeNoop asked by reads_before_noop;
    /// A lease is as long as the election timeout, whatever clocks do.
    LeaseBeyondDrift asked by ignores_clock_drift;
    /// A leader that sent TimeoutNow goes on reading under its lease.
    LeaseKeptThroughTransfer asked by keeps_lease_through_transfer;
    /// TimeoutNow goes to a member that lacks entries.
    TransferWithoutCatchingUp asked by transfers_without_catching_up;
    /// A leader that hears of a higher term, or from no majority, leads on.
    StaleLeaderStays asked by stale_leader_stays;
    /// A member grants a vote to a log that lacks what it has.
    VoteForShorterLog asked by votes_for_any_log;
    /// A member that changed its mind votes again in the same term.
    VoteTwice asked by votes_twice;
    /// After a restart, the promise that leases rest on is forgotten.
    PromiseForgottenOnRestart asked by forgets_its_promise;
    /// A snapshot is taken over without the membership in it.
    SnapshotWithoutMembership asked by ignores_membership_of_snapshots;
    /// C_new is taken to be in force before C_old,new is committed.
    JointLeftEarly asked by leaves_joint_early;
}
