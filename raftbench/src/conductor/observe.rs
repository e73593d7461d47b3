//! Observation while the run goes on: each node's Status, metrics and process, twice a second.
//!
//! Invariant: the followers' Status is asked between two readings of the leader's, so that a lag
//! can be computed as a bound and not as a guess.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadgen::clock::RunClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::cluster::{Cluster, STATUS_TIMEOUT};
use super::door::Door;
use super::prometheus::{self, Scrape};
use super::status::Asked;
use crate::evidence::{MetricSample, NodeStatus, ProcessSample};

const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const SCRAPE_TIMEOUT: Duration = Duration::from_millis(400);

/// The largest answer of `/metrics` that is read.
const MAX_SCRAPE_BYTES: u64 = 16 << 20;

/// What the observer has gathered; it lives on when the observer's task is ended.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) samples: Vec<MetricSample>,
    /// Nodes that ended though nothing was done to them.
    pub(super) problems: Vec<String>,
}

/// Watches until its task is ended.
pub(super) async fn watch(cluster: Arc<Cluster>, clock: RunClock, into: Arc<Mutex<Gathered>>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut leader = None;
    loop {
        ticks.tick().await;
        let samples = look(&cluster, &clock, &mut leader).await;
        let ended = cluster.own().map(|own| own.unexpected_ends()).unwrap_or_default();
        let mut into = into.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        into.samples.extend(samples);
        into.problems.extend(ended);
    }
}

/// One look at every node; `leader` is remembered from look to look.
pub(super) async fn look(
    cluster: &Cluster,
    clock: &RunClock,
    leader: &mut Option<String>,
) -> Vec<MetricSample> {
    let watched = watched(cluster);
    let led_by = watched.iter().find(|node| Some(&node.asked.node) == leader.as_ref());
    let mut samples = Vec::new();
    if let Some(node) = led_by
        && let Some(status) = node.status(clock).await
    {
        samples.push(node.sample(status.answered_ns, Some(status)));
    }
    let mut looks = JoinSet::new();
    for node in watched
        .iter()
        .filter(|node| led_by.is_none_or(|led_by| led_by.asked.node != node.asked.node))
    {
        let (node, clock) = (node.clone(), *clock);
        looks.spawn(async move { node.look(&clock).await });
    }
    samples.extend(looks.join_all().await);
    if let Some(node) = led_by {
        samples.push(node.look(clock).await);
    }
    if let Some(disks) = cluster.own().and_then(|own| own.disks()) {
        samples.iter_mut().for_each(|sample| sample.disk = disks.sample(&sample.node));
    }
    let leads = |sample: &&MetricSample| sample.status.is_some_and(|status| status.is_leader);
    let term = |sample: &&MetricSample| sample.status.map_or(0, |status| status.term);
    *leader = samples.iter().filter(leads).max_by_key(term).map(|sample| sample.node.clone());
    samples.sort_by_key(|sample| sample.t_ns);
    samples
}

/// A node as it is watched.
#[derive(Clone)]
struct Watched {
    asked: Asked,
    metrics: String,
    /// Its process, if it is ours, and the count of its starts.
    process: Option<i32>,
    start: u32,
}

fn watched(cluster: &Cluster) -> Vec<Watched> {
    let own = cluster.own();
    let starts = own.map(|own| own.starts()).unwrap_or_default();
    let watched = cluster.asked(&[]).into_iter().map(|asked| {
        let started = starts.iter().find(|(name, _, _)| *name == asked.node);
        let member = own.and_then(|own| own.members.iter().find(|m| m.name == asked.node));
        Watched {
            // etcd serves its metrics on the client address too, unless told otherwise.
            metrics: member.map_or(&asked.client, |member| &member.metrics).clone(),
            process: started.map(|(_, pid, _)| *pid),
            start: started.map_or(1, |(_, _, start)| *start),
            asked,
        }
    });
    watched.collect()
}

impl Watched {
    async fn status(&self, clock: &RunClock) -> Option<NodeStatus> {
        self.asked.ask(clock, STATUS_TIMEOUT).await.ok().map(|answer| answer.status)
    }

    async fn look(&self, clock: &RunClock) -> MetricSample {
        let (status, scrape) =
            tokio::join!(self.status(clock), scrape(&self.asked.door, &self.metrics));
        let mut sample = self.sample(clock.now_ns(), status);
        let scrape = scrape.unwrap_or_default();
        (sample.values, sample.histograms) = (scrape.values, scrape.histograms);
        sample.process = self.process.and_then(process);
        sample
    }

    fn sample(&self, t_ns: i64, status: Option<NodeStatus>) -> MetricSample {
        let (node, start) = (self.asked.node.clone(), self.start);
        MetricSample { t_ns, node, start, status, ..MetricSample::default() }
    }
}

/// `/metrics` of `address`, or nothing where it is not served.
async fn scrape(door: &Door, address: &str) -> Option<Scrape> {
    let get = async {
        let mut stream = door.connect(address).await?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece.
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MAX_SCRAPE_BYTES).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(SCRAPE_TIMEOUT, get).await.ok()?.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200")?;
    Some(prometheus::parse(body))
}

/// What the kernel says of process `pid`; nothing once it has ended.
fn process(pid: i32) -> Option<ProcessSample> {
    let process = procfs::process::Process::new(pid).ok()?;
    let stat = process.stat().ok().filter(|stat| stat.state != 'Z')?;
    Some(ProcessSample {
        pid,
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        rss_bytes: stat.rss * procfs::page_size(),
        written_bytes: process.io().ok()?.write_bytes,
    })
}
