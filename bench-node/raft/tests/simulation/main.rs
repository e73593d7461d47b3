//! Seeded simulation of whole clusters. Every run draws its settings, its weather and its faults
//! from its seed, and every step is checked (see `harness::checker`).
//!
//! `RAFT_SIM_SEEDS=10000` runs more seeds, `RAFT_SIM_SEED=7` one of them, and with
//! `RAFT_SIM_TRACE=1` it tells what happens.

mod admin;
mod clients;
mod faults;
#[path = "../harness/mod.rs"]
mod harness;
mod plan;
mod random;
mod syncs;
mod tally;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::checker::Checks;
use plan::{Bug, ELECTION_TIMEOUT_US};
use tally::Tally;
use world::Outcome;

/// Under half a minute on two cores.
const SEEDS: u64 = 6_000;

#[test]
fn every_property_holds_in_every_seed() {
    if let Some(seed) = number("RAFT_SIM_SEED") {
        world::run(seed, None, Checks::All, number("RAFT_SIM_TRACE").is_some());
        return;
    }
    let seeds = number("RAFT_SIM_SEEDS").unwrap_or(SEEDS);
    match run_until_failure(seeds, None, Checks::All) {
        Ok(outcomes) => report(outcomes, seeds),
        Err(Failure { seed, why }) => {
            panic!("{why}\nRAFT_SIM_SEED={seed} cargo test --release -p raft --test simulation")
        }
    }
}

struct Failure {
    seed: u64,
    why: String,
}

/// Runs the seeds below a number on all cores, until one fails; the outcomes in no order, or the
/// lowest seed that failed.
fn run_until_failure(
    seeds: u64,
    bug: Option<Bug>,
    checks: Checks,
) -> Result<Vec<Outcome>, Failure> {
    // A failure is reported once, by the caller: the runs' own threads, which are unnamed, are quiet.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some() {
                report(panic);
            }
        }));
    });
    let next = AtomicU64::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return Ok(outcomes);
            }
            match catch_unwind(AssertUnwindSafe(|| world::run(seed, bug, checks, false))) {
                Ok(outcome) => outcomes.push(outcome),
                Err(cause) => {
                    next.store(seeds, Ordering::Relaxed);
                    let text = cause.downcast_ref::<String>().cloned();
                    let text =
                        text.or_else(|| cause.downcast_ref().map(|text: &&str| (*text).into()));
                    return Err(Failure { seed, why: text.unwrap_or_default() });
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("caught above")).collect::<Vec<_>>()
    });
    let (mut outcomes, mut failures) = (Vec::new(), BTreeMap::new());
    for result in results {
        match result {
            Ok(more) => outcomes.extend(more),
            Err(failure) => _ = failures.insert(failure.seed, failure),
        }
    }
    failures.pop_first().map_or(Ok(outcomes), |(_, failure)| Err(failure))
}

fn report(outcomes: Vec<Outcome>, seeds: u64) {
    let mut tally = Tally::default();
    let (mut steps, mut committed, mut slowest_us, mut allowed) = (0, 0, 0, 0f64);
    for outcome in outcomes {
        steps += outcome.steps;
        committed += outcome.committed;
        slowest_us = slowest_us.max(outcome.recovery_us);
        allowed = allowed.max(outcome.allowed);
        tally.merge(outcome.tally);
    }
    println!("{}", tally.table(seeds));
    println!(
        "{seeds} seeds, {steps} steps, {committed} entries committed; \
         the slowest recovery took {:.1} election timeouts, and {:.0} % of what was allowed",
        slowest_us as f64 / ELECTION_TIMEOUT_US as f64,
        100.0 * allowed,
    );
    let missing = tally.missing();
    assert!(missing.is_empty(), "this never happened, so it was not tested: {missing:#?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

/// Each planted bug is caught twice: at once, where something leaves a member before what it rests
/// on is durable or counted, and by its outcome alone, in what users of the cluster are promised.
#[cfg(feature = "seeded-bugs")]
mod planted {
    use super::*;

    #[test]
    fn every_bug_is_caught() {
        for &bug in Bug::ALL {
            let (all, outcomes) = seeds(bug);
            caught(bug, Checks::All, all);
            caught(bug, Checks::Outcomes, outcomes);
        }
    }

    /// Within how many seeds it is caught with all checks, and with those of outcomes alone; in 0,
    /// where that cannot be.
    fn seeds(bug: Bug) -> (u64, u64) {
        match bug {
            Bug::VoteNotPersisted => (10, 5_000),
            Bug::ReadWithoutMajority => (500, 500),
            Bug::CommitEarlierTermByCounting => (10, 2_000),
            Bug::AcknowledgeBeforePersist => (10, 10),
            Bug::TermNotPersisted => (10, 10),
            Bug::ConflictTruncatesCommitted => (10, 10),
            Bug::ChangeWithoutJoint => (200, 200),
            // The scenario `change_waits_for_the_first_commit` catches it: by chance, it takes a
            // fault at the right moment of each of two terms.
            Bug::ChangeBeforeFirstCommit => (0, 0),
            Bug::LearnerCounted => (10, 1_000),
            Bug::ReadBeforeNoop => (10, 10),
            Bug::LeaseBeyondDrift => (2_000, 2_000),
            Bug::LeaseKeptThroughTransfer => (2_000, 2_000),
            // Safe, and slow: its campaign is lost.
            Bug::TransferWithoutCatchingUp => (10, 0),
            Bug::StaleLeaderStays => (10, 10),
            Bug::VoteForShorterLog => (10, 10),
            Bug::VoteTwice => (10, 100),
            // The scenario `lease_reads` catches it.
            Bug::PromiseForgottenOnRestart => (0, 0),
            Bug::SnapshotWithoutMembership => (10, 1_000),
            Bug::JointLeftEarly => (10, 10),
        }
    }

    fn caught(bug: Bug, checks: Checks, seeds: u64) {
        let what = if checks == Checks::All { "all checks" } else { "outcomes alone" };
        match run_until_failure(seeds, Some(bug), checks) {
            Err(Failure { seed, why }) => {
                let why = why.lines().next().unwrap_or_default();
                println!("{bug:?}, {what}: caught by seed {seed} of {seeds}: {why}");
            }
            Ok(_) => assert!(seeds == 0, "{bug:?}, {what}: not caught in {seeds} seeds"),
        }
    }
}
