//! Seeded simulation of whole clusters. Every run draws its settings, its weather and its faults
//! from its seed, and every step is checked (see `harness::checker`).
//!
//! `RAFT_SIM_SEEDS=10000` runs more seeds, `RAFT_SIM_SEED=7` one of them, and with
//! `RAFT_SIM_TRACE=1` it tells what happens.

mod admin;
mod agenda;
mod clients;
mod expected;
mod faults;
#[path = "../harness/mod.rs"]
mod harness;
mod plan;
mod random;
mod seeds;
mod syncs;
mod tally;
mod watch;
mod world;

use harness::checker::Checks;
use plan::{Bug, ELECTION_TIMEOUT_US};
use seeds::{Failure, number};
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

/// Runs the seeds below a number on all cores, until one fails; the outcomes in no order, or the
/// lowest seed that failed.
fn run_until_failure(
    seeds: u64,
    bug: Option<Bug>,
    checks: Checks,
) -> Result<Vec<Outcome>, Failure> {
    let work = |seed, outcomes: &mut Vec<Outcome>| {
        outcomes.push(world::run(seed, bug, checks, false));
    };
    Ok(seeds::run(0..seeds, work)?.into_iter().flatten().collect())
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
