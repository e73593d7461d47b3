//! What the store promises, in small. (`tests/node/oracle` compares all of it with etcd.)

use api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::{Command, KvError, Record, Response, RestoreError, Store, StoreHeader};

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn delete(key: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), ..Default::default() }
}

fn range(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn ops(requests: Vec<Request>) -> Vec<RequestOp> {
    requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect()
}

fn apply(store: &mut Store, command: Command) -> Response {
    store.apply(command).expect("it can be applied")
}

#[test]
fn every_change_takes_one_revision_and_what_changes_nothing_takes_none() {
    let mut store = Store::default();
    assert_eq!(store.revision(), 1);
    apply(&mut store, Command::Put(put("a", "1")));
    apply(&mut store, Command::Put(put("a", "2")));
    assert_eq!(store.revision(), 3);
    apply(&mut store, Command::DeleteRange(delete("b")));
    assert_eq!(store.revision(), 3);
    let found = store.range(&range("a", "")).expect("a read").kvs;
    assert_eq!(found[0].create_revision, 2);
    assert_eq!(found[0].mod_revision, 3);
    assert_eq!(found[0].version, 2);

    apply(&mut store, Command::DeleteRange(delete("a")));
    apply(&mut store, Command::Put(put("a", "3")));
    let found = store.range(&range("a", "")).expect("a read").kvs;
    assert_eq!((found[0].create_revision, found[0].version), (5, 1));
    assert_eq!(store.bytes(), 2);
}

#[test]
fn the_writes_of_a_transaction_share_a_revision_and_its_reads_see_them() {
    let mut store = Store::default();
    let success = ops(vec![
        Request::RequestPut(put("a", "1")),
        Request::RequestPut(put("b", "2")),
        Request::RequestRange(range("a", "\0")),
    ]);
    let txn = TxnRequest { success, ..Default::default() };
    let Response::Txn(response) = apply(&mut store, Command::Txn(txn)) else {
        panic!("a transaction answers as one")
    };
    assert_eq!(store.revision(), 2);
    assert_eq!(response.header.expect("a header").revision, 2);
    let found = store.range(&range("a", "\0")).expect("a read").kvs;
    assert!(found.iter().all(|kv| kv.mod_revision == 2));
    let text = format!("{:?}", response.responses[2]);
    assert!(text.contains("count: 2"), "{text}");
}

#[test]
fn what_fails_changes_nothing() {
    let mut store = Store::default();
    apply(&mut store, Command::Put(put("a", "1")));
    let before = store.hash();
    let future = RangeRequest { revision: 99, ..range("a", "") };
    let success =
        ops(vec![Request::RequestPut(put("b", "2")), Request::RequestRange(future.clone())]);
    let txn = TxnRequest { success, ..Default::default() };
    assert_eq!(store.apply(Command::Txn(txn)), Err(KvError::FutureRevision));
    assert_eq!(store.range(&future), Err(KvError::FutureRevision));
    let leased = PutRequest { lease: 7, ..put("b", "2") };
    assert_eq!(store.apply(Command::Put(leased)), Err(KvError::LeaseNotFound));
    let absent = PutRequest { ignore_value: true, ..put("b", "") };
    assert_eq!(store.apply(Command::Put(absent)), Err(KvError::KeyNotFound));
    assert_eq!(store.hash(), before);
}

#[test]
fn old_revisions_are_answered_as_compacted() {
    let mut store = Store::default();
    apply(&mut store, Command::Put(put("a", "1")));
    apply(&mut store, Command::Put(put("a", "2")));
    let at = |revision| RangeRequest { revision, ..range("a", "") };
    assert_eq!(store.range(&at(2)), Err(KvError::Compacted));
    assert!(store.range(&at(3)).is_ok());

    // In a transaction, the current revision is an old one once something was written.
    let write_then_read =
        ops(vec![Request::RequestPut(put("b", "1")), Request::RequestRange(at(3))]);
    let txn = TxnRequest { success: write_then_read, ..Default::default() };
    assert_eq!(store.apply(Command::Txn(txn)), Err(KvError::Compacted));

    let compact = |revision| Command::Compact(CompactionRequest { revision, physical: true });
    assert!(store.apply(compact(3)).is_ok());
    assert_eq!(store.apply(compact(3)), Err(KvError::Compacted));
    assert_eq!(store.apply(compact(4)), Err(KvError::FutureRevision));
}

#[test]
fn a_compare_and_swap_happens_once() {
    let mut store = Store::default();
    let compare = Compare {
        target: CompareTarget::Create.into(),
        key: "a".into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let success = ops(vec![Request::RequestPut(put("a", "1"))]);
    let txn = TxnRequest { compare: vec![compare], success, ..Default::default() };
    let mut succeeded = Vec::new();
    for _ in 0..2 {
        if let Response::Txn(response) = apply(&mut store, Command::Txn(txn.clone())) {
            succeeded.push(response.succeeded);
        }
    }
    assert_eq!(succeeded, [true, false]);
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn the_planted_bug_answers_a_put_and_forgets_it() {
    let mut store = Store::default();
    store.lose_one_put_in(2);
    // Also where it goes on from a leader's snapshot.
    store.go_on_from(Store::default());
    apply(&mut store, Command::Put(put("a", "1")));
    apply(&mut store, Command::Put(put("b", "2")));
    assert_eq!(store.revision(), 3);
    assert_eq!(store.range(&range("a", "\0")).expect("a read").count, 1);
}

#[test]
fn a_frozen_store_stays_as_it_was_while_writes_go_on() {
    let mut store = Store::default();
    for key in ["a", "b", "c"] {
        apply(&mut store, Command::Put(put(key, "1")));
    }
    let (hash, bytes) = (store.hash(), store.bytes());
    let frozen = store.freeze();
    apply(&mut store, Command::Put(put("b", "22")));
    apply(&mut store, Command::DeleteRange(delete("c")));
    apply(&mut store, Command::Put(put("d", "1")));

    assert_ne!(store.hash(), hash);
    assert_eq!((frozen.hash(), frozen.bytes(), frozen.len()), (hash, bytes, 3));
    let keys: Vec<_> = frozen.records_after(None).map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let after: Vec<_> = frozen.records_after(Some(&keys[0])).map(|(key, _)| key.clone()).collect();
    assert_eq!(after, ["b", "c"]);
}

#[test]
fn a_restored_store_goes_on_as_its_origin_does() {
    let mut store = Store::default();
    for value in ["1", "2", "3"] {
        apply(&mut store, Command::Put(put("a", value)));
        apply(&mut store, Command::Put(put("b", value)));
    }
    apply(&mut store, Command::DeleteRange(delete("b")));
    let compaction = CompactionRequest { revision: 5, physical: false };
    apply(&mut store, Command::Compact(compaction));

    let frozen = store.freeze();
    let records = frozen.records_after(None).map(|(key, record)| Ok((key.clone(), record.clone())));
    let mut restored = Store::restore::<RestoreError>(frozen.header(), records).expect("its own");
    for command in [
        Command::Compact(compaction),
        Command::Put(put("b", "4")),
        Command::Put(PutRequest { prev_kv: true, ..put("a", "4") }),
    ] {
        assert_eq!(restored.apply(command.clone()), store.apply(command));
        assert_eq!(restored.hash(), store.hash());
        assert_eq!(restored.bytes(), store.bytes());
        assert_eq!(restored.compacted_revision(), store.compacted_revision());
    }
}

#[test]
fn records_that_no_store_has_had_are_refused() {
    let header = StoreHeader { revision: 9, compacted_revision: -1 };
    let good = Record { create_revision: 2, mod_revision: 3, version: 2, value: "v".into() };
    let restore = |records: Vec<(&'static str, Record)>| {
        let records = records.into_iter().map(|(key, record)| Ok((key.into(), record)));
        Store::restore::<RestoreError>(header, records).map(drop)
    };
    assert_eq!(restore(vec![("a", good.clone()), ("b", good.clone())]), Ok(()));
    for (first, second) in [("a", "a"), ("b", "a")] {
        let error = restore(vec![(first, good.clone()), (second, good.clone())]);
        assert_eq!(error, Err(RestoreError::Order { key: second.into() }));
    }
    for wrong in [
        Record { create_revision: 1, ..good.clone() },
        Record { create_revision: 4, ..good.clone() },
        Record { mod_revision: 10, ..good.clone() },
        Record { version: 0, ..good.clone() },
    ] {
        let error = restore(vec![("a", wrong)]).expect_err("no store has had it");
        assert!(error.to_string().contains("b\"a\""), "{error}");
    }
}

/// What a command comes in may be large, and hold others.
#[test]
fn the_store_keeps_nothing_of_what_a_command_came_in() {
    struct Frame(std::sync::Arc<Vec<u8>>);
    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let mut store = Store::default();
    for value in ["first", "second"] {
        let encoded = Command::Put(put("a", value)).encode();
        let frame = std::sync::Arc::new(encoded.to_vec());
        let received = bytes::Bytes::from_owner(Frame(frame.clone()));
        let command = Command::decode(received).expect("as it was encoded");
        drop(apply(&mut store, command));
        assert_eq!(std::sync::Arc::strong_count(&frame), 1, "{value}");
    }
    assert_eq!(store.range(&range("a", "")).expect("a read").kvs[0].value, "second");
}
