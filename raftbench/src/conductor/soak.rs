//! Soak: round after round of kill -9 under load, on one cluster that lives through all of them.
//!
//! Invariant: a round is sound only once the audit of its batch has read every key back, and what
//! the rounds are follows from the seed and the round's number alone, so that a soak that was
//! broken off goes on as if it had not been.

use std::sync::Arc;
use std::time::Duration;

use loadgen::audit::{AuditReport, AuditVerdict, FinalState, audit, read_final_state};
use loadgen::record::OpRecord;
use loadgen::spec::Keys;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::walk::{self, Script, Walked, Watch};
use super::{AUDIT_PATIENCE, with_cluster};
use crate::evidence::FaultRecord;
use crate::folder::RunFolder;
use crate::plan::{FaultKind, FaultPlan, FaultTarget, Plan};

/// Which rounds are to be done, and how.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// The first, from 1.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Between an audit and the next.
    pub per_batch: u64,
    /// From one kill to the next.
    pub period: Duration,
}

/// A line of `rounds.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// From 1.
    pub round: u64,
    /// Of the soak.
    pub seed: u64,
    /// `one`, `minority`, `majority`, `all`.
    pub target: String,
    /// Who was killed.
    pub victims: Vec<String>,
    /// Seen from outside.
    pub effective: bool,
    /// What was seen.
    pub proof: String,
    /// From the kill to the restart.
    pub down_ms: Option<f64>,
    /// From the restart until every victim had caught up.
    pub recovery_ms: Option<f64>,
    /// The first and the last round of the batch that the audit covers.
    pub audited_rounds: (u64, u64),
    /// Its verdict; fail, too, where the keys could not be read back.
    pub audit: AuditVerdict,
    /// Writes acknowledged in the batch.
    pub acked_writes: u64,
    /// Writes of the batch that may have happened.
    pub unknown_writes: u64,
    /// Acknowledged writes of the batch that are not there.
    pub lost_writes: u64,
    /// What the audit found, and what else went wrong in the batch.
    pub problems: Vec<String>,
}

impl Round {
    /// The kill bit, nothing was lost, and everything came back.
    pub fn is_sound(&self) -> bool {
        self.effective && self.audit == AuditVerdict::Pass && self.problems.is_empty()
    }
}

