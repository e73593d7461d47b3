//! Snapshots on a disk that works.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use bench_node::disk::{Blocking, Simulated};
use bench_node::kv::Store;
use bench_node::snapshot::{Options, SnapshotError, Snapshots};
use raft::EntryId;

use crate::model::{DIR, GROUP, meta, names, open, same, small, store, write};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn what_was_written_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let on_host = Snapshots::open(Blocking, &dir.path().join("snapshots"), small()).unwrap();
    let simulated = open(&Simulated::new(1));
    for (index, keys) in [(1, 0), (2, 1), (30, 40), (400, 3_000)] {
        let store = store(index, keys);
        let written = write(&on_host, index, &store);
        assert_eq!(written.id, write(&simulated, index, &store).id, "the same bytes everywhere");
        assert_eq!(written.meta, meta(index, &store));
        for base in [EntryId::default(), written.id.last_included] {
            let found = on_host.load(GROUP, base).unwrap();
            let (snapshot, loaded) = found.latest.expect("it was written");
            assert!(found.damaged.is_empty());
            assert_eq!(snapshot, written);
            assert!(same(&loaded, &store), "{keys} keys");
        }
        assert_eq!(on_host.latest(GROUP).unwrap().latest, Some(written));
    }
    assert_eq!(on_host.groups().unwrap(), [GROUP]);
    assert!(on_host.load(GROUP + 1, EntryId::default()).unwrap().latest.is_none());
}

#[test]
fn members_with_the_same_state_make_the_same_bytes() {
    let origin = store(7, 500);
    let (ours, theirs) = (Simulated::new(1), Simulated::new(2));
    let written = write(&open(&ours), 9, &origin);
    let (_, restored) =
        open(&ours).load(GROUP, EntryId::default()).unwrap().latest.expect("it was written");
    let again = write(&open(&theirs), 9, &restored);
    assert_eq!(again.id, written.id);
    assert_eq!(ours.bytes(&written.path), theirs.bytes(&again.path));
    let longer_blocks = Options { block_bytes: 70_000, ..small() };
    let other = Snapshots::open(Simulated::new(3), Path::new(DIR), longer_blocks).unwrap();
    let found = write(&other, 9, &origin);
    assert_ne!(found.id.crc, written.id.crc, "blocks are part of the bytes");
}

#[test]
fn older_ones_are_removed_and_read_on_by_who_has_them_open() {
    let disk = Simulated::new(1);
    let snapshots = open(&disk);
    let old = store(1, 300);
    let id = write(&snapshots, 10, &old).id;
    let outgoing = snapshots.open_newest(GROUP).unwrap().expect("there is one");
    write(&snapshots, 20, &store(2, 300));
    snapshots.remove_older(GROUP, 20).unwrap();
    assert_eq!(names(&disk).len(), 1);

    let mut sent = Vec::new();
    loop {
        let chunk = outgoing.read_chunk(sent.len() as u64, 777).unwrap();
        assert_eq!(chunk.crc, crc32c::crc32c(&chunk.bytes));
        sent.extend_from_slice(&chunk.bytes);
        if chunk.last {
            break;
        }
    }
    assert_eq!((outgoing.snapshot().id, sent.len() as u64), (id, id.bytes));
    let beyond = outgoing.read_chunk(id.bytes + 5, 777).unwrap();
    assert!(beyond.bytes.is_empty() && beyond.last);
}

#[test]
fn a_snapshot_is_written_beside_what_goes_on_and_can_be_cancelled() {
    let disk = Simulated::new(1);
    // Slow enough that it would take a day.
    let slow = Options { max_bytes_per_second: Some(1), ..small() };
    let snapshots = Snapshots::open(disk.clone(), Path::new(DIR), slow).unwrap();
    let mut origin = store(3, 400);
    let frozen_hash = origin.hash();
    let (done, results) = channel();
    let start = |snapshots: &Snapshots<Simulated>, store: &Store| {
        let done = done.clone();
        let on_done = move |result| done.send(result).expect("the test waits");
        snapshots.write_in_background(meta(5, store), store.freeze(), on_done).unwrap()
    };
    let job = start(&snapshots, &origin);
    assert!(!job.is_finished());
    job.cancel();
    let result = results.recv_timeout(DEADLINE).expect("it ends");
    assert!(matches!(result, Err(SnapshotError::Cancelled)), "{result:?}");
    job.join();
    assert!(names(&disk).is_empty(), "nothing is left of it");

    drop(start(&snapshots, &origin));
    let result = results.recv_timeout(DEADLINE).expect("a job that was dropped ends, too");
    assert!(matches!(result, Err(SnapshotError::Cancelled)), "{result:?}");

    let job = start(&open(&disk), &origin);
    for key in ["key-000001", "new"] {
        let put = api::etcdserverpb::PutRequest { key: key.into(), ..Default::default() };
        origin.apply(bench_node::kv::Command::Put(put)).expect("writes go on");
    }
    results.recv_timeout(DEADLINE).expect("it ends").expect("nobody cancelled it");
    job.join();
    let (_, loaded) =
        snapshots.load(GROUP, EntryId::default()).unwrap().latest.expect("it is there");
    assert_eq!(loaded.hash(), frozen_hash);
    assert_ne!(origin.hash(), frozen_hash);
}
