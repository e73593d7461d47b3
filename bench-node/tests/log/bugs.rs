//! Planted bugs, and the first of the seeds of `lives` that catches each.
//!
//! | bug | what shows it there | first seed |
//! |---|---|---|
//! | acknowledged before the sync | a power cut takes a batch that a later one records as durable | 1 |
//! | log cut too far | entries are missing behind a base | 0 |
//! | torn tail not cut | batches of two starts compete, and the later ones do not count | 0 |
//! | stale record accepted | a new segment seems to begin long ago, and voids what is before it | 0 |
//! | directory not synced | an acknowledged append is gone with its segment | 0 |
//! | cache trusted after a failed sync | a power cut takes what an earlier start gave back | 83 |
//! | reported out of order | a power cut takes an earlier batch, and the acknowledged one with it | 1 |
//! | durable prefix skips batches | a power cut takes a batch that a later one records as durable | 2 |
//! | failure in flight ignored | a batch that failed was acknowledged | 1 |

use bench_node::wal::{Options, SeededBug};

use crate::lives::{Ends, Tally, live, seeds};
use crate::model::small;

/// The first seed of `most` that catches a bug, and how.
fn first(bug: SeededBug, most: u64) -> (u64, String) {
    let options = Options { bug: Some(bug), ..small() };
    let caught = |seed| Some((seed, live(seed, Ends::All, &options, &mut Tally::default()).err()?));
    seeds(most).find_map(caught).unwrap_or_else(|| panic!("{bug:?} was not caught"))
}

#[test]
fn every_planted_bug_is_caught() {
    let first_seeds = [
        (SeededBug::AcknowledgeBeforeSync, 1),
        (SeededBug::LogCutTooFar, 0),
        (SeededBug::TornTailNotCut, 0),
        (SeededBug::StaleRecordAccepted, 0),
        (SeededBug::DirectoryNotSynced, 0),
        (SeededBug::CacheTrustedAfterFailedSync, 83),
        (SeededBug::ReportedOutOfOrder, 1),
        (SeededBug::DurablePrefixSkipsBatches, 2),
        (SeededBug::FailureInFlightIgnored, 1),
    ];
    let found = first_seeds.map(|(bug, _)| {
        let (seed, how) = first(bug, 600);
        println!("{bug:?}: {how}");
        (bug, seed)
    });
    if std::env::var_os("RAFTBENCH_SEED").is_none() {
        assert_eq!(found, first_seeds);
    }
}

#[test]
fn acknowledging_before_the_sync_is_caught_by_a_power_cut_only() {
    let bug = Some(SeededBug::AcknowledgeBeforeSync);
    let options = Options { bug, ..small() };
    let mut tally = Tally::default();
    for seed in seeds(100) {
        live(seed, Ends::Kills, &options, &mut tally).expect("kill -9 cannot show this bug");
    }
    let caught =
        seeds(100).filter(|&seed| live(seed, Ends::All, &options, &mut tally).is_err()).count();
    assert!(caught >= 50, "only {caught} of 100 seeds caught the bug");
}