/// Does `rounds` on a fresh cluster in `folder`; `done` gets each batch once it is audited, and
/// the soak ends with the first batch that is not sound.
pub fn soak(
    plan: &Plan,
    rounds: Rounds,
    folder: &RunFolder,
    watch: &Watch,
    done: &mut dyn FnMut(Vec<Round>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_cluster(&plan.cluster, folder, watch, async |cluster| {
        let mut first = rounds.first;
        while first <= rounds.last {
            let last = rounds.last.min(first + rounds.per_batch - 1);
            let batch = batch(plan, rounds, (first, last), folder, watch, cluster).await?;
            let sound = batch.iter().all(Round::is_sound);
            done(batch)?;
            if !sound {
                break;
            }
            first = last + 1;
        }
        Ok(())
    })
}

async fn batch(
    plan: &Plan,
    rounds: Rounds,
    (first, last): (u64, u64),
    folder: &RunFolder,
    watch: &Watch,
    cluster: &Arc<Cluster>,
) -> anyhow::Result<Vec<Round>> {
    (watch.says)(&format!("rounds {first} to {last}"));
    let faults: Vec<_> = (first..=last)
        .map(|round| {
            let begins = rounds.period * (round - first) as u32;
            kill(plan.seed, round, plan.cluster.nodes, begins, rounds.period)
        })
        .collect();
    let mut load = plan.load.clone();
    load.measure = rounds.period * faults.len() as u32;
    load.seed = plan.seed.wrapping_add(first);
    // Keys of its own: the audit reasons from a key's first write on.
    load.keys.prefix = format!("{}{first}/", load.keys.prefix);
    let script = Script {
        load: &load,
        api: plan.api,
        faults: &faults,
        election_timeout: Duration::from_millis(plan.cluster.election_timeout_ms),
        seed: plan.seed.wrapping_add(first),
        undo_journal: &folder.file(&format!("undo-{first}.jsonl")),
    };
    let mut walked = walk::walk(cluster, script, watch).await?;
    let report = match read_final_state(&cluster.endpoints(), &load, AUDIT_PATIENCE).await {
        Ok(state) => audit(&load.keys, &walked.load.ops, &state),
        // That a cluster does not come back is what a soak is there to find: it is a result.
        Err(error) => {
            walked.problems.push(format!("the keys could not be read back: {error}"));
            unread(&load.keys, &walked.load.ops)
        }
    };
    walked.problems.extend(report.findings.iter().map(|finding| finding.sentence.clone()));
    if report.acked_writes == 0 {
        let problem = "no write was acknowledged between the kills: there was nothing to lose";
        walked.problems.push(problem.to_owned());
    }
    // By their number, which is the last part of a fault's id.
    walked.faults.sort_by_key(number);
    let record = |fault| round(plan.seed, fault, (first, last), &report, &walked);
    Ok(walked.faults.iter().map(record).collect())
}

/// The report on keys that could not be read back: what was written is known, what of it is lost
/// is not.
fn unread(keys: &Keys, ops: &[OpRecord]) -> AuditReport {
    let counted = audit(keys, ops, &FinalState::default());
    AuditReport {
        verdict: AuditVerdict::Fail,
        lost_writes: 0,
        findings_total: 0,
        findings: Vec::new(),
        ..counted
    }
}

/// The kill of a round: whom, when in its period and for how long is up to the seed.
fn kill(seed: u64, round: u64, nodes: usize, begins: Duration, period: Duration) -> FaultPlan {
    let mut random = StdRng::seed_from_u64(seed.rotate_left(32) ^ round);
    let mut targets = vec![FaultTarget::One, FaultTarget::All];
    if nodes > 2 {
        targets.extend([FaultTarget::Minority, FaultTarget::Majority]);
    }
    let target = targets.choose(&mut random).cloned().unwrap_or(FaultTarget::One);
    let at = begins + period.mul_f64(random.random_range(0.1..0.3));
    let restart_after = Some(period.mul_f64(random.random_range(0.02..0.3)));
    FaultPlan { id: format!("r{round}"), kind: FaultKind::Kill { restart_after }, target, at }
}

fn number(fault: &FaultRecord) -> u64 {
    fault.id.trim_start_matches('r').parse().unwrap_or(0)
}

fn round(
    seed: u64,
    fault: &FaultRecord,
    audited_rounds: (u64, u64),
    report: &AuditReport,
    walked: &Walked,
) -> Round {
    let ms = |from: i64, to: i64| (to - from) as f64 / 1e6;
    let mut problems = walked.problems.clone();
    if fault.healed_ns.is_some() && fault.recovered_ns.is_none() {
        problems.push(format!("{} did not catch up after its restart", fault.victims.join(", ")));
    }
    Round {
        round: number(fault),
        seed,
        target: fault.target.clone(),
        victims: fault.victims.clone(),
        effective: fault.effective,
        proof: fault.proof.clone(),
        down_ms: fault.healed_ns.map(|healed| ms(fault.injected_ns, healed)),
        recovery_ms: fault.healed_ns.zip(fault.recovered_ns).map(|(from, to)| ms(from, to)),
        audited_rounds,
        audit: report.verdict,
        acked_writes: report.acked_writes,
        unknown_writes: report.unknown_writes,
        lost_writes: report.lost_writes,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_the_same_wherever_its_batch_begins() {
        let period = Duration::from_secs(4);
        let alone = kill(7, 12, 3, Duration::ZERO, period);
        let later = kill(7, 12, 3, period * 5, period);
        assert_eq!((&alone.target, alone.kind), (&later.target, later.kind));
        assert_eq!(alone.at + period * 5, later.at);
        let targets: std::collections::BTreeSet<_> =
            (0..50).map(|round| kill(7, round, 3, period, period).target.to_string()).collect();
        assert_eq!(targets.len(), 4, "{targets:?}");
    }
}
