//! What Prometheus sees.

use std::collections::HashMap;

use crate::cluster::{Cluster, Node, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The samples, by name with labels.
async fn scrape(node: &Node) -> HashMap<String, f64> {
    let mut stream = TcpStream::connect(&node.config.metrics_listen).await.expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let samples = answer.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

#[tokio::test]
async fn the_dashboards_five_and_what_else_helps() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    for i in 0..20 {
        cluster.nodes[leader].put(&format!("k{i}"), "v").await.expect("a put");
    }
    let applied = scrape(&cluster.nodes[leader]).await["raft_applied_index"];
    for (i, node) in cluster.nodes.iter().enumerate() {
        eventually("every member applies what the leader did", async || {
            scrape(node).await["raft_applied_index"] >= applied
        })
        .await;
        let samples = scrape(node).await;
        let value = |name: &str| {
            *samples.get(name).unwrap_or_else(|| panic!("{name} is not in {samples:?}"))
        };
        assert!(value("leader_changes_total") >= 1.0);
        assert!(value("raft_term") >= 1.0);
        for bound in ["0.05", "0.1", "+Inf"] {
            value(&format!("wal_fsync_duration_seconds_bucket{{le=\"{bound}\"}}"));
            value(&format!("commit_latency_seconds_bucket{{le=\"{bound}\"}}"));
        }
        // Writes that wait together share a batch and a sync.
        let batches = value("wal_batches_total");
        assert!(batches >= 1.0);
        assert_eq!(value("wal_fsync_duration_seconds_count"), batches);
        assert!(value("wal_bytes_written_total") >= batches * 4096.0);
        assert!(value("wal_entries_total") >= 20.0);
        assert_eq!(value("raft_is_leader"), f64::from(i == leader));
        let lag = samples.keys().filter(|name| name.starts_with("follower_lag_entries")).count();
        if i == leader {
            assert_eq!(value("commit_latency_seconds_count"), 20.0);
            assert_eq!(lag, 2, "a gauge for each follower, and only on the leader");
        } else {
            assert_eq!(lag, 0);
        }
        for peer in cluster.nodes.iter().filter(|other| other.config.name != node.config.name) {
            assert_eq!(value(&format!("peer_connected{{peer=\"{}\"}}", peer.config.name)), 1.0);
        }
    }
}
