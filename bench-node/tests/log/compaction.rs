//! A log that is cut: it stays bounded, its files are used again, and what is needed stays.

use std::path::Path;
use std::time::{Duration, Instant};

use bench_node::GroupId;
use bench_node::disk::{Blocking, Disk, DiskFile, Fault, Simulated};
use bench_node::wal::inspect::{SegmentView, inspect};
use bench_node::wal::{self, DamageKind, GroupLog, GroupWrite, Options, Wal, WalError};
use raft::{Entry, EntryId, Index, Payload, Write};

use crate::lives::{replay, seeds};
use crate::model::{GROUP, State, compact, small, write};

const DIR: &str = "/wal";
const DEADLINE: Duration = Duration::from_secs(60);

fn open<D: Disk>(disk: &D, dir: &Path, options: &Options) -> (Wal<D>, State) {
    let (log, recovered) = wal::open(disk.clone(), dir, options.clone()).unwrap();
    (log, State::of(&recovered))
}

fn names<D: Disk>(disk: &D, dir: &Path) -> Vec<String> {
    disk.list(dir).unwrap().unwrap_or_default()
}

fn spares<D: Disk>(disk: &D, dir: &Path) -> usize {
    names(disk, dir).iter().filter(|name| name.starts_with("spare-")).count()
}

fn of(group: GroupId, write: GroupWrite) -> GroupWrite {
    GroupWrite { group, ..write }
}

/// Writes on and on, with a base every 20 entries; the most segments that were needed at once.
fn write_on<D: Disk>(disk: &D, dir: &Path, options: &Options) -> usize {
    let mut most = 0;
    let mut expected = State::default();
    for start in 0..3_u64 {
        let (mut log, recovered) = open(disk, dir, options);
        assert_eq!(recovered, expected, "start {start}");
        for id in 1..=400 {
            let index = expected.group(GROUP).last_index() + 1;
            let mut writes = vec![write(id, 1, index, 3_000)];
            if index % 20 == 0 {
                writes.push(compact(id, 1, index - 5));
            }
            let appended = log.append(&writes).unwrap();
            writes.iter().for_each(|write| expected.apply(write));
            most = most.max(appended.segments);
        }
    }
    most
}

