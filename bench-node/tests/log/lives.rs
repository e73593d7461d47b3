//! Many starts of one member on one simulated disk, each ended by a seeded fault.

use std::path::Path;

use bench_node::GroupId;
use bench_node::disk::{Disk, Fault, Simulated};
use bench_node::wal::inspect::inspect;
use bench_node::wal::{self, Options, Wal, WalError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{State, small};

const LIVES: u64 = 12;
const DIR: &str = "/wal";
const GROUPS: [GroupId; 3] = [0, 5, 1 << 40];

/// Which faults a run has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Killed processes only: the page cache outlives them.
    Kills,
    /// Losses of power and failing syncs too.
    All,
}

/// What happened in some runs, so that a test can tell that it tested something.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    starts: u64,
    appends: u64,
    /// Appends after which at least one more was on its way.
    several_on_their_way: u64,
    failed_appends: u64,
    failed_starts: u64,
    cuts: u64,
    unacknowledged_kept: u64,
    unacknowledged_lost: u64,
    /// Starts on a log that was cut at its beginning.
    starts_on_a_cut_log: u64,
    /// Segments that were made of spares, as starts find them.
    recycled: u64,
    /// Starts that find spares.
    spares: u64,
}

#[test]
fn every_start_finds_all_that_was_acknowledged_and_a_prefix_of_the_rest() {
    let mut tally = Tally::default();
    for seed in seeds(600) {
        if let Err(error) = live(seed, Ends::All, &small(), &mut tally) {
            panic!("{error}\n{}", replay(seed, "lives"));
        }
    }
    println!("{tally:?}");
    if std::env::var_os("RAFTBENCH_SEED").is_none() {
        assert!(tally.failed_appends > 0 && tally.failed_starts > 0 && tally.cuts > 0);
        assert!(tally.unacknowledged_kept > 0 && tally.unacknowledged_lost > 0, "{tally:?}");
        assert!(tally.several_on_their_way > 10_000, "{tally:?}");
        assert!(tally.starts_on_a_cut_log > 500, "{tally:?}");
        assert!(tally.recycled > 500 && tally.spares > 100, "{tally:?}");
    }
}

/// The page cache outlives a killed process, so without any sync nothing is lost by a kill, and
/// a power cut loses acknowledged writes: what `unsafe_no_fsync` says.
#[test]
fn without_syncs_a_kill_loses_nothing_and_a_power_cut_does() {
    let options = Options { unsafe_no_fsync: true, ..small() };
    let mut tally = Tally::default();
    // The last one once released a segment of which no batch said that it was not needed: the
    // opening batch was the only one of its segment.
    for seed in seeds(100).chain([5591]) {
        if let Err(error) = live(seed, Ends::Kills, &options, &mut tally) {
            panic!("{error}\n{}", replay(seed, "lives"));
        }
    }
    let lost = seeds(100).any(|seed| live(seed, Ends::All, &options, &mut tally).is_err());
    assert!(lost, "no power cut lost an acknowledged write");
}

/// `RAFTBENCH_SEED`; or the first `RAFTBENCH_SEEDS`, for a longer run; or the first `count`.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name| Some(std::env::var(name).ok()?.parse::<u64>().expect("a number"));
    match number("RAFTBENCH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RAFTBENCH_SEEDS").unwrap_or(count),
    }
}

/// The line that replays a seed of `test`.
pub(crate) fn replay(seed: u64, test: &str) -> String {
    format!(
        "replay: RAFTBENCH_SEED={seed} cargo test --release -p bench-node --features seeded-bugs \
         --test log {test}"
    )
}

