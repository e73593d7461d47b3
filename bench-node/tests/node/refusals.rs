//! What a node refuses, and how it ends: with an error that says where and what to do, and
//! without having acknowledged anything wrongly.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::cluster::{Cluster, Node, eventually};
use bench_node::disk::{Blocking, Fault, Simulated};
use bench_node::wal::WalError;
use bench_node::{NodeError, NodeHandle};

async fn ends(handle: NodeHandle) -> NodeError {
    eventually("the node ends by itself", async || handle.is_finished()).await;
    handle.stop().expect_err("it ends with an error")
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key() {
    let cluster = Cluster::unstarted(1, "");
    let node = &cluster.nodes[0];
    let taken = TcpListener::bind(&node.config.metrics_listen).expect("it is free");
    let error = node.try_start(Blocking).err().expect("the port is taken").to_string();
    assert!(error.contains("metrics_listen") && error.contains("another process"), "{error}");
    assert!(error.contains(&node.config.metrics_listen), "{error}");
    drop(taken);
}

#[tokio::test]
async fn a_data_directory_serves_one_process_and_one_member() {
    let mut cluster = Cluster::unstarted(1, "");
    let second = Cluster::unstarted(1, "");
    cluster.nodes[0].start();
    cluster.leader().await;

    let mut config = second.nodes[0].config.clone();
    config.data_dir = cluster.nodes[0].config.data_dir.clone();
    let second = Node { config, client: second.nodes[0].client, handle: None };
    let error = ends(second.try_start(Blocking).expect("it starts")).await.to_string();
    assert!(error.contains("in use"), "{error}");

    cluster.nodes[0].stop();
    let mut foreign = second;
    foreign.config.cluster = "another".to_owned();
    let error = ends(foreign.try_start(Blocking).expect("it starts")).await.to_string();
    assert!(error.contains("belongs to member"), "{error}");
}

#[tokio::test]
async fn a_member_that_lost_its_directory_is_refused_by_its_peers() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    cluster.nodes[leader].put("k", "v").await.expect("a put");
    let wiped = (leader + 1) % 3;
    cluster.nodes[wiped].stop();
    std::fs::remove_dir_all(&cluster.nodes[wiped].config.data_dir).expect("it is there");

    let handle = cluster.nodes[wiped].try_start(Blocking).expect("it starts");
    let error = ends(handle).await;
    assert!(matches!(error, NodeError::Refused { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("remove it from the cluster and add it again"), "{error}");
    cluster.nodes[leader].put("k", "w").await.expect("the others go on");
}

#[tokio::test]
async fn a_member_that_lost_its_log_alone_does_not_start() {
    for size in [3, 1] {
        let mut cluster = Cluster::start(size, "");
        let leader = cluster.leader().await;
        let robbed = &mut cluster.nodes[(leader + 1) % size];
        robbed.stop();
        let wal = std::path::Path::new(&robbed.config.data_dir).join("wal");
        std::fs::remove_dir_all(&wal).expect("it is there");
        for _ in 0..2 {
            let error = ends(robbed.try_start(Blocking).expect("it starts")).await;
            assert!(matches!(error, NodeError::Log(WalError::Missing { .. })), "{error}");
            assert!(error.to_string().contains(&wal.display().to_string()), "{error}");
        }
    }
}

#[tokio::test]
async fn a_restarted_member_answers_nothing_from_an_empty_store() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    cluster.nodes[leader].put("k", "v").await.expect("a put");
    for node in &mut cluster.nodes {
        node.stop();
    }
    cluster.nodes[0].start();
    let refused = cluster.nodes[0].get("k", true).await.expect_err("nothing is known to count");
    assert_eq!(refused.message(), "etcdserver: no leader");
}

#[tokio::test]
async fn another_cluster_at_the_address_of_a_dead_peer_ends_nobody() {
    let mut cluster = Cluster::start(3, "");
    cluster.leader().await;
    cluster.nodes[2].stop();
    // It waits for its own peers, and answers introductions meanwhile.
    let other = Cluster::unstarted(3, "");
    let config = other.config_in("another", 0);
    let (dead, living) = (cluster.nodes[2].config.peer_listen.clone(), config.peer_listen.clone());
    let squatter = Node { config, client: other.nodes[0].client, handle: None };
    let squatter = squatter.try_start(Blocking).expect("it starts");

    let knocks = lead_to(&dead, living).await;
    // Each of the two asks again only once it was answered: of six, four at least were refused.
    eventually("they were refused again and again", async || knocks.load(Relaxed) >= 6).await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].put("k", "v").await.expect("the two of them are a majority");
    for node in &cluster.nodes[..2] {
        assert!(!node.handle.as_ref().expect("it was started").is_finished());
    }
    squatter.stop().expect("it ends well");
}