#[test]
fn disk_use_stays_bounded_under_endless_writes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    for background in [false, true] {
        for spare_segments in [0, 2] {
            let options = Options { fill_in_background: background, spare_segments, ..small() };
            let what = format!("background {background}, {spare_segments} spares");
            let disk = Simulated::new(1);
            let most = write_on(&disk, Path::new(DIR), &options);
            // 20 entries of a block each fill two segments at most, and begin in a third one.
            assert!(most <= 4, "{what}: {most} segments");
            // The next one is made ahead, and what was released may wait for its turn.
            let files = names(&disk, Path::new(DIR)).len();
            assert!(files <= 5 + spare_segments + usize::from(background) * 4, "{what}: {files}");
            assert!(spares(&disk, Path::new(DIR)) <= spare_segments, "{what}");
            let segments = inspect(&disk, Path::new(DIR)).unwrap();
            let recycled = segments.iter().any(|segment| segment.stale_bytes > 0);
            assert_eq!(recycled, spare_segments > 0, "{what}");

            let most = write_on(&Blocking, &dir, &options);
            assert!(most <= 4, "{what}: {most} segments on the host");
            // The thread that disposes of files keeps up; a start ends what it left.
            let (_log, _) = open(&Blocking, &dir, &options);
            let deadline = Instant::now() + DEADLINE;
            while names(&Blocking, &dir).len() > 5 + spare_segments {
                assert!(Instant::now() < deadline, "{what}: {:?}", names(&Blocking, &dir));
                std::thread::yield_now();
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

/// A segment's end is synced even then, and what was before it can go.
#[test]
fn disk_use_stays_bounded_without_syncs_too() {
    for max_in_flight in [1, 4] {
        let options = Options { unsafe_no_fsync: true, max_in_flight, ..small() };
        let most = write_on(&Simulated::new(1), Path::new(DIR), &options);
        assert!(most <= 6, "{max_in_flight} in flight: {most} segments");
    }
}

#[test]
fn an_idle_group_holds_the_log_back_and_is_named() {
    let disk = Simulated::new(1);
    let (mut log, _) = open(&disk, Path::new(DIR), &small());
    let mut expected = State::default();
    let mut named = Vec::new();
    let mut append = |log: &mut Wal<Simulated>, writes: &[GroupWrite]| {
        writes.iter().for_each(|write| expected.apply(write));
        log.append(writes).unwrap()
    };
    append(&mut log, &[of(7, write(1, 1, 1, 10)), of(7, write(2, 1, 2, 10))]);
    let mut most = 0;
    for index in 1..=100 {
        let writes = [write(index, 1, index, 3_000), compact(index, 1, index)];
        let appended = append(&mut log, &writes);
        most = most.max(appended.segments);
        named.extend(appended.oldest_needed_by);
    }
    assert!(most > 5, "the log is held back");
    named.dedup();
    assert_eq!(named, [(7, 2)], "group 7, up to its entry 2");
    append(&mut log, &[of(7, compact(3, 1, 2))]);
    let after = append(&mut log, &[write(101, 1, 101, 10)]);
    assert_eq!(after.segments, 1, "all that was held back is released");
    drop(log);
    let (_, recovered) = open(&disk, Path::new(DIR), &small());
    assert_eq!(recovered, expected);
    assert_eq!(recovered.group(7).base, EntryId { index: 2, term: 1 });
}

/// A member's life with bases, released segments and spares, in steps of which any may fail.
fn script() -> Vec<Vec<GroupWrite>> {
    let mut batches = Vec::new();
    for index in 1..=24 {
        let mut writes = vec![write(index, 1, index, 3_000)];
        if index % 2 == 0 {
            writes.push(of(9, write(index / 2, 1, index / 2, 200)));
        }
        if index % 6 == 0 {
            writes.push(compact(index, 1, index - 2));
            writes.push(of(9, compact(index, 1, index / 2)));
        }
        batches.push(writes);
    }
    batches
}

#[test]
fn a_fault_at_every_step_of_releasing_and_recycling_loses_nothing() {
    let options = Options { segment_bytes: 20 << 10, spare_segments: 1, ..small() };
    let (mut struck, mut recycled) = (0, 0);
    for seed in seeds(8) {
        for fault in [Fault::Kill, Fault::PowerLoss, Fault::Eio, Fault::Enospc] {
            for step in 0.. {
                let disk = Simulated::new(seed << 16 | step);
                let at = format!("{fault:?} at step {step}\n{}", replay(seed, "compaction"));
                disk.arm(step, fault);
                let mut states = vec![State::default()];
                let mut acknowledged = 0;
                if let Ok((mut log, _)) = wal::open(disk.clone(), Path::new(DIR), options.clone()) {
                    for writes in script() {
                        let mut state = states.last().unwrap().clone();
                        writes.iter().for_each(|write| state.apply(write));
                        states.push(state);
                        if log.append(&writes).is_err() {
                            break;
                        }
                        acknowledged = states.len() - 1;
                    }
                }
                let over = disk.operations() <= step;
                let power = fault == Fault::PowerLoss || seed % 2 == 0;
                let disk = if power { disk.cut_power() } else { disk.kill_process() };
                let found = wal::open(disk.clone(), Path::new(DIR), options.clone());
                let (log, recovered) = found.unwrap_or_else(|error| panic!("{error}, {at}"));
                let found = State::of(&recovered);
                let kept = states.iter().rposition(|state| *state == found);
                assert!(kept.is_some_and(|kept| kept >= acknowledged), "{kept:?}, {at}");
                let segments = inspect(&disk, Path::new(DIR)).unwrap();
                recycled += segments.iter().filter(|segment| segment.stale_bytes > 0).count();
                drop(log);
                // Once more: what a start gave back is durable.
                let disk = disk.cut_power();
                let (_, recovered) = open(&disk, Path::new(DIR), &options);
                assert_eq!(recovered, found, "{at}");
                if over {
                    break;
                }
                struck += 1;
            }
        }
    }
    println!("{struck} faults, {recycled} recycled segments found");
    assert!(recycled > struck / 2, "{struck} faults, {recycled} recycled segments found");
}

/// A log at the moment when nothing is needed of some of its segments, which are still there; of 61
/// entries, those up to `base` are below one.
fn with_unneeded_segments(base: Index) -> (Simulated, State, Vec<SegmentView>) {
    let disk = Simulated::new(1);
    let (mut log, _) = open(&disk, Path::new(DIR), &small());
    let mut state = State::default();
    for index in 1..=60 {
        let write = write(index, 1, index, 3_000);
        log.append(std::slice::from_ref(&write)).unwrap();
        state.apply(&write);
    }
    // What says so is durable, and so is a batch that records it.
    for write in [compact(61, 1, base), write(62, 1, 61, 10)] {
        log.append(std::slice::from_ref(&write)).unwrap();
        state.apply(&write);
    }
    // Each append disposes of one file at most.
    let segments = inspect(&disk, Path::new(DIR)).unwrap();
    let needed_from = segments
        .iter()
        .flat_map(|segment| &segment.batches)
        .map(|batch| batch.needed_from)
        .max()
        .unwrap();
    let unneeded: Vec<_> = segments
        .into_iter()
        .filter(|segment| segment.batches.last().is_some_and(|last| last.sequence < needed_from))
        .collect();
    assert!(!unneeded.is_empty());
    (disk.kill_process(), state, unneeded)
}

#[test]
fn damage_to_what_is_no_longer_needed_does_no_harm() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 4] = [
        |bytes| bytes[20] ^= 1,
        |bytes| bytes.truncate(100),
        |bytes| bytes[5000..9000].fill(0xaa),
        |bytes| bytes.iter_mut().for_each(|byte| *byte = !*byte),
    ];
    for damage in damages {
        let (disk, expected, unneeded) = with_unneeded_segments(60);
        for segment in &unneeded {
            disk.corrupt(&segment.path, damage);
        }
        let (_, recovered) = open(&disk, Path::new(DIR), &small());
        assert_eq!(recovered, expected);
    }
    let (disk, expected, unneeded) = with_unneeded_segments(60);
    for segment in &unneeded {
        disk.remove(&segment.path).unwrap();
    }
    let (mut log, recovered) = open(&disk, Path::new(DIR), &small());
    assert_eq!(recovered, expected);
    log.append(&[write(1, 1, 62, 10)]).unwrap();
}

#[test]
fn a_segment_that_is_needed_is_missed() {
    let (disk, _, unneeded) = with_unneeded_segments(35);
    let released = unneeded.last().unwrap().number;
    let segments = inspect(&disk, Path::new(DIR)).unwrap();
    let newest = segments.iter().rposition(|segment| !segment.batches.is_empty()).unwrap();
    let needed: Vec<_> =
        segments[..newest].iter().filter(|segment| segment.number > released).collect();
    assert!(needed.len() >= 2, "{needed:?}");
    for segment in needed {
        let bytes = disk.bytes(&segment.path).unwrap();
        disk.remove(&segment.path).unwrap();
        let error = wal::open(disk.clone(), Path::new(DIR), small()).map(drop).unwrap_err();
        assert!(matches!(error, WalError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("/wal/segment-"), "{error}");
        disk.create(&segment.path).unwrap().write_at(0, &bytes).unwrap();
    }
    open(&disk, Path::new(DIR), &small());
}

/// The tail that an opening segment cut is not taken to fill the gap that its loss leaves.
#[test]
fn a_missing_opening_segment_is_refused_though_a_cut_tail_fits_in_its_place() {
    let disk = Simulated::new(1);
    let unsafe_options = Options { unsafe_no_fsync: true, segment_bytes: 1 << 20, ..small() };
    // Something of another group keeps the segments needed.
    let (mut log, _) = open(&disk, Path::new(DIR), &small());
    for id in 1..=2 {
        log.append(&[of(7, write(id, 1, id, 10))]).unwrap();
    }
    drop(log);
    let (mut log, _) = open(&disk, Path::new(DIR), &unsafe_options);
    for id in 1..=40 {
        log.append(&[write(id, 1, id, 10)]).unwrap();
    }
    drop(log);
    // None of these 40 is known to be durable: the opening batch writes them anew, and voids them.
    let (mut log, recovered) = open(&disk, Path::new(DIR), &small());
    let last = recovered.group(GROUP).last_index();
    assert_eq!(last, 40);
    for id in 1..=30 {
        log.append(&[write(id, 2, last + id, 3_000)]).unwrap();
    }
    drop(log);
    let segments = inspect(&disk, Path::new(DIR)).unwrap();
    let opening = segments.iter().rfind(|segment| segment.opening == segment.number).unwrap();
    let void = segments.iter().find(|segment| segment.number + 1 == opening.number).unwrap();
    let last = |segment: &SegmentView| segment.batches.last().map(|batch| batch.sequence);
    assert!(last(void) > last(opening), "the cut tail is longer than the segment that cut it");
    disk.remove(&opening.path).unwrap();
    let error = wal::open(disk, Path::new(DIR), small()).map(drop).unwrap_err();
    let missing = DamageKind::MissingSegment { number: opening.number };
    assert!(matches!(&error, WalError::Damaged { kind, .. } if *kind == missing), "{error}");
}

#[test]
fn a_write_that_contradicts_the_log_stops_it_and_is_not_in_it() {
    let disk = Simulated::new(1);
    let (mut log, _) = open(&disk, Path::new(DIR), &small());
    log.append(&[write(1, 1, 1, 10)]).unwrap();
    let error = log.append(&[write(2, 1, 3, 10)]).unwrap_err();
    assert!(matches!(error, WalError::Contradiction { group: GROUP, .. }), "{error}");
    assert!(matches!(log.append(&[write(2, 1, 2, 10)]), Err(WalError::Poisoned { .. })));
    drop(log);
    let (_, recovered) = open(&disk, Path::new(DIR), &small());
    assert_eq!(recovered.group(GROUP).last_index(), 1);
}

#[test]
fn a_log_in_the_first_format_is_refused_with_what_to_do() {
    let disk = Simulated::new(1);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let mut block = vec![0; 4096];
    block[..8].copy_from_slice(b"RBLOGSEG");
    block[12] = 1;
    block[16] = 1;
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    let path = Path::new(DIR).join("segment-0000000000000001");
    disk.create(&path).unwrap().write_at(0, &block).unwrap();
    let error = wal::open(disk.clone(), Path::new(DIR), small()).map(drop).unwrap_err();
    assert!(matches!(error, WalError::Version { found: 1, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("segment-0000000000000001") && text.contains("version 1"), "{text}");
    assert_eq!(disk.bytes(&path), Some(block), "nothing was changed");
}

#[test]
fn a_log_is_rebased_on_a_newer_snapshot_as_a_write_would_do() {
    let entry = |index, term| Entry { term, index, payload: Payload::Noop };
    let log = GroupLog {
        base: EntryId { index: 3, term: 1 },
        entries: vec![entry(4, 1), entry(5, 2), entry(6, 2)],
        ..GroupLog::default()
    };
    for (index, term) in [(3, 1), (4, 1), (5, 2), (6, 2), (5, 3), (7, 2), (9, 9)] {
        let base = EntryId { index, term };
        let mut rebased = log.clone();
        rebased.rebase(base);

        let disk = Simulated::new(1);
        let (mut wal, _) = open(&disk, Path::new(DIR), &small());
        let write = |base, entries: &[Entry<_>]| GroupWrite {
            group: GROUP,
            write: Write { id: 1, hard_state: None, base: Some(base), entries: entries.to_vec() },
        };
        wal.append(&[write(log.base, &log.entries), write(base, &[])]).unwrap();
        drop(wal);
        let (_, recovered) = open(&disk, Path::new(DIR), &small());
        assert_eq!(recovered.group(GROUP), rebased, "{base:?}");
    }
    let mut unchanged = log.clone();
    unchanged.rebase(EntryId { index: 2, term: 1 });
    assert_eq!(unchanged, log);
}
