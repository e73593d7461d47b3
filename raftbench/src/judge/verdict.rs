//! From findings to a verdict and its reasons.
//!
//! Invariant: the order of precedence is
//! 1. a failed audit, or a history that is not linearizable: fail. A lost write is a fact about the
//!    target whatever the faults or the generator did, so it is told even where the latencies are
//!    not to be trusted;
//! 2. a fault that did not bite, an emulated disk that was not the one asked for, or a generator past
//!    its limit: invalid;
//! 3. a threshold outside fault windows or an expectation not met, or something that went wrong
//!    unasked, such as a node that ended by itself: fail;
//! 4. a required metric or check that could not be decided: inconclusive;
//! 5. else pass.
//!
//! Reasons of every rank are kept, the most important first.

use history::linearizability::Violation;

use super::summary::{
    CheckResults, CheckVerdict, Fault, Reading, ScopeName, Threshold, ThresholdVerdict, Verdict,
};
use crate::plan::{Plan, Target};

/// With fewer operations a p99 says nothing.
const LEAST_OPERATIONS: u64 = 100;

/// All that a verdict rests on.
pub(super) struct Findings<'a> {
    /// In both scopes.
    pub(super) thresholds: &'a [Threshold],
    /// Those that were injected.
    pub(super) faults: &'a [Fault],
    /// What went wrong unplanned, such as a node that ended by itself.
    pub(super) problems: &'a [String],
    /// The audit and its like.
    pub(super) checks: &'a CheckResults,
    /// Due in the measured phase.
    pub(super) scheduled: u64,
    /// Of them ended ok.
    pub(super) ok: u64,
    /// The longest outage of the run, whatever caused it.
    pub(super) longest_outage_ms: f64,
    /// The longest outage that was still open when the load ended.
    pub(super) open_outage_ms: Option<f64>,
    /// Faults in whose window no linearizable operation was due.
    pub(super) unseen_faults: Vec<String>,
    /// How long load was measured.
    pub(super) measured_s: f64,
    /// Disks that were not what the profile asked for.
    pub(super) disks_off: Vec<String>,
    /// The load's own word.
    pub(super) generator_past_limit: Option<String>,
}

/// The verdict, and every reason for it.
pub(super) fn decide(plan: &Plan, findings: &Findings<'_>) -> (Verdict, Vec<String>) {
    let ranks = [
        (Verdict::Fail, losses(findings)),
        (Verdict::Invalid, mistrust(plan, findings)),
        (Verdict::Fail, failures(plan, findings)),
        (Verdict::Inconclusive, gaps(plan, findings)),
    ];
    let verdict = ranks.iter().find(|(_, reasons)| !reasons.is_empty());
    match verdict.map(|(verdict, _)| *verdict) {
        Some(verdict) => (verdict, ranks.into_iter().flat_map(|(_, reasons)| reasons).collect()),
        None => (Verdict::Pass, vec![what_held(plan, findings)]),
    }
}

fn losses(findings: &Findings<'_>) -> Vec<String> {
    let checks = findings.checks;
    let mut reasons = Vec::new();
    if checks.audit == CheckVerdict::Fail {
        reasons.push(match checks.lost_writes.unwrap_or(0) {
            0 => format!("the audit failed: {}", first_finding(checks)),
            lost => format!(
                "{lost} of {} acknowledged writes lost: {}",
                checks.acked_writes,
                first_finding(checks)
            ),
        });
    }
    if checks.linearizable == CheckVerdict::Fail {
        reasons.push(format!("the history is not linearizable: {}", first_violation(checks)));
    }
    reasons
}

fn mistrust(plan: &Plan, findings: &Findings<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    for planned in &plan.faults {
        match findings.faults.iter().find(|fault| fault.id == planned.id) {
            None => {
                reasons.push(format!("{} ({}) was never injected", planned.id, planned.kind.name()))
            }
            Some(fault) if !fault.effective => reasons.push(format!(
                "{} ({} {}) did not bite: {}",
                fault.id, fault.kind, fault.target, fault.proof
            )),
            Some(fault) if fault.injected_s >= findings.measured_s => reasons.push(format!(
                "{} ({} {}) came {:.1} s after time zero, when the load had ended: nobody saw it",
                fault.id, fault.kind, fault.target, fault.injected_s
            )),
            Some(_) => {}
        }
    }
    reasons.extend(findings.disks_off.iter().cloned());
    reasons.extend(findings.generator_past_limit.clone());
    reasons
}

