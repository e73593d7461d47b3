//! What Prometheus sees.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Node, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The steps of a write.
const STEPS: [&str; 6] = [
    "write_queue_seconds",
    "write_log_seconds",
    "write_replicate_seconds",
    "commit_latency_seconds",
    "write_apply_seconds",
    "write_answer_seconds",
];

/// The samples, by name with labels.
pub(crate) async fn scrape(node: &Node) -> HashMap<String, f64> {
    // The same where clients are served, as etcd has it.
    for address in [node.client.to_string(), node.config.metrics_listen.clone()] {
        let answer = ask(&address).await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("\ncommit_latency_seconds_count "), "{answer}");
    }
    let answer = ask(&node.config.metrics_listen).await.expect("it answers");
    let samples = answer.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// The HTTP status of the answer, if there is one.
pub(crate) async fn scrape_status(node: &Node) -> Option<u16> {
    ask(&node.config.metrics_listen).await.ok()?.split(' ').nth(1)?.parse().ok()
}

async fn ask(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = b"GET /metrics HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn the_dashboards_five_and_what_else_helps() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let mut clients_time = Duration::ZERO;
    for i in 0..20 {
        let asked = Instant::now();
        cluster.nodes[leader].put(&format!("k{i}"), "v").await.expect("a put");
        clients_time += asked.elapsed();
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
        let disks = samples.keys().filter(|name| name.starts_with("wal_disk_info{disk=\""));
        assert_eq!(disks.count(), 1, "how the log is written");
        assert_eq!(value("raft_is_leader"), f64::from(i == leader));
        let lag = samples.keys().filter(|name| name.starts_with("follower_lag_entries")).count();
        let counts = STEPS.map(|step| value(&format!("{step}_count")));
        if i == leader {
            assert_eq!(counts, [20.0; 6], "each write once in each step");
            let [queue, log, replicate, commit, apply, answer] =
                STEPS.map(|step| value(&format!("{step}_sum")));
            assert!(queue + commit + apply + answer <= clients_time.as_secs_f64());
            assert!(0.0 < replicate && replicate <= commit, "one of two followers at least");
            assert!(0.0 < log && 0.0 < apply && 0.0 < answer);
            assert_eq!(lag, 2, "a gauge for each follower, and only on the leader");
        } else {
            assert_eq!(counts, [0.0; 6], "a write is counted by the member that proposed it");
            assert_eq!(lag, 0);
        }
        for peer in cluster.nodes.iter().filter(|other| other.config.name != node.config.name) {
            assert_eq!(value(&format!("peer_connected{{peer=\"{}\"}}", peer.config.name)), 1.0);
        }
    }
}
