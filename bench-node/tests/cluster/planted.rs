//! Planted bugs of every room, and the first seeds that catch them: proof that the simulation sees
//! what it is there to see.
//!
//! Each is looked for twice: with all checks, which see what leaves a node too early, and with those
//! of outcomes alone, which see only what the cluster's users were promised.

use bench_node::{snapshot, store, wal};

use crate::checker::Checks;
use crate::plan::Bug;
use crate::run_until_failure;
use crate::seeds::Failure;

/// Within how many seeds each is caught, with all checks and by outcomes alone; in 0, where it is not
/// looked for.
const PLANTED: &[(Bug, u64, u64)] = &[
    (Bug::WipedMemberVotes, 400, 400),
    (Bug::Store(store::SeededBug::MessageToTheWrongGroup), 50, 50),
    (Bug::Snapshot(snapshot::SeededBug::DuplicateApplyAfterRestart), 50, 50),
    (Bug::LostWrite(40), 50, 50),
    (Bug::Wal(wal::SeededBug::AcknowledgeBeforeSync), 50, 50),
    (Bug::Wal(wal::SeededBug::LogCutTooFar), 200, 0),
    (Bug::Wal(wal::SeededBug::TornTailNotCut), 2000, 0),
    (Bug::Wal(wal::SeededBug::StaleRecordAccepted), 200, 0),
    (Bug::Wal(wal::SeededBug::DirectoryNotSynced), 200, 0),
    (Bug::Wal(wal::SeededBug::CacheTrustedAfterFailedSync), 1000, 0),
    (Bug::Wal(wal::SeededBug::ReportedOutOfOrder), 200, 0),
    (Bug::Wal(wal::SeededBug::DurablePrefixSkipsBatches), 200, 0),
    (Bug::Wal(wal::SeededBug::FailureInFlightIgnored), 400, 0),
    (Bug::Snapshot(snapshot::SeededBug::MembershipLeftOut), 100, 0),
    (Bug::Snapshot(snapshot::SeededBug::DirectoryNotSynced), 400, 0),
    (Bug::Raft(raft::SeededBug::VoteNotPersisted), 50, 0),
    (Bug::Raft(raft::SeededBug::AcknowledgeBeforePersist), 50, 50),
    (Bug::Raft(raft::SeededBug::TermNotPersisted), 50, 0),
    (Bug::Raft(raft::SeededBug::ReadWithoutMajority), 1000, 1000),
    (Bug::Raft(raft::SeededBug::StaleLeaderStays), 50, 0),
    (Bug::Raft(raft::SeededBug::VoteForShorterLog), 50, 0),
    (Bug::Raft(raft::SeededBug::ConflictTruncatesCommitted), 50, 0),
    (Bug::Raft(raft::SeededBug::ReadBeforeNoop), 200, 0),
];

#[test]
fn every_bug_is_caught() {
    let mut missed = Vec::new();
    for &(bug, all, outcomes) in PLANTED {
        for (checks, seeds) in [(Checks::All, all), (Checks::Outcomes, outcomes)] {
            let what = if checks == Checks::All { "all checks" } else { "outcomes alone" };
            match run_until_failure(0, seeds, Some(bug), checks) {
                Err(Failure { seed, why }) => {
                    let why = why.lines().next().unwrap_or_default();
                    println!("{bug:?}, {what}: caught by seed {seed} of {seeds}: {why}");
                }
                Ok(_) if seeds == 0 => {}
                Ok(_) => missed.push((bug, what, seeds)),
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}
