//! A real cluster: what is acknowledged stays, whoever dies.

use crate::cluster::{Cluster, eventually};

#[tokio::test]
async fn what_was_acknowledged_survives_the_leader_and_a_restart_of_all() {
    let mut cluster = Cluster::start(3, "");
    let first = cluster.leader().await;
    for i in 0..50 {
        let node = &cluster.nodes[i % 3];
        node.put(&format!("k{i}"), &format!("v{i}")).await.expect("a put through any member");
    }

    cluster.nodes[first].stop();
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let follower = (0..3).find(|i| *i != first && *i != second).expect("three members");
    cluster.nodes[follower].put("k50", "v50").await.expect("a majority is up");
    assert_eq!(cluster.nodes[follower].get("k7", false).await.expect("a read"), Some("v7".into()));

    cluster.nodes[first].start();
    eventually("the member that was away catches up", async || {
        let value = cluster.nodes[first].get("k50", true).await;
        value.is_ok_and(|value| value.as_deref() == Some("v50"))
    })
    .await;

    for node in &mut cluster.nodes {
        node.stop();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.leader().await;
    for i in 0..=50 {
        let value = cluster.nodes[i % 3].get(&format!("k{i}"), false).await.expect("a read");
        assert_eq!(value, Some(format!("v{i}")));
    }
}