fn failures(plan: &Plan, findings: &Findings<'_>) -> Vec<String> {
    let mut reasons = findings.problems.to_vec();
    if findings.scheduled > 0 && findings.ok == 0 {
        reasons.push(format!("none of {} operations ended ok", findings.scheduled));
    }
    for threshold in outside(findings.thresholds) {
        if let (ThresholdVerdict::Fail, Some(seen)) = (threshold.verdict, threshold.observed) {
            reasons.push(format!(
                "{} outside fault windows was {} {}, above its limit of {}",
                threshold.metric,
                in_words(seen),
                threshold.unit,
                threshold.limit
            ));
        }
    }
    if let Some(limit_ms) = plan.expect.max_outage_ms {
        let mut told = false;
        for fault in findings.faults.iter().filter(|fault| fault.outage_ms > limit_ms) {
            told = true;
            reasons.push(format!(
                "the outage of {} ({} {}) was {:.0} ms, longer than expect.max_outage_ms = {limit_ms}",
                fault.id, fault.kind, fault.target, fault.outage_ms
            ));
        }
        if !told && findings.longest_outage_ms > limit_ms {
            reasons.push(format!(
                "the longest outage, outside fault windows, was {:.0} ms, longer than \
                 expect.max_outage_ms = {limit_ms}",
                findings.longest_outage_ms
            ));
        }
    }
    reasons
}

fn gaps(plan: &Plan, findings: &Findings<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if findings.scheduled < LEAST_OPERATIONS {
        reasons.push(format!(
            "only {} operations were due; below {LEAST_OPERATIONS} a p99 says nothing",
            findings.scheduled
        ));
    }
    for threshold in outside(findings.thresholds) {
        if threshold.verdict == ThresholdVerdict::NoData && is_required(plan, threshold) {
            reasons.push(match threshold.observed {
                None => format!("{} has no data outside fault windows", threshold.metric),
                Some(seen) => format!(
                    "{} outside fault windows was {} {}: its limit of {} lies inside",
                    threshold.metric,
                    in_words(seen),
                    threshold.unit,
                    threshold.limit
                ),
            });
        }
    }
    let checks = findings.checks;
    if plan.checks.audit && checks.audit != CheckVerdict::Pass && checks.audit != CheckVerdict::Fail
    {
        reasons.push(format!("the audit could not be decided: {}", first_finding(checks)));
    }
    if let (CheckVerdict::Undecided, Some(check)) = (checks.linearizable, &checks.linearizability) {
        reasons.push(format!("linearizability could not be decided: {}", check.why_undecided()));
    }
    for fault in findings.faults {
        if fault.healed_s.is_some() && fault.recovered_s.is_none() {
            reasons.push(format!(
                "{}: {} had not caught up after the fault was healed",
                fault.id, fault.target
            ));
        }
    }
    if plan.expect.max_outage_ms.is_some() {
        if let Some(ms) = findings.open_outage_ms {
            reasons.push(format!("an outage was not over when the load ended, after {ms:.0} ms"));
        }
        for id in &findings.unseen_faults {
            reasons.push(format!(
                "no linearizable operation was due while {id} held: its outage is not known"
            ));
        }
    }
    reasons
}

/// The sentence of a pass.
fn what_held(plan: &Plan, findings: &Findings<'_>) -> String {
    let held = outside(findings.thresholds).filter(|t| t.verdict == ThresholdVerdict::Pass).count();
    let mut parts = vec![format!("{held} of 5 thresholds hold outside fault windows")];
    if findings.checks.audit == CheckVerdict::Pass {
        parts.push(format!("none of {} acknowledged writes lost", findings.checks.acked_writes));
    }
    if findings.checks.linearizable == CheckVerdict::Pass {
        parts.push("the history is linearizable".to_owned());
    }
    if let Some(limit_ms) = plan.expect.max_outage_ms {
        parts.push(format!(
            "longest outage {:.0} ms (limit {limit_ms} ms)",
            findings.longest_outage_ms
        ));
    }
    parts.join("; ")
}

fn outside(thresholds: &[Threshold]) -> impl Iterator<Item = &Threshold> {
    thresholds.iter().filter(|threshold| threshold.scope == ScopeName::OutsideFaults)
}

/// By default all that the target offers: of a cluster that was not ours to start, what it showed.
fn is_required(plan: &Plan, threshold: &Threshold) -> bool {
    match (&plan.expect.required, &plan.cluster.target) {
        (Some(required), _) => required.contains(&threshold.metric),
        (None, Target::External { .. }) => threshold.observed.is_some(),
        (None, _) => true,
    }
}

fn first_finding(checks: &CheckResults) -> &str {
    checks.findings.first().map_or("it left no finding", String::as_str)
}

fn first_violation(checks: &CheckResults) -> String {
    let violations = checks.linearizability.as_ref().map(|check| check.violations.as_slice());
    let first = violations.unwrap_or_default().first();
    first.map_or("it left no violation".to_owned(), Violation::to_string)
}

fn in_words(seen: Reading) -> String {
    match seen {
        Reading::Exact(value) => format!("{value}"),
        Reading::Between(low, Some(high)) => format!("{low:.1} to {high:.1}"),
        Reading::Between(low, None) => format!("above {low:.1}"),
    }
}
