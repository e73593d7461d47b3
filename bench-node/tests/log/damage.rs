//! Damage to what was durable: refused with its place, and nothing is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bench_node::disk::{BLOCK_BYTES, Disk, Simulated};
use bench_node::wal::inspect::{SegmentView, inspect};
use bench_node::wal::{self, Options, WalError};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::model::{State, small};

const DIR: &str = "/wal";

/// A log of several starts and several segments each.
fn log() -> Simulated {
    let disk = Simulated::new(5);
    let mut random = StdRng::seed_from_u64(5);
    let mut state = State::default();
    for _ in 0..3 {
        let (mut log, recovered) = wal::open(disk.clone(), Path::new(DIR), small()).unwrap();
        assert_eq!(State::of(&recovered), state);
        for id in 1..30 {
            let write = state.next_write(&mut random, id % 2, id);
            log.append(std::slice::from_ref(&write)).unwrap();
            state.apply(&write);
        }
    }
    disk
}

fn segments(disk: &Simulated) -> Vec<SegmentView> {
    inspect(disk, Path::new(DIR)).unwrap()
}

fn files(disk: &Simulated) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = disk.list(Path::new(DIR)).unwrap().unwrap();
    let paths = names.into_iter().map(|name| Path::new(DIR).join(name));
    paths.map(|path| (path.clone(), disk.bytes(&path).unwrap())).collect()
}

/// The place that a start on `disk` refuses, after it left everything as it was.
fn refused(disk: &Simulated) -> Option<(PathBuf, u64)> {
    let before = files(disk);
    match wal::open(disk.clone(), Path::new(DIR), small()) {
        Ok(_) => None,
        Err(WalError::Damaged { path, offset, .. }) => {
            assert_eq!(files(disk), before, "a refused log was changed");
            Some((path, offset))
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_rotten_batch_that_was_durable_is_refused_at_its_place() {
    let disk = log();
    let segments = segments(&disk);
    assert!(segments.len() > 4, "the log spans segments");
    let newest = segments.iter().flat_map(|segment| &segment.batches).map(|b| b.sequence).max();
    let mut void = 0;
    for (at, segment) in segments.iter().enumerate() {
        // What the next segments' first batches void does not matter any more.
        let later = segments[at + 1..].iter().filter_map(|segment| segment.batches.first());
        let void_from = later.map(|batch| batch.sequence).min().unwrap_or(u64::MAX);
        for batch in &segment.batches {
            for byte in [0, 8, 24, 40, batch.bytes / 2, batch.bytes - 1] {
                let image = disk.bytes(&segment.path).unwrap();
                disk.corrupt(&segment.path, |bytes| {
                    bytes[(batch.offset + byte) as usize] ^= 0x04;
                });
                // The newest batch was durable too, but no batch says so: it counts as torn.
                if batch.sequence >= void_from || Some(batch.sequence) == newest {
                    void += 1;
                    let copy = copy(&disk);
                    assert_eq!(refused(&copy), None);
                } else {
                    let place = Some((segment.path.clone(), batch.offset));
                    assert_eq!(refused(&disk), place, "byte {byte} of batch {}", batch.sequence);
                }
                disk.corrupt(&segment.path, |bytes| *bytes = image);
            }
        }
    }
    assert!(void > 6, "later starts voided nothing");
}

#[test]
fn a_zeroed_batch_and_a_shortened_file_are_refused_too() {
    let disk = log();
    let segments = segments(&disk);
    let segment = &segments[0];
    let batch = &segment.batches[3];
    let image = disk.bytes(&segment.path).unwrap();
    let place = Some((segment.path.clone(), batch.offset));
    disk.corrupt(&segment.path, |bytes| bytes[batch.offset as usize..].fill(0));
    assert_eq!(refused(&disk), place);
    disk.corrupt(&segment.path, |bytes| bytes.truncate(batch.offset as usize));
    assert_eq!(refused(&disk), place);
    disk.corrupt(&segment.path, |bytes| *bytes = image);
    assert_eq!(refused(&copy(&disk)), None);
}

#[test]
fn a_damaged_first_block_is_refused() {
    let disk = log();
    for segment in segments(&disk) {
        for byte in [0, 8, 12, 16, 24, 4000] {
            disk.corrupt(&segment.path, |bytes| bytes[byte] ^= 0x80);
            assert_eq!(refused(&disk), Some((segment.path.clone(), 0)), "byte {byte}");
            disk.corrupt(&segment.path, |bytes| bytes[byte] ^= 0x80);
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = log();
    let segments = segments(&disk);
    let newest = segments.iter().rposition(|segment| !segment.batches.is_empty()).unwrap();
    for segment in &segments[..newest] {
        let copy = copy(&disk);
        copy.remove(&segment.path).unwrap();
        let error = wal::open(copy, Path::new(DIR), small()).map(|_| ()).unwrap_err();
        assert!(matches!(error, WalError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("/wal/segment-"), "{error}");
    }
}

#[test]
fn a_log_that_must_exist_and_holds_no_batch_is_refused() {
    let must_exist = Options { must_exist: true, ..small() };
    let refused = |disk: &Simulated| {
        let error = wal::open(disk.clone(), Path::new(DIR), must_exist.clone()).map(drop);
        let error = error.expect_err("there is no batch");
        assert!(matches!(error, WalError::Missing { .. }), "{error}");
        assert!(error.to_string().contains(DIR) && error.to_string().contains("remove the member"));
    };
    let disk = Simulated::new(7);
    refused(&disk);
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), None, "nothing was made");
    disk.create_dir_all(Path::new(DIR)).unwrap();
    refused(&disk);
    assert_eq!(files(&disk), BTreeMap::new());

    drop(wal::open(disk.clone(), Path::new(DIR), small()).unwrap());
    let path = segments(&disk)[0].path.clone();
    let whole = disk.bytes(&path).unwrap();
    disk.corrupt(&path, |bytes| bytes[BLOCK_BYTES..].fill(0));
    let before = files(&disk);
    refused(&disk);
    assert_eq!(files(&disk), before);
    disk.corrupt(&path, |bytes| *bytes = whole);
    wal::open(disk, Path::new(DIR), must_exist.clone()).unwrap();
}

fn copy(disk: &Simulated) -> Simulated {
    use bench_node::disk::DiskFile;
    let copy = Simulated::new(6);
    copy.create_dir_all(Path::new(DIR)).unwrap();
    for (path, bytes) in files(disk) {
        copy.create(&path).unwrap().write_at(0, &bytes).unwrap();
    }
    copy
}
