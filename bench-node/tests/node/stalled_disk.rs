//! A disk that does not answer while its node is told to stop.

use std::sync::Arc;

use crate::cluster::{Cluster, eventually};
use crate::gated::Gated;
use crate::metrics::scrape_status;
use bench_node::NodeError;
use bench_node::disk::Blocking;

/// Stops a node as SIGTERM does, off the test's own thread.
async fn stopped(handle: bench_node::NodeHandle) -> Result<(), NodeError> {
    tokio::task::spawn_blocking(|| handle.stop()).await.expect("it does not panic")
}

#[tokio::test]
async fn it_does_not_hold_up_the_end_and_nothing_that_waits_for_it_is_acknowledged() {
    let cluster = Cluster::unstarted(1, "");
    let disk = Gated::default();
    let node = &cluster.nodes[0];
    let handle = node.try_start(disk.clone()).expect("it starts");
    eventually("it leads", async || node.put("k", "before").await.is_ok()).await;

    disk.close();
    let cluster = Arc::new(cluster);
    let put = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { cluster.nodes[0].put("k", "after").await }
    });
    eventually("the log waits for the disk", async || disk.holds_a_write()).await;
    stopped(handle).await.expect("it ends, and well: nobody was told anything untrue");
    put.await.expect("no panic").expect_err("what is not durable is not acknowledged");
    // Only now does the write go on, and let the directory go.
    disk.open();
    cluster_restarts(cluster).await;
}

async fn cluster_restarts(cluster: Arc<Cluster>) {
    let mut cluster = Arc::into_inner(cluster).expect("its other users have ended");
    let node = &mut cluster.nodes[0];
    eventually("the directory is free, and what was acknowledged is there", async || {
        if node.handle.as_ref().is_none_or(bench_node::NodeHandle::is_finished) {
            node.handle = node.try_start(Blocking).ok();
        }
        // The second put may have reached the disk, or not.
        let value = node.get("k", false).await.ok().flatten();
        value.is_some_and(|value| ["before", "after"].contains(&&*value))
    })
    .await;
}

/// A follower has nobody to answer, so its loop ends at once; what it was asked to write fails
/// behind its back.
#[tokio::test]
async fn a_failure_after_the_loop_has_ended_is_the_nodes_failure() {
    let mut cluster = Cluster::unstarted(3, "");
    let disks: Vec<Gated> = cluster.nodes.iter().map(|_| Gated::default()).collect();
    for (node, disk) in cluster.nodes.iter_mut().zip(&disks) {
        node.handle = Some(node.try_start(disk.clone()).expect("it starts"));
    }
    // Where this thread is held up for longer than a node waits for its disk, the node has ended
    // before the failure, and does not know of it: once more then, with the other follower.
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let running = |at: &usize| *at != leader && cluster.nodes[*at].handle.is_some();
        let follower = (0..3).find(running).expect("a follower runs");
        disks[follower].close();
        cluster.nodes[leader].put("k", "v").await.expect("two of three are a majority");
        eventually("its log waits", async || disks[follower].holds_a_write()).await;
        let node = &mut cluster.nodes[follower];
        let stopping = tokio::spawn(stopped(node.handle.take().expect("it runs")));
        eventually("its loop has ended", async || scrape_status(node).await == Some(503)).await;
        disks[follower].open_and_fail();
        let ended = stopping.await.expect("no panic");
        if let Err(error) = ended {
            assert!(matches!(error, NodeError::Log(_)), "{error}");
            assert!(error.to_string().contains("/wal/segment-"), "the file is named: {error}");
            return;
        }
    }
    panic!("the log failed twice in the last moments of a node, and it ended as if all was well");
}
