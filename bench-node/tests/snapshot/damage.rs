//! Snapshots that rotted or are gone: named, never used, and never taken for an empty store.

use bench_node::disk::{Disk, Simulated};
use bench_node::snapshot::{Offer, SnapshotError};
use raft::EntryId;

use crate::model::{GROUP, open, same, store, write};

#[test]
fn a_damaged_newest_one_is_named_and_an_older_one_is_used_where_the_log_allows() {
    let (old, new) = (store(1, 40), store(2, 40));
    let disk = Simulated::new(1);
    let older = write(&open(&disk), 10, &old);
    let newest = write(&open(&disk), 20, &new);
    let whole = disk.bytes(&newest.path).unwrap();
    for byte in (0..whole.len()).step_by(37).chain(whole.len() - 40..whole.len()) {
        disk.corrupt(&newest.path, |bytes| bytes[byte] ^= 0x20);
        for base in [EntryId::default(), older.id.last_included] {
            let found = open(&disk).load(GROUP, base).unwrap();
            let (snapshot, loaded) = found.latest.expect("the older one");
            assert_eq!(snapshot, older);
            assert!(same(&loaded, &old));
            let [damaged] = &found.damaged[..] else { panic!("byte {byte}: {:?}", found.damaged) };
            assert!(damaged.to_string().starts_with(&newest.path.display().to_string()));
        }
        let error = open(&disk).load(GROUP, newest.id.last_included).map(drop).unwrap_err();
        assert!(matches!(error, SnapshotError::Missing { .. }), "{error}");
        assert!(error.to_string().contains(&newest.path.display().to_string()), "{error}");
        let found = open(&disk).latest(GROUP).unwrap();
        assert_eq!((found.latest, found.damaged.len()), (Some(older.clone()), 1));
        disk.corrupt(&newest.path, |bytes| bytes[byte] ^= 0x20);
    }
    for len in [0, 10, 100, whole.len() / 2, whole.len() - 1, whole.len() + 1] {
        disk.corrupt(&newest.path, |bytes| bytes.resize(len, 0));
        assert_eq!(open(&disk).latest(GROUP).unwrap().damaged.len(), 1, "{len} bytes");
        disk.corrupt(&newest.path, |bytes| *bytes = whole.clone());
    }
    assert_eq!(open(&disk).latest(GROUP).unwrap().latest, Some(newest));
}

#[test]
fn one_that_is_offered_again_takes_the_place_of_the_damaged_one() {
    let sender = open(&Simulated::new(1));
    let sent = write(&sender, 20, &store(1, 40));
    let outgoing = sender.open_newest(GROUP).unwrap().unwrap();
    let disk = Simulated::new(2);
    let receiver = open(&disk);
    write(&receiver, 20, &store(1, 40));
    for byte in (0..sent.id.bytes as usize).step_by(37) {
        disk.corrupt(&sent.path, |bytes| bytes[byte] ^= 0x20);
        let Offer::Wanted(mut incoming) = receiver.receive(sent.id).unwrap() else {
            panic!("held, with byte {byte} rotten");
        };
        let chunk = outgoing.read_chunk(incoming.received_up_to(), usize::MAX).unwrap();
        incoming.write_chunk(chunk.offset, &chunk.bytes, chunk.crc).unwrap();
        assert_eq!(incoming.finish().unwrap(), sent);
        assert!(matches!(receiver.receive(sent.id), Ok(Offer::Held(_))));
        assert!(receiver.load(GROUP, sent.id.last_included).unwrap().latest.is_some());
    }
}

#[test]
fn a_log_that_was_cut_does_not_start_without_a_snapshot_that_reaches_the_cut() {
    let disk = Simulated::new(1);
    let base = EntryId { index: 10, term: 1 };
    let refused = |base| {
        let error = open(&disk).load(GROUP, base).map(drop).unwrap_err();
        assert!(error.to_string().contains("/data/snapshots"), "{error}");
        assert!(error.to_string().contains("remove the member"), "{error}");
    };
    refused(base);
    let snapshot = write(&open(&disk), 10, &store(1, 10));
    assert!(open(&disk).load(GROUP, base).is_ok());
    refused(EntryId { index: 11, ..base });
    refused(EntryId { term: 2, ..base });
    disk.remove(&snapshot.path).unwrap();
    refused(base);
}

#[test]
fn a_snapshot_under_another_ones_name_is_not_used() {
    let disk = Simulated::new(1);
    let snapshot = write(&open(&disk), 10, &store(1, 10));
    let other = snapshot.path.with_file_name(format!("snapshot-{GROUP:020}-{:020}", 11));
    disk.rename(&snapshot.path, &other).unwrap();
    let found = open(&disk).latest(GROUP).unwrap();
    assert!(found.latest.is_none());
    assert!(found.damaged[0].to_string().contains(&other.display().to_string()));
}

#[test]
fn another_version_is_refused_with_what_to_do() {
    let disk = Simulated::new(1);
    let snapshot = write(&open(&disk), 10, &store(1, 10));
    disk.corrupt(&snapshot.path, |bytes| bytes[12] = 2);
    let error = open(&disk).load(GROUP, EntryId::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("format version 2"), "{error}");
}
