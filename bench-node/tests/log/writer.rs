//! The writer's thread: group commit, order, and the stop after a failure. On all disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bench_node::GroupId;
use bench_node::disk::{Blocking, Disk, Fault, Host, LogDisk, Simulated};
use bench_node::wal::{self, Appended, GroupWrite, Options, WalError, Writer};

use crate::model::{GROUP, State, write};

const DEADLINE: Duration = Duration::from_secs(60);

enum Event {
    Persisted(Vec<(GroupId, u64)>),
    Failed(WalError),
    Batch(Appended),
}

fn start<D: Disk>(disk: D, dir: &Path) -> (Writer, Receiver<Event>, State) {
    // As in production, with the filler's thread, but small enough that it has work to do.
    let options = Options {
        segment_bytes: 256 << 10,
        fill_ahead_bytes: 64 << 10,
        fill_step_bytes: 16 << 10,
        ..Options::default()
    };
    let (log, recovered) = wal::open(disk, dir, options).unwrap();
    let (events, receiver) = channel();
    let (persisted, failed, batch) = (events.clone(), events.clone(), events);
    let writer = Writer::start(
        log,
        move |groups| drop(persisted.send(Event::Persisted(groups.to_vec()))),
        move |error| drop(failed.send(Event::Failed(error))),
        move |appended| drop(batch.send(Event::Batch(appended.clone()))),
    );
    (writer.unwrap(), receiver, State::of(&recovered))
}

fn persists_in_order<D: Disk>(disk: D, dir: &Path) {
    const GROUPS: [GroupId; 3] = [GROUP, 0, 900];
    const WRITES: u64 = 150;
    let mut expected = State::default();
    for start_number in 0..3 {
        let (writer, events, recovered) = start(disk.clone(), dir);
        assert_eq!(recovered, expected, "start {start_number}");
        for id in 1..=WRITES {
            for group in GROUPS {
                let index = expected.group(group).last_index() + 1;
                let write = write(id, 1, index, (id as usize * 37) % 5000);
                let write = GroupWrite { group, ..write };
                expected.apply(&write);
                writer.submit(vec![GroupWrite { group, ..write }]).unwrap();
            }
        }
        drop(writer);
        let mut last = BTreeMap::from(GROUPS.map(|group| (group, 0)));
        let (mut writes, mut batches) = (0, 0);
        for event in events {
            match event {
                Event::Persisted(groups) => {
                    assert!(groups.is_sorted_by(|left, right| left.0 < right.0), "{groups:?}");
                    for (group, id) in groups {
                        let before = last.insert(group, id).expect("a group that wrote");
                        assert!(id > before, "{id} after {before}");
                    }
                    let reported = last.values().sum::<u64>();
                    assert_eq!(writes, reported, "a batch reports all of its writes, before them");
                }
                Event::Batch(appended) => {
                    writes += appended.writes as u64;
                    batches += 1;
                    assert!(appended.bytes > 0 && appended.bytes % 4096 == 0);
                }
                Event::Failed(error) => panic!("{error}"),
            }
        }
        assert!(last.values().all(|last| *last == WRITES), "{last:?}");
        assert!(batches < writes, "what waits goes down together");
    }
}

#[test]
fn writes_are_persisted_in_order_and_together() {
    let dir = tempfile::tempdir().unwrap();
    persists_in_order(Blocking, &dir.path().join("wal"));
    // With io_uring, where the host has it.
    persists_in_order(Host::new(LogDisk::Auto), &dir.path().join("overlapping"));
    persists_in_order(Simulated::new(3), Path::new("/wal"));
}

#[test]
fn nothing_is_reported_after_a_failure() {
    for (seed, fault) in (0..40).flat_map(|seed| [(seed, Fault::Eio), (seed, Fault::PowerLoss)]) {
        let disk = Simulated::new(seed);
        let (writer, events, _) = start(disk.clone(), Path::new("/wal"));
        disk.arm(seed * 2, fault);
        let mut expected = State::default();
        let mut sent = vec![expected.clone()];
        for id in 1.. {
            let write = write(id, 1, id, 2000);
            expected.apply(&write);
            sent.push(expected.clone());
            if writer.submit(vec![write]).is_err() {
                break;
            }
        }
        let mut persisted = 0;
        let mut failures = 0;
        while let Ok(event) = events.recv_timeout(DEADLINE) {
            match event {
                Event::Persisted(groups) => {
                    assert_eq!(failures, 0, "seed {seed}, {fault:?}: reported after a failure");
                    persisted = groups[0].1 as usize;
                }
                Event::Failed(error) => {
                    failures += 1;
                    assert!(error.to_string().contains("/wal"), "{error}");
                }
                Event::Batch(_) => {}
            }
        }
        assert_eq!(failures, 1, "seed {seed}, {fault:?}");
        drop(writer);
        let (_log, recovered) = wal::open(
            disk.cut_power(),
            Path::new("/wal"),
            Options { fill_in_background: false, ..Options::default() },
        )
        .unwrap_or_else(|error| panic!("seed {seed}, {fault:?}: {error}"));
        let found = State::of(&recovered);
        assert!(sent[persisted..].contains(&found), "seed {seed}, {fault:?}: lost {persisted}");
    }
}

/// A full disk stops the log with an error that says so; what was acknowledged is there after.
#[test]
fn a_full_disk_stops_the_log() {
    let disk = Simulated::new(9);
    disk.set_free_bytes(Some(600 << 10));
    let (writer, events, _) = start(disk.clone(), Path::new("/wal"));
    let mut id = 0;
    while writer.submit(vec![write(id + 1, 1, id + 1, 3000)]).is_ok() {
        id += 1;
        // One at a time: the channel has no bound of its own.
        match events.recv_timeout(DEADLINE).unwrap() {
            Event::Failed(_) => break,
            _ => continue,
        }
    }
    drop(writer);
    disk.set_free_bytes(None);
    let (_writer, _events, recovered) = start(disk.kill_process(), Path::new("/wal"));
    let entries = recovered.group(GROUP).entries.len();
    assert!(entries > 50, "only {entries} entries");
}
