//! A snapshot that is written while the disk fails at every step in turn: afterwards there is the
//! old one or the new one, whole.

use std::path::Path;

use bench_node::disk::{Fault, Simulated};
use bench_node::kv::Store;
use bench_node::snapshot::{Options, SnapshotError, Snapshots};
use raft::EntryId;

use crate::model::{DIR, GROUP, meta, names, open, replay, same, seeds, small, store, write};

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::PowerLoss, Fault::Eio, Fault::Enospc];

/// What happened, so that a test can tell that it tested something.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) faults: u64,
    pub(crate) old_kept: u64,
    pub(crate) new_kept: u64,
    pub(crate) acknowledged: u64,
}

#[test]
fn a_crash_at_any_step_leaves_the_old_one_or_the_new_one() {
    let mut tally = Tally::default();
    for seed in seeds(60) {
        if let Err(error) = at_every_step(seed, &small(), &mut tally) {
            panic!("{error}\n{}", replay(seed, "crashes"));
        }
    }
    println!("{tally:?}");
    assert!(tally.old_kept > 0 && tally.new_kept > tally.acknowledged, "{tally:?}");
}

/// Writes a snapshot over an older one, and removes the older one, once for every step at which a
/// fault can strike.
pub(crate) fn at_every_step(seed: u64, options: &Options, tally: &mut Tally) -> Result<(), String> {
    let (old, new) = (store(seed, 30), store(seed + 1, 60));
    for fault in FAULTS {
        for step in 0.. {
            let disk = Simulated::new(seed << 16 | step);
            write(&open(&disk), 10, &old);
            let before = disk.operations();
            disk.arm(step, fault);
            let acknowledged = replace(&disk, options, &new);
            let struck = disk.operations() - before > step;
            let at = format!("seed {seed}, {fault:?} at step {step}");
            // A process that was killed, or that gave up, may lose power later.
            let disk = match (fault, seed % 2) {
                (Fault::PowerLoss, _) | (_, 0) => disk.cut_power(),
                _ => disk.kill_process(),
            };
            check(&disk, acknowledged, &old, &new, tally).map_err(|why| format!("{at}: {why}"))?;
            if !struck {
                break;
            }
            tally.faults += 1;
        }
    }
    Ok(())
}

/// Whether the new one was reported as written.
fn replace(disk: &Simulated, options: &Options, new: &Store) -> bool {
    let replaced = Snapshots::open(disk.clone(), Path::new(DIR), options.clone())
        .and_then(|snapshots| Ok((snapshots.write(meta(20, new), new.freeze())?, snapshots)));
    match replaced {
        Ok((_, snapshots)) => {
            // The log's base comes here. What fails from now on is no loss.
            let _ = snapshots.remove_older(GROUP, 20);
            true
        }
        Err(SnapshotError::Disk(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn check(
    disk: &Simulated,
    acknowledged: bool,
    old: &Store,
    new: &Store,
    tally: &mut Tally,
) -> Result<(), String> {
    let snapshots = open(disk);
    let half_made: Vec<_> = names(disk)
        .into_iter()
        .filter(|name| !name.starts_with("snapshot-") || name.ends_with(".new"))
        .collect();
    if !half_made.is_empty() {
        return Err(format!("{half_made:?} were left"));
    }
    // The log was cut up to the new one only if that was acknowledged.
    let base = if acknowledged { meta(20, new).last_included } else { EntryId::default() };
    let found = snapshots.load(GROUP, base).map_err(|error| error.to_string())?;
    if let Some(damaged) = found.damaged.first() {
        return Err(damaged.to_string());
    }
    let Some((snapshot, loaded)) = found.latest else { return Err("there is none".to_owned()) };
    let index = snapshot.id.last_included.index;
    let expected = if index == 20 { new } else { old };
    if !same(&loaded, expected) || snapshot.meta != meta(index, expected) {
        return Err(format!("the one of entry {index} is not what was written"));
    }
    tally.acknowledged += u64::from(acknowledged);
    tally.new_kept += u64::from(index == 20);
    tally.old_kept += u64::from(index == 10);
    Ok(())
}
