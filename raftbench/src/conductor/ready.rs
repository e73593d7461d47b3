//! Waits until a cluster serves: a write is acknowledged, every member reads it linearizably, and
//! every member has caught up with the leader.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use bytes::Bytes;
use loadgen::clock::RunClock;
use loadgen::target::admin;

use super::cluster::Cluster;
use super::process::log_tail;
use super::status::{Answer, View};

/// A write between continents takes a second and more.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(25);

/// Who is behind by less has caught up: a follower on another continent hears of a commit a fifth of a
/// second later, and under load is never without a lag.
const BEHIND: Duration = Duration::from_millis(500);

/// Returns once `cluster` serves; after `patience`, says what it last saw, and shows the logs.
pub(super) async fn wait_until_serving(
    cluster: &Cluster,
    clock: &RunClock,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    // A key of its own, removed again: the run's keys start absent.
    let key = Bytes::from(format!("raftbench/ready/{:x}", rand::random::<u64>()));
    loop {
        let problem = match serves(cluster, clock, &key).await {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        };
        let ended = cluster.own().map(|own| own.unexpected_ends()).unwrap_or_default();
        if let Some(ended) = ended.first() {
            bail!("the cluster did not get ready: {ended}");
        }
        if Instant::now() >= deadline {
            let mut text =
                format!("the cluster was not ready within {} s: {problem:#}", patience.as_secs());
            for (member, _) in cluster.processes() {
                text.push_str(&format!("\n{}'s log ends:\n{}", member.name, log_tail(&member.log)));
            }
            bail!(text);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn serves(cluster: &Cluster, clock: &RunClock, key: &Bytes) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for node in cluster.nodes() {
        clients.push(KvClient::new(admin::channel(&node.client, CALL_TIMEOUT).await?));
    }
    let Some((first, _)) = clients.split_first() else { bail!("it has no members") };
    let put =
        PutRequest { key: key.clone(), value: Bytes::from_static(b"?"), ..Default::default() };
    first.clone().put(put).await?;
    for (client, node) in clients.iter().zip(cluster.nodes()) {
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let answer = client.clone().range(get).await?.into_inner();
        ensure!(answer.kvs.len() == 1, "{} does not read what was written", node.name);
    }
    let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
    first.clone().delete_range(delete).await?;
    caught_up(cluster, clock, &cluster.nodes().iter().map(|n| n.name.clone()).collect::<Vec<_>>())
        .await
}

/// Whether each of `nodes` gets to what the leader has now, soon enough, and follows that leader; if
/// not, says who does not.
pub(super) async fn caught_up(
    cluster: &Cluster,
    clock: &RunClock,
    nodes: &[String],
) -> anyhow::Result<()> {
    let before = cluster.view(clock).await;
    let Some(leader) = before.leader() else { bail!("no node leads") };
    let until = Instant::now() + BEHIND;
    while let Err(problem) = have_all_of(leader, &cluster.view(clock).await, nodes) {
        if Instant::now() >= until {
            return Err(problem);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

fn have_all_of(leader: &Answer, now: &View, nodes: &[String]) -> anyhow::Result<()> {
    for node in nodes {
        let Some(answer) = now.of(node) else { bail!("{node} gives no status") };
        ensure!(
            answer.status.term == leader.status.term && answer.leader_id == leader.member_id,
            "{node} does not follow {} in term {}",
            leader.node,
            leader.status.term
        );
        ensure!(
            answer.status.applied_index >= leader.status.index,
            "{node} has applied up to {}, the leader {} had {}",
            answer.status.applied_index,
            leader.node,
            leader.status.index
        );
    }
    Ok(())
}