/// Whoever connects to `from` reaches `to`; counts them.
async fn lead_to(from: &str, to: String) -> Arc<AtomicUsize> {
    let listener = tokio::net::TcpListener::bind(from).await.expect("its owner is dead");
    let knocks = Arc::new(AtomicUsize::new(0));
    let counter = knocks.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counter.fetch_add(1, Relaxed);
            let to = to.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    knocks
}

#[tokio::test]
async fn a_fresh_member_takes_no_part_until_a_majority_of_the_others_knows_it() {
    let mut cluster = Cluster::unstarted(3, "");
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    // Two of three could elect and commit, but neither was written down by both others. The put
    // waits for a leader, for three election timeouts.
    let refused = cluster.nodes[0].put("k", "v").await.expect_err("there is no leader");
    assert_eq!(refused.message(), "etcdserver: no leader");
    for node in &cluster.nodes[..2] {
        assert_eq!(node.status().await.expect("it answers").raft_term, 0);
    }

    cluster.nodes[2].start();
    cluster.leader().await;
    cluster.nodes[2].put("k", "v").await.expect("all are there");
}

#[tokio::test]
async fn members_of_different_clusters_do_not_mix() {
    let mut cluster = Cluster::unstarted(2, "");
    cluster.nodes[1].config = cluster.config_in("another", 1);
    let first = cluster.nodes[0].try_start(Blocking).expect("it starts");
    let second = cluster.nodes[1].try_start(Blocking).expect("it starts");
    for handle in [first, second] {
        let error = ends(handle).await.to_string();
        assert!(error.contains("another cluster"), "{error}");
    }
}

#[tokio::test]
async fn a_disk_that_fails_or_is_full_ends_the_node_and_nothing_is_acknowledged_after() {
    let breaks: [fn(&Simulated); 2] =
        [|disk| disk.arm(20, Fault::Eio), |disk| disk.set_free_bytes(Some(0))];
    for break_disk in breaks {
        let cluster = Cluster::unstarted(1, "segment_bytes = 65536");
        let node = &cluster.nodes[0];
        let disk = Simulated::new(7);
        let handle = node.try_start(disk.clone()).expect("it starts");
        eventually("it leads", async || node.put("k0", "v").await.is_ok()).await;

        break_disk(&disk);
        let mut acknowledged = Vec::new();
        for i in 1..1_000 {
            let key = format!("k{i}");
            match node.put(&key, "v").await {
                Ok(_) => acknowledged.push(key),
                Err(_) => break,
            }
        }
        let error = ends(handle).await;
        assert!(matches!(error, NodeError::Log(_)), "{error}");
        assert!(error.to_string().contains("wal"), "the file is named: {error}");

        // The power goes, too: what was acknowledged is on the platter.
        disk.set_free_bytes(None);
        let handle = node.try_start(disk.cut_power()).expect("it starts");
        eventually("it leads again", async || node.get("k0", false).await.is_ok()).await;
        for key in &acknowledged {
            assert_eq!(node.get(key, false).await.expect("a read"), Some("v".into()), "{key}");
        }
        handle.stop().expect("it ends well");
    }
}
