//! Clients that save a snapshot and take their time.

use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{HashRequest, SnapshotRequest};
use tonic::Code;

use crate::cluster::{Cluster, DEADLINE, eventually};

/// More than a connection's window takes, so that whoever reads nothing holds the sender up.
const VALUE_BYTES: usize = 1 << 20;
const VALUES: usize = 96;

#[tokio::test]
async fn slow_saves_hold_up_nobody_and_too_many_are_refused() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let node = &cluster.nodes[leader];
    let value = "v".repeat(VALUE_BYTES);
    for i in 0..VALUES {
        node.put(&format!("k{i}"), &value).await.expect("a put");
    }
    let save = || async {
        MaintenanceClient::new(node.channel())
            .max_decoding_message_size(usize::MAX)
            .snapshot(SnapshotRequest {})
            .await
            .map(tonic::Response::into_inner)
    };
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(save().await.expect("there is room for it"));
    }
    let refused = save().await.expect_err("two are on their way");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("sends 2 snapshots already"), "{refused}");
    // Meanwhile everything else works, on whatever threads: a long read, a put, a compaction.
    node.put("k", "w").await.expect("a put");
    let mut client = MaintenanceClient::new(node.channel());
    let hash = tokio::time::timeout(DEADLINE, client.hash(HashRequest {}));
    hash.await.expect("nothing holds it up").expect("a hash");

    drop(slow);
    let mut whole = None;
    eventually("the places are free again", async || {
        whole = save().await.ok();
        whole.is_some()
    })
    .await;
    let mut whole = whole.expect("there was room for it");
    let mut bytes = 0;
    while let Some(piece) = whole.message().await.expect("it comes whole") {
        bytes += piece.blob.len();
    }
    assert!(bytes > VALUES * VALUE_BYTES, "{bytes} bytes");
}
