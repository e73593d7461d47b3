//! The audit and the linearizability check: what clients saw, against what can have been.

use history::linearizability::{self, CheckReport, Limits, Verdict};
use history::{Kind, Outcome};
use loadgen::audit::{AuditVerdict, audit};
use loadgen::to_history::operations;

use super::summary::{CheckResults, CheckVerdict};
use crate::evidence::Observed;
use crate::plan::Plan;

/// Both checks, as far as the plan asks for them.
pub(super) fn checks(plan: &Plan, observed: &Observed) -> CheckResults {
    let linearizability = plan.checks.linearizable.then(|| linearizability(plan, observed));
    let writes = |outcome| {
        let puts = observed.load.ops.iter().filter(|op| op.kind == Kind::Put);
        puts.filter(|op| op.outcome == outcome).count() as u64
    };
    let unread = CheckResults {
        audit: if plan.checks.audit { CheckVerdict::Undecided } else { CheckVerdict::Skipped },
        acked_writes: writes(Outcome::Ok),
        // Nobody looked.
        lost_writes: None,
        unknown_writes: writes(Outcome::Unknown),
        findings: Vec::new(),
        linearizable: match linearizability.as_ref().map(|check| check.verdict) {
            None => CheckVerdict::Skipped,
            Some(Verdict::Pass) => CheckVerdict::Pass,
            Some(Verdict::Fail) => CheckVerdict::Fail,
            Some(Verdict::Undecided) => CheckVerdict::Undecided,
        },
        linearizability,
    };
    let Some(state) = observed.final_state.as_ref().filter(|_| plan.checks.audit) else {
        return unread;
    };
    let report = audit(&plan.load.keys, &observed.load.ops, state);
    CheckResults {
        audit: match report.verdict {
            AuditVerdict::Pass => CheckVerdict::Pass,
            AuditVerdict::Fail => CheckVerdict::Fail,
        },
        acked_writes: report.acked_writes,
        lost_writes: Some(report.lost_writes),
        unknown_writes: report.unknown_writes,
        findings: report.findings.into_iter().map(|finding| finding.sentence).collect(),
        ..unread
    }
}

fn linearizability(plan: &Plan, observed: &Observed) -> CheckReport {
    let names = observed.endpoint_names();
    let operations = operations(&observed.load, &plan.load.keys, Some(&names));
    linearizability::check(operations, &Limits::default())
}
