//! Ranges and hashes over many keys: whole, the same through every member, and of one moment.

use crate::cluster::{Cluster, eventually};
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{HashKvRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

const KEYS: usize = 12_000;

/// Sets all keys to one value, a hundred in a transaction; the last revision.
async fn set_all(cluster: &Cluster, value: &str) -> i64 {
    let mut kv = cluster.nodes[cluster.leader().await].kv();
    let mut revision = 0;
    for first in (0..KEYS).step_by(100) {
        let put = |number: usize| {
            let (key, value) = (format!("k{number:06}").into(), value.to_owned().into());
            let put = PutRequest { key, value, ..Default::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = (first..first + 100).map(put).collect();
        let txn = TxnRequest { success, ..Default::default() };
        revision = kv.txn(txn).await.expect("a txn").into_inner().header.expect("one").revision;
    }
    revision
}

fn all(serializable: bool) -> RangeRequest {
    RangeRequest { key: "k".into(), range_end: "l".into(), serializable, ..Default::default() }
}

#[tokio::test]
async fn every_member_gives_all_keys_and_the_same_hash() {
    let cluster = Cluster::start(3, "");
    let revision = set_all(&cluster, &"v".repeat(300)).await;
    let mut hashes = Vec::new();
    for node in &cluster.nodes {
        let mut maintenance = MaintenanceClient::new(node.channel());
        eventually("it has caught up", async || {
            node.status().await.is_some_and(|status| status.header.unwrap().revision == revision)
        })
        .await;
        for serializable in [false, true] {
            let mut kv = node.kv().max_decoding_message_size(usize::MAX);
            let range = kv.range(all(serializable)).await.expect("a range").into_inner();
            assert_eq!((range.count, range.kvs.len(), range.more), (KEYS as i64, KEYS, false));
            assert!(range.kvs.is_sorted_by_key(|kv| kv.key.clone()));
            assert!(range.kvs.iter().all(|kv| kv.value.len() == 300 && kv.version == 1));
            let header = range.header.expect("one");
            assert_eq!((header.revision, header.member_id), (revision, node.config.id()));
        }
        let hash = maintenance.hash_kv(HashKvRequest { revision: 0 }).await.expect("a hash");
        hashes.push(hash.into_inner().hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
}

/// Writers set a hundred keys at once, again and again; a range that saw one transaction in part
/// would have two versions among those.
#[tokio::test]
async fn a_range_under_load_is_of_one_moment() {
    let cluster = Cluster::start(1, "");
    set_all(&cluster, "v").await;
    let writing = async {
        for _ in 0..4 {
            set_all(&cluster, "w").await;
        }
    };
    let mut writing = Box::pin(writing);
    let mut kv = cluster.nodes[0].kv().max_decoding_message_size(usize::MAX);
    let mut moments = Vec::new();
    loop {
        let range = tokio::select! {
            () = &mut writing => break,
            range = kv.range(all(false)) => range.expect("a range").into_inner(),
        };
        assert_eq!(range.kvs.len(), KEYS);
        for hundred in range.kvs.chunks(100) {
            let first = hundred[0].mod_revision;
            assert!(hundred.iter().all(|kv| kv.mod_revision == first), "{hundred:?}");
        }
        let newest = range.kvs.iter().map(|kv| kv.mod_revision).max();
        assert_eq!(newest, range.header.map(|header| header.revision));
        moments.push(newest);
    }
    moments.dedup();
    assert!(moments.len() > 1, "no range was answered while keys changed");
}
