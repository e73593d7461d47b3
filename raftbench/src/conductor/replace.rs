//! Replaces a member whose disk is lost: what is left of it is removed from the cluster and from the
//! disk, and a new member with an empty directory takes its place, as operators do it.
//!
//! Invariant: the member is removed before its place is taken, and never comes back as who it was: a
//! member without its disk has forgotten what it promised. It counts only where the new member has an
//! id of its own and, in the end, all that the leader had.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chaos::Restarter;
use loadgen::LoadError;
use loadgen::target::admin;

use super::faults::{Applied, Stage, on_thread};
use super::status::View;
use crate::evidence::FaultRecord;
use crate::plan::FaultKind;

/// One call may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a change of members is asked for: until a new leader has committed in its term, and
/// etcd wants all others to have been connected for 5 s.
const CHANGE_PATIENCE: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The place of a member that is to be replaced.
pub(super) struct Place {
    victim: String,
    /// Its id before.
    old_id: u64,
    /// Where its peers reach it, before and after.
    peer: String,
    /// The clients' endpoints of all others.
    others: Vec<String>,
}

impl Place {
    /// To be asked before the member is killed: without its id it cannot be replaced.
    pub(super) fn of(victim: &[String], stage: &Stage, view: &View) -> anyhow::Result<Self> {
        let victim = victim.first().context("one member is to be replaced")?.clone();
        let status = view.of(&victim).with_context(|| format!("{victim} had given no status"))?;
        let peer = stage.own()?.peer(&victim);
        let peer = peer.with_context(|| format!("{victim} has no address"))?.to_owned();
        let others = stage.cluster.nodes().iter().filter(|node| node.name != victim);
        let others = others.map(|node| node.client.clone()).collect();
        Ok(Self { old_id: status.member_id, victim, peer, others })
    }
}

/// Takes the place of the victim of `record`, which is killed.
pub(super) async fn replace(
    stage: &Arc<Stage>,
    place: Place,
    record: &mut FaultRecord,
    killed: Applied,
    rejoin_after: Duration,
) -> anyhow::Result<Vec<String>> {
    let Place { victim, old_id, peer, others } = place;
    until_done(&others, |other| async move {
        match admin::member_remove(&other, old_id, CALL_TIMEOUT).await {
            // An earlier request, whose answer was lost, had done it.
            Err(LoadError::Call { problem, .. }) if problem.contains("member not found") => Ok(()),
            ended => ended,
        }
    })
    .await?;
    let removed_s = seconds_since(stage, record);
    let (inside, name) = (stage.clone(), victim.clone());
    let bytes = on_thread(move || inside.own()?.wipe(&name)).await??;
    tokio::time::sleep_until((stage.clock.instant_at(record.injected_ns) + rejoin_after).into())
        .await;

    let add = |other: String| {
        let peer = peer.clone();
        async move {
            match admin::member_add(&other, &peer, CALL_TIMEOUT).await {
                // An earlier request, whose answer was lost, had done it.
                Err(LoadError::Call { problem, .. })
                    if problem.contains("Peer URLs already exists") =>
                {
                    admin::member_at(&other, &peer, CALL_TIMEOUT).await
                }
                ended => ended,
            }
        }
    };
    let new_id = until_done(&others, add).await?;
    let added_s = seconds_since(stage, record);
    let (inside, name) = (stage.clone(), victim.clone());
    let started = on_thread(move || inside.own()?.restart(&name).map_err(Into::into)).await?;
    let pid = match started {
        Ok(started) => started.pid(),
        Err(error) => {
            let error: anyhow::Error = error;
            return Ok(vec![format!("{victim} was added again and did not start: {error:#}")]);
        }
    };
    for (_, noted) in killed {
        stage.done(noted)?;
    }
    record.effective &= new_id != old_id;
    record.healed_ns = Some(stage.clock.now_ns());
    record.proof = format!(
        "{}; member {old_id:x} removed {removed_s:.2} s after the kill, its {bytes} bytes deleted; \
         member {new_id:x} added {added_s:.2} s after the kill, started as pid {pid}",
        record.proof
    );
    stage.release(FaultKind::Replace { rejoin_after }, &record.victims);
    // Where it has not, the judge says so, as of any fault.
    record.recovered_ns = stage.recovered(&record.victims).await;
    Ok(Vec::new())
}

fn seconds_since(stage: &Stage, record: &FaultRecord) -> f64 {
    (stage.clock.now_ns() - record.injected_ns) as f64 / 1e9
}

/// Asks one after the other until one does it.
async fn until_done<T, F: Future<Output = Result<T, LoadError>>>(
    endpoints: &[String],
    ask: impl Fn(String) -> F,
) -> Result<T, LoadError> {
    let deadline = Instant::now() + CHANGE_PATIENCE;
    let mut turn = 0;
    loop {
        match ask(endpoints[turn % endpoints.len()].clone()).await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
        turn += 1;
    }
}
