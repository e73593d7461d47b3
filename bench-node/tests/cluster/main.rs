//! Seeded simulation of whole nodes: the shipped layer of groups, state machine, log, snapshots,
//! identity and wire format, over simulated disks, clocks and sockets. Every run draws its settings,
//! its weather and its faults from its seed; every step is checked (see `checker`), and at the end
//! the clients' history (see `clients`).
//!
//! A seed counts only with at least 100 commits, an election and a recovery from a disk in it.
//!
//! `RAFT_SIM_SEEDS=10000` runs so many seeds, from `RAFT_SIM_FROM` on; `RAFT_SIM_SEED=7` runs one of
//! them, and with `RAFT_SIM_TRACE=1` it tells what happens.

mod admin;
#[path = "../../raft/tests/simulation/agenda.rs"]
mod agenda;
mod checker;
mod clients;
mod expected;
mod faults;
mod life;
mod node;
mod plan;
#[cfg(feature = "seeded-bugs")]
mod planted;
#[path = "../../raft/tests/simulation/random.rs"]
mod random;
#[path = "../../raft/tests/simulation/seeds.rs"]
mod seeds;
#[path = "../../raft/tests/simulation/tally.rs"]
mod tally;
mod watch;
mod world;

use std::time::Instant;

use checker::Checks;
use plan::{Bug, ELECTION_TIMEOUT_US};
use seeds::{Failure, number};
use tally::Tally;
use world::Outcome;

/// About a minute on two cores.
const SEEDS: u64 = 3_000;

#[test]
fn every_property_holds_in_every_seed() {
    if let Some(seed) = number("RAFT_SIM_SEED") {
        world::run(seed, None, Checks::All, number("RAFT_SIM_TRACE").is_some());
        return;
    }
    let from = number("RAFT_SIM_FROM").unwrap_or(0);
    let seeds = number("RAFT_SIM_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    match run_until_failure(from, seeds, None, Checks::All) {
        Ok(totals) => report(&totals, began.elapsed().as_secs_f64(), seeds >= SEEDS),
        Err(Failure { seed, why }) => panic!("{why}\n{}", replay(seed)),
    }
}

/// The line that replays a seed.
fn replay(seed: u64) -> String {
    format!("RAFT_SIM_SEED={seed} cargo test --release -p bench-node --test cluster")
}

/// What runs came to together.
#[derive(Default)]
struct Totals {
    tally: Tally,
    seeds: u64,
    counted: u64,
    steps: u64,
    committed: u64,
    elections: u64,
    recoveries: u64,
    operations: u64,
    simulated_us: u64,
    slowest_us: u64,
}

impl Totals {
    fn add(&mut self, outcome: Outcome) {
        self.counted += u64::from(outcome.counts());
        self.seeds += 1;
        self.steps += outcome.steps;
        self.committed += outcome.committed;
        self.elections += outcome.elections;
        self.recoveries += outcome.recoveries;
        self.operations += outcome.operations;
        self.simulated_us += outcome.simulated_us;
        self.slowest_us = self.slowest_us.max(outcome.recovery_us);
        self.tally.merge(outcome.tally);
    }

    fn merge(&mut self, other: Self) {
        self.counted += other.counted;
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.committed += other.committed;
        self.elections += other.elections;
        self.recoveries += other.recoveries;
        self.operations += other.operations;
        self.simulated_us += other.simulated_us;
        self.slowest_us = self.slowest_us.max(other.slowest_us);
        self.tally.merge(other.tally);
    }
}

fn run_until_failure(
    from: u64,
    seeds: u64,
    bug: Option<Bug>,
    checks: Checks,
) -> Result<Totals, Failure> {
    let work = |seed, totals: &mut Totals| totals.add(world::run(seed, bug, checks, false));
    let mut all = Totals::default();
    seeds::run(from..from + seeds, work)?.into_iter().for_each(|totals| all.merge(totals));
    Ok(all)
}

fn report(totals: &Totals, seconds: f64, everything: bool) {
    let Totals { seeds, counted, steps, committed, elections, recoveries, .. } = totals;
    let simulated = totals.simulated_us as f64 / 1e6;
    println!("{}", totals.tally.table(*seeds));
    println!(
        "{seeds} seeds, {counted} of them count; {steps} events, {committed} entries committed, \
         {} operations of clients, {elections} elections, {recoveries} recoveries",
        totals.operations,
    );
    println!(
        "{seconds:.1} s: {:.0} committed operations/s, {:.0} events/s, {:.1} simulated seconds for \
         each real one; the slowest healing took {:.1} election timeouts",
        *committed as f64 / seconds,
        *steps as f64 / seconds,
        simulated / seconds,
        totals.slowest_us as f64 / ELECTION_TIMEOUT_US as f64,
    );
    if everything {
        let missing = totals.tally.missing();
        assert!(missing.is_empty(), "this never happened, so it was not tested: {missing:#?}");
        assert!(counted * 10 >= seeds * 9, "only {counted} of {seeds} seeds count");
    }
}
