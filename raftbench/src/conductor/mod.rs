//! The conductor: starts the cluster that the plan asks for, walks the plan over it, and brings
//! back what was observed.
//!
//! Invariant: it only walks. It decides nothing that the plan has not said, and judges nothing of
//! what it sees. Whatever way a walk ends, the cluster ends with it.

mod choose;
mod cluster;
mod disk;
mod disks;
mod door;
mod events;
mod faults;
mod interrupt;
pub mod lab;
mod observe;
mod place;
mod ports;
mod process;
mod prometheus;
mod ready;
mod replace;
mod round_trips;
pub mod soak;
mod status;
mod stolen;
mod targets;
mod transfer;
mod walk;
mod witness;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use loadgen::audit::read_final_state;
use loadgen::clock::RunClock;
use loadgen::preload::{self, Preload};

use crate::evidence::Observed;
use crate::folder::RunFolder;
use crate::plan::{ClusterPlan, Plan, Target};
pub use cluster::Cluster;
use interrupt::Interrupt;
pub use interrupt::Interrupted;
pub use targets::Member;
use walk::Script;
pub use walk::Watch;

/// How long a started cluster may take until it serves.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long the file system may take to write back what others left.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);

/// How long a cluster may take to answer the audit's first question.
const AUDIT_PATIENCE: Duration = Duration::from_secs(30);

/// Walks `plan`, with the nodes' data and logs in `folder`.
pub fn run(plan: &Plan, folder: &RunFolder, watch: &Watch) -> anyhow::Result<Observed> {
    if !matches!(plan.cluster.target, Target::External { .. }) {
        (watch.says)("waiting for the file system to settle");
        disk::settle(folder.path(), SETTLE_PATIENCE);
    }
    with_cluster(&plan.cluster, folder, watch, async |cluster| {
        observe(plan, folder, watch, cluster).await
    })
}

/// Refuses to keep up a cluster that is not ours to start.
pub fn ensure_startable(plan: &ClusterPlan) -> anyhow::Result<()> {
    ensure!(
        !matches!(plan.target, Target::External { .. }),
        "`up` starts a cluster; --endpoints names one that already runs"
    );
    Ok(())
}

/// Starts the plan's cluster, tells `ready` about it, and keeps it until Ctrl-C. A node that ends
/// by itself is told to `ended`.
pub fn keep_up(
    plan: &ClusterPlan,
    folder: &RunFolder,
    watch: &Watch,
    ready: impl FnOnce(&Cluster),
    ended: impl Fn(&str),
) -> anyhow::Result<()> {
    ensure_startable(plan)?;
    let kept = with_cluster(plan, folder, watch, async |cluster| {
        ready(cluster);
        loop {
            let ends = cluster.own().map(|own| own.unexpected_ends()).unwrap_or_default();
            ends.iter().for_each(|end| ended(end));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    match kept {
        Err(error) if error.is::<Interrupted>() => Ok(()),
        kept => kept,
    }
}

async fn observe(
    plan: &Plan,
    folder: &RunFolder,
    watch: &Watch,
    cluster: &Arc<Cluster>,
) -> anyhow::Result<Observed> {
    let script = Script {
        load: &plan.load,
        api: plan.api,
        faults: &plan.faults,
        election_timeout: Duration::from_millis(plan.cluster.election_timeout_ms),
        seed: plan.seed,
        undo_journal: &folder.file("undo.jsonl"),
    };
    if let Some(preload) = &plan.preload {
        fill(plan, preload, watch, cluster).await?;
    }
    (watch.says)("measuring the network");
    let mut network = tokio::task::block_in_place(|| cluster.look_at_network())?;
    // Asked before anything is broken: a node that is down at the end tells its id no more.
    let mut names = cluster.names_by_id(&RunClock::starting_in(Duration::ZERO)).await;
    let mut walked = walk::walk(cluster, script, watch).await?;
    let mut final_state = None;
    if plan.checks.audit {
        (watch.says)("reading every key back");
        match read_final_state(&cluster.endpoints(), &plan.load, AUDIT_PATIENCE).await {
            Ok(state) => final_state = Some(state),
            Err(error) => walked.problems.push(format!("the keys could not be read back: {error}")),
        }
    }
    names.extend(cluster.names_by_id(&walked.clock).await);
    if let Some(network) = &mut network {
        network.about = cluster.about_links()?;
    }
    let events = match cluster.own() {
        Some(own) => events::read_logs(&own.members, &*own.launcher, &names, &walked.clock)?,
        None => Vec::new(),
    };
    Ok(Observed {
        load: walked.load,
        faults: walked.faults,
        events,
        samples: walked.samples,
        zero_unix_ns: walked.clock.zero_unix_ns(),
        nodes: cluster.nodes().to_vec(),
        network,
        disk: cluster.look_at_disks()?,
        target_version: cluster.version().to_owned(),
        data_dir: cluster.own().and_then(|_| disk::under(&folder.data())),
        final_state,
        stolen_cpu_share: walked.stolen_cpu_share,
        problems: walked.problems,
    })
}

/// Writes what the cluster is to hold, and says how far it has come.
async fn fill(
    plan: &Plan,
    preload: &Preload,
    watch: &Watch,
    cluster: &Arc<Cluster>,
) -> anyhow::Result<()> {
    // Beside the run's own keys, not under their prefix: the audit reads those back.
    let prefix = format!("preload/{}", plan.load.keys.prefix);
    let written = Arc::new(AtomicU32::new(0));
    let endpoints = cluster.endpoints();
    let mut filling = pin!(preload::fill(preload, &prefix, &endpoints, written.clone()));
    loop {
        let done = written.load(Ordering::Relaxed);
        (watch.says)(&format!("preload: {done} of {} keys", preload.keys));
        let told = tokio::time::timeout(Duration::from_secs(5), &mut filling).await;
        if let Ok(filled) = told {
            return filled.context("the preload was not written");
        }
    }
}

/// Starts a cluster, hands it to `work` once it serves, and stops it, whatever comes: an error, or
/// an interrupt.
fn with_cluster<T>(
    plan: &ClusterPlan,
    folder: &RunFolder,
    watch: &Watch,
    work: impl AsyncFnOnce(&Arc<Cluster>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let result = runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        (watch.says)(&format!("starting {} nodes of {}", plan.nodes, plan.target.name()));
        let (data, logs) = (folder.data(), folder.logs());
        let place = place::Place::of(plan, folder)?;
        let starting = Cluster::start(plan, place, &data, &logs);
        let cluster = Arc::new(interrupt.or(starting).await?);
        let serving = async {
            let clock = RunClock::starting_in(Duration::ZERO);
            ready::wait_until_serving(&cluster, &clock, READY_DEADLINE).await?;
            work(&cluster).await
        };
        let result = interrupt.or(serving).await;
        for late in tokio::task::block_in_place(|| cluster.stop()) {
            (watch.says)(&late);
        }
        result
    });
    // A thread may still be looking after a fault of a walk that was broken off.
    runtime.shutdown_background();
    result
}
