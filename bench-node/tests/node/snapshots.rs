//! The log is cut, and nobody notices: not after a restart, and not who was away meanwhile.

use std::path::Path;

use crate::cluster::{Cluster, Node, eventually, run_program};
use crate::metrics::scrape;

/// A snapshot every hundred entries, and segments small enough to go.
const SETTINGS: &str = "snapshot_entries = 100\nsnapshot_keep_entries = 10\nsegment_bytes = 65536";

async fn put_many(node: &Node, from: usize, to: usize) {
    for i in from..to {
        node.put(&format!("k{}", i % 100), &format!("v{i}")).await.expect("a put");
    }
}

async fn assert_holds(node: &Node, up_to: usize) {
    for i in up_to - 100..up_to {
        let value = node.get(&format!("k{}", i % 100), false).await.expect("a read");
        assert_eq!(value, Some(format!("v{i}")), "key k{}", i % 100);
    }
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("it is there");
    names.map(|name| name.expect("listed").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_cut_log_restarts_from_its_snapshot() {
    let mut cluster = Cluster::start(3, SETTINGS);
    let leader = cluster.leader().await;
    put_many(&cluster.nodes[leader], 0, 1000).await;
    for node in &cluster.nodes {
        let dir = node.config.data_dir.clone();
        eventually("old snapshots and segments are gone", async || {
            let written = scrape(node).await["snapshots_written_total"];
            let segments = files(&dir.join("wal")).len();
            written >= 2.0 && files(&dir.join("snapshots")).len() <= 2 && segments <= 20
        })
        .await;
    }
    let hash = |text: String| text.split_whitespace().last().map(str::to_owned);
    for node in &mut cluster.nodes {
        node.stop();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    let leader = cluster.leader().await;
    assert_holds(&cluster.nodes[leader], 1000).await;
    put_many(&cluster.nodes[leader], 1000, 1100).await;
    assert_holds(&cluster.nodes[(leader + 1) % 3], 1100).await;
    let mut hashes = Vec::new();
    for node in &cluster.nodes {
        assert_holds(node, 1100).await;
        let endpoint = node.client.to_string();
        let args = ["--endpoints", &endpoint, "endpoint", "hashkv"];
        let (text, success) = run_program("etcdctl", "etcd-client", &args);
        assert!(success, "{text}");
        hashes.push(hash(text));
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[tokio::test]
async fn a_member_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(3, SETTINGS);
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    put_many(&cluster.nodes[leader], 0, 100).await;
    cluster.nodes[away].stop();
    let leader = cluster.leader().await;
    put_many(&cluster.nodes[leader], 100, 1000).await;
    cluster.nodes[away].start();
    let node = &cluster.nodes[away];
    eventually("it has the last write", async || {
        node.get("k99", true).await.is_ok_and(|value| value.as_deref() == Some("v999"))
    })
    .await;
    assert!(scrape(node).await["snapshots_received_total"] >= 1.0);
    // It goes on as any other: from its log, and after a restart.
    put_many(&cluster.nodes[leader], 1000, 1100).await;
    assert_holds(&cluster.nodes[away], 1100).await;
    cluster.nodes[away].stop();
    cluster.nodes[away].start();
    cluster.leader().await;
    assert_holds(&cluster.nodes[away], 1100).await;
}

#[tokio::test]
async fn etcdctl_saves_a_snapshot_that_can_be_read_back() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    put_many(&cluster.nodes[leader], 0, 300).await;
    let file = cluster.path().join("saved");
    let path = file.to_str().expect("a path of ours");
    let endpoint = cluster.nodes[leader].client.to_string();
    let args = ["--endpoints", &endpoint, "snapshot", "save", path];
    let (text, success) = run_program("etcdctl", "etcd-client", &args);
    assert!(success && text.contains("Snapshot saved"), "{text}");
    let (snapshot, store) = bench_node::snapshot::load_saved(&bench_node::disk::Blocking, &file)
        .expect("what was saved is whole");
    assert_eq!(snapshot.records, 100);
    assert_eq!(store.revision(), 301);
}
