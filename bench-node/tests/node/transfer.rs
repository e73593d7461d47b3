//! Handing leadership over, under load: nothing is lost, and nothing fails.

use std::time::Duration;

use crate::cluster::{Cluster, DEADLINE, eventually, run_program};
use crate::load::Load;

/// Members hand leadership around with the real etcdctl, while clients of all members write and
/// read; `settings` is every member's.
async fn leadership_goes_around(settings: &str) {
    let cluster = Cluster::start(3, settings);
    cluster.leader().await;
    let load = Load::start(cluster.nodes.iter().map(|node| node.client));

    let mut terms = Vec::new();
    for _ in 0..12 {
        let leader = cluster.leader().await;
        let target = &cluster.nodes[(leader + 1) % 3];
        let id = format!("{:x}", target.config.id());
        let endpoint = cluster.nodes[leader].client.to_string();
        let (text, success) = tokio::task::spawn_blocking(move || {
            run_program("etcdctl", "etcd-client", &["--endpoints", &endpoint, "move-leader", &id])
        })
        .await
        .expect("no panic");
        assert!(success, "{text}");
        assert!(text.contains("Leadership transferred"), "{text}");
        eventually("the target leads", async || {
            target.status().await.is_some_and(|status| status.leader == target.config.id())
        })
        .await;
        terms.push(target.status().await.expect("it answers").raft_term);
    }
    assert!(terms.windows(2).all(|pair| pair[1] == pair[0] + 1), "one election each: {terms:?}");

    let done = load.stop().await;
    assert!(done.failures.is_empty(), "{:#?}", done.failures);
    done.assert_held_by(&cluster.nodes[0]).await;
}

#[tokio::test]
async fn leadership_goes_around_and_no_request_fails() {
    leadership_goes_around("").await;
}

#[tokio::test]
async fn leadership_goes_around_with_lease_reads() {
    leadership_goes_around("lease_reads = true").await;
}

#[tokio::test]
async fn what_cannot_be_transferred_is_refused_as_etcd_does() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let etcdctl = |node: usize, target: &str| {
        let endpoint = cluster.nodes[node].client.to_string();
        run_program("etcdctl", "etcd-client", &["--endpoints", &endpoint, "move-leader", target])
    };
    let follower = (leader + 1) % 3;
    let id = format!("{:x}", cluster.nodes[leader].config.id());
    let (text, success) = etcdctl(follower, &id);
    assert!(!success && text.contains("no leader endpoint given"), "{text}");
    let (text, success) = etcdctl(leader, "abc");
    assert!(!success && text.contains("bad leader transferee"), "{text}");
}

/// SIGTERM: the others need not wait for their timeouts, which are long here.
#[tokio::test]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::unstarted(3, "");
    for node in &mut cluster.nodes {
        node.config.election_timeout = Duration::from_secs(3600);
    }
    // One that has the usual timeout comes to lead; then it stops.
    cluster.nodes[0].config.election_timeout = Duration::from_millis(500);
    cluster.nodes.iter_mut().for_each(crate::cluster::Node::start);
    let first = cluster.leader().await;
    assert_eq!(first, 0);
    cluster.nodes[first].put("k", "v").await.expect("a put");
    cluster.nodes[first].stop();
    let second = tokio::time::timeout(DEADLINE, cluster.leader()).await.expect("handed over");
    assert_ne!(first, second);
    assert_eq!(cluster.nodes[second].get("k", false).await.expect("a read"), Some("v".into()));
}

/// The others' timeouts are long here, too: only the broken connection can tell them.
#[tokio::test]
async fn with_the_failover_hint_a_broken_connection_is_enough() {
    let mut cluster = Cluster::unstarted(3, "failover_hint = true");
    for node in &mut cluster.nodes[1..] {
        node.config.election_timeout = Duration::from_secs(3600);
    }
    cluster.nodes.iter_mut().for_each(crate::cluster::Node::start);
    assert_eq!(cluster.leader().await, 0);
    cluster.nodes[0].put("k", "v").await.expect("a put");
    // Its handle is dropped without a word of its own to the others; what a process that is killed
    // leaves to the kernel, the end of the runtime does here: its sockets close.
    cluster.nodes[0].abort();
    let second = tokio::time::timeout(DEADLINE, cluster.leader()).await.expect("a new leader");
    assert_ne!(second, 0);
    assert_eq!(cluster.nodes[second].get("k", false).await.expect("a read"), Some("v".into()));
}