/// Lives through many starts; an `Err` says what was lost, or came back.
pub(crate) fn live(
    seed: u64,
    ends: Ends,
    options: &Options,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = Simulated::new(seed);
    let options = Options {
        segment_bytes: [24 << 10, 64 << 10][random.random_range(0..2)],
        spare_segments: random.random_range(0..3),
        max_in_flight: [1, 3, 8][random.random_range(0..3)],
        ..options.clone()
    };
    // All states that the disk may hold; at or behind `acknowledged` lie those that it must.
    let mut states = vec![State::default()];
    let mut acknowledged = 0;
    for life in 0..LIVES {
        let fault = match ends {
            Ends::Kills => Fault::Kill,
            Ends::All => [Fault::Kill, Fault::PowerLoss, Fault::Eio, Fault::Enospc]
                [random.random_range(0..4)],
        };
        disk.arm(random.random_range(0..120), fault);
        let options = Options { generation_seed: random.random(), ..options.clone() };
        look(&disk, tally);
        let opened = wal::open(disk.clone(), Path::new(DIR), options);
        let mut open_log = None;
        match opened {
            Ok((log, recovered)) => {
                tally.starts += 1;
                tally.cuts += u64::from(log.cut().is_some());
                tally.starts_on_a_cut_log += u64::from(number_of_first(&disk) > 1);
                let found = State::of(&recovered);
                let Some(kept) = states.iter().rposition(|state| *state == found) else {
                    return Err(format!("seed {seed}, life {life}: a state that never was"));
                };
                if kept < acknowledged {
                    return Err(format!(
                        "seed {seed}, life {life}: append {acknowledged} was acknowledged, and \
                         the log ends at {kept}"
                    ));
                }
                tally.unacknowledged_kept += (kept - acknowledged) as u64;
                tally.unacknowledged_lost += (states.len() - 1 - kept) as u64;
                states = vec![found];
                acknowledged = 0;
                let log = open_log.insert(log);
                for _ in 0..random.random_range(0..60) {
                    let appended = append_one(log, &mut random, &mut states, &mut acknowledged);
                    tally.appends += 1;
                    tally.several_on_their_way += u64::from(acknowledged + 1 < states.len() - 1);
                    if appended.is_ok() {
                        continue;
                    }
                    tally.failed_appends += 1;
                    if !matches!(log.take_durable(), Err(WalError::Poisoned { .. })) {
                        return Err(format!("seed {seed}, life {life}: a failed log went on"));
                    }
                    break;
                }
            }
            Err(WalError::Disk(_)) => tally.failed_starts += 1,
            Err(error) => return Err(format!("seed {seed}, life {life}: {error}")),
        }
        let power = ends == Ends::All && (fault == Fault::PowerLoss || random.random_bool(0.4));
        disk = if power { disk.cut_power() } else { disk.kill_process() };
        // Only now: dropped before, it would have waited for what is on its way.
        drop(open_log);
    }
    Ok(())
}

/// Sends one append on its way, and takes note of what is durable by then, each append by the ids of
/// its writes.
fn append_one(
    log: &mut Wal<Simulated>,
    random: &mut StdRng,
    states: &mut Vec<State>,
    acknowledged: &mut usize,
) -> Result<(), WalError> {
    let mut state = states.last().expect("never empty").clone();
    let number = states.len();
    let writes: Vec<_> = (0..random.random_range(1..4))
        .map(|at| {
            let group = GROUPS[random.random_range(0..GROUPS.len())];
            let write = state.next_write(random, group, number as u64 * 4 + at);
            state.apply(&write);
            write
        })
        .collect();
    states.push(state);
    let mut take_durable = |log: &mut Wal<Simulated>| {
        while let Some(durable) = log.take_durable()? {
            let ids = durable.persisted.iter().map(|(_, id)| (id / 4) as usize);
            *acknowledged = ids.max().unwrap_or(0).max(*acknowledged);
        }
        Ok::<_, WalError>(())
    };
    while !log.has_room() {
        log.wait();
        take_durable(log)?;
    }
    log.submit(&writes)?;
    while !log.is_idle() && random.random_bool(0.5) {
        log.wait();
        take_durable(log)?;
    }
    Ok(())
}

/// Notes what a start is about to find. Before a fault strikes, looking always works.
fn look(disk: &Simulated, tally: &mut Tally) {
    let names = disk.list(Path::new(DIR)).expect("the disk works").unwrap_or_default();
    tally.spares += u64::from(names.iter().any(|name| name.starts_with("spare-")));
    let segments = inspect(disk, Path::new(DIR)).unwrap_or_default();
    tally.recycled += segments.iter().filter(|segment| segment.stale_bytes > 0).count() as u64;
}

fn number_of_first(disk: &Simulated) -> u64 {
    let segments = inspect(disk, Path::new(DIR)).unwrap_or_default();
    segments.first().map_or(0, |segment| segment.number)
}
