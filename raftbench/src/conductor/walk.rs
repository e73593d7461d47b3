//! One walk over a cluster that serves: load, faults on their timeline, observation, and the wait
//! until every member has caught up again. A run is one walk; a soak is many.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use chaos::Restarter;
use chaos::journal::Journal;
use loadgen::clock::RunClock;
use loadgen::record::LoadResult;
use loadgen::spec::LoadSpec;
use loadgen::target::Api;
use loadgen::{Load, Progress};

use super::cluster::Cluster;
use super::observe::{self, Gathered};
use super::stolen::CpuTime;
use super::{faults, ready};
use crate::evidence::{FaultRecord, MetricSample};
use crate::plan::FaultPlan;

/// From the last connection's being up to the first operation.
const BEFORE_LOAD: Duration = Duration::from_millis(100);

/// How long the cluster may take to be whole again after load and faults.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(30);

/// What is walked.
pub(super) struct Script<'a> {
    pub(super) load: &'a LoadSpec,
    pub(super) api: Api,
    pub(super) faults: &'a [FaultPlan],
    pub(super) election_timeout: Duration,
    pub(super) seed: u64,
    /// A new file.
    pub(super) undo_journal: &'a Path,
}

/// Who watches a walk.
#[derive(Clone)]
pub struct Watch {
    /// Counts operations.
    pub load: Arc<Progress>,
    /// Is told, in a few words, what happens.
    pub says: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Watch {
    /// Nobody.
    pub fn quiet() -> Self {
        Self { load: Arc::default(), says: Arc::new(|_| {}) }
    }
}

/// What a walk brings back.
pub(super) struct Walked {
    pub(super) clock: RunClock,
    pub(super) load: LoadResult,
    pub(super) faults: Vec<FaultRecord>,
    pub(super) samples: Vec<MetricSample>,
    pub(super) stolen_cpu_share: Option<f64>,
    pub(super) problems: Vec<String>,
}

/// Walks `script`. Dropping the future ends load, faults and observation.
pub(super) async fn walk(
    cluster: &Arc<Cluster>,
    script: Script<'_>,
    watch: &Watch,
) -> anyhow::Result<Walked> {
    ensure!(
        script.faults.is_empty() || cluster.own().is_some(),
        "faults need processes that this run started; an external cluster has none"
    );
    let journal = Journal::create(script.undo_journal)?;
    let load = Load::connect_by(script.api, script.load, &cluster.endpoints()).await?;
    let clock = RunClock::starting_in(script.load.warmup + BEFORE_LOAD);
    (watch.says)("load begins");

    let gathered = Arc::new(Mutex::new(Gathered::default()));
    let mut observer = tokio::task::JoinSet::new();
    observer.spawn(observe::watch(cluster.clone(), clock, gathered.clone()));

    let stage = Arc::new(faults::Stage {
        cluster: cluster.clone(),
        clock,
        journal,
        election_timeout: script.election_timeout,
        seed: script.seed,
        says: watch.says.clone(),
        held: Mutex::default(),
    });
    let mut walks = tokio::task::JoinSet::new();
    for (number, fault) in script.faults.iter().enumerate() {
        walks.spawn(faults::walk(stage.clone(), fault.clone(), number as u64));
    }
    let before = CpuTime::now();
    let load = load.run(clock, watch.load.clone()).await?;
    let stolen_cpu_share = CpuTime::stolen_share(before, CpuTime::now());
    (watch.says)("load has ended");
    let (mut faults, not_undone): (Vec<_>, Vec<_>) = walks.join_all().await.into_iter().unzip();
    faults.sort_by_key(|fault| fault.injected_ns);

    let mut problems = whole_again(cluster, &clock).await;
    // One more look, when all is quiet: counters then hold everything that the load caused.
    let last = observe::look(cluster, &clock, &mut None).await;
    observer.shutdown().await;
    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
    let mut samples = std::mem::take(&mut gathered.samples);
    samples.extend(last);
    samples.sort_by_key(|sample| sample.t_ns);
    let earlier = not_undone.into_iter().flatten().chain(gathered.problems.drain(..));
    problems.splice(0..0, earlier);
    Ok(Walked { clock, load, faults, samples, stolen_cpu_share, problems })
}

/// Starts what a fault left down, and waits until every member has caught up; says what did not.
async fn whole_again(cluster: &Arc<Cluster>, clock: &RunClock) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(own) = cluster.own() {
        problems.extend(own.unexpected_ends());
        for node in own.down() {
            if let Err(error) = tokio::task::block_in_place(|| own.restart(&node)) {
                problems.push(error.to_string());
            }
        }
    }
    let nodes: Vec<_> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let deadline = Instant::now() + RECOVERY_DEADLINE;
    while let Err(problem) = ready::caught_up(cluster, clock, &nodes).await {
        if Instant::now() >= deadline {
            let after = RECOVERY_DEADLINE.as_secs();
            problems.push(format!("the cluster was not whole {after} s after the load: {problem}"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    problems
}
