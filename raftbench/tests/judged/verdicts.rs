//! The same run, with one thing broken at a time.

use history::{Kind, Outcome};
use loadgen::record::ReadValue;
use raftbench::evidence::Observed;
use raftbench::judge::judge;
use raftbench::judge::summary::{
    CheckVerdict, Reading, ScopeName, Summary, Threshold, ThresholdVerdict, Verdict,
};

use crate::hand_made::{MS, final_state, observed, ops, plan};

const S: i64 = 1000 * MS;

fn judged(break_it: impl FnOnce(&mut Observed)) -> Summary {
    judged_with(&[], break_it)
}

fn judged_with(flags: &[&str], break_it: impl FnOnce(&mut Observed)) -> Summary {
    let mut observed = observed();
    break_it(&mut observed);
    judge(&plan(flags), &observed)
}

#[track_caller]
fn came_to(summary: &Summary, verdict: Verdict, reason: &str) {
    assert_eq!(summary.verdict, verdict, "{:?}", summary.reasons);
    let first = &summary.reasons[0];
    assert!(first.contains(reason), "the first reason is `{first}`, not `{reason}`");
}

fn threshold<'a>(summary: &'a Summary, metric: &str, scope: ScopeName) -> &'a Threshold {
    let found = |row: &&Threshold| row.metric == metric && row.scope == scope;
    summary.thresholds.iter().find(found).expect(metric)
}

#[test]
fn a_sound_run_passes_with_the_numbers_that_were_put_in() {
    let summary = judged(|_| {});
    came_to(&summary, Verdict::Pass, "5 of 5 thresholds hold");
    let fault = &summary.faults[0];
    assert_eq!(fault.target, "leader (n1)");
    // Ops due 2 ms before the kill were answered; so the first late one was due at it.
    assert_eq!((fault.outage_ms, fault.operations_lost), (1200.0, 1200));
    assert_eq!(fault.first_success_ms, Some(1202.0));
    assert_eq!(fault.election_ms, Some(1100.0));
    assert_eq!(summary.stability.longest_outage_ms, 1200.0);
    assert_eq!(summary.stability.unavailable_ms, 1200.0);
    assert_eq!(
        (summary.stability.leader_changes, summary.stability.term_growth),
        (Some(1), Some(1))
    );
    assert_eq!(summary.stability.fault_windows_s, 3.0);
    assert_eq!(summary.checks.audit, CheckVerdict::Pass);
    assert_eq!((summary.checks.acked_writes, summary.checks.unknown_writes), (18_800, 1200));
    assert_eq!(summary.resources.len(), 3);
}

#[test]
fn the_kill_counts_in_the_whole_run_and_not_outside_it() {
    let summary = judged_with(&["limits.leader_changes_per_minute=0"], |_| {});
    let of = |scope| {
        let row = threshold(&summary, "leader_changes_total", scope);
        (row.observed, row.verdict)
    };
    assert_eq!(of(ScopeName::OutsideFaults), (Some(Reading::Exact(0.0)), ThresholdVerdict::Pass));
    assert_eq!(of(ScopeName::WholeRun), (Some(Reading::Exact(1.0)), ThresholdVerdict::Fail));
    assert_eq!(summary.verdict, Verdict::Pass);
}

#[test]
fn an_outage_longer_than_expected_fails() {
    let summary = judged_with(&["expect.max_outage_ms=1000"], |_| {});
    came_to(&summary, Verdict::Fail, "the outage of f1 (kill leader (n1)) was 1200 ms");
}

#[test]
fn a_threshold_outside_fault_windows_fails() {
    let summary = judged_with(&["limits.commit_p99_ms=1"], |_| {});
    came_to(&summary, Verdict::Fail, "commit_latency_seconds outside fault windows was 1.0 to 5.0");
    let summary = judged_with(&["limits.commit_p99_ms=3"], |_| {});
    came_to(&summary, Verdict::Inconclusive, "its limit of 3 lies inside");
}

#[test]
fn a_metric_that_nobody_showed_is_inconclusive_where_it_is_required() {
    let without = |observed: &mut Observed| {
        for sample in &mut observed.samples {
            sample.histograms.remove("wal_fsync_duration_seconds");
        }
    };
    came_to(&judged(without), Verdict::Inconclusive, "wal_fsync_duration_seconds has no data");
    let required = ["expect.required=[\"raft_term\"]"];
    assert_eq!(judged_with(&required, without).verdict, Verdict::Pass);
}

#[test]
fn a_fault_that_did_not_bite_or_never_came_is_invalid() {
    let toothless = judged(|observed| observed.faults[0].effective = false);
    came_to(&toothless, Verdict::Invalid, "f1 (kill leader (n1)) did not bite");
    let absent = judged(|observed| observed.faults.clear());
    came_to(&absent, Verdict::Invalid, "f1 (kill) was never injected");
}

#[test]
fn a_generator_past_its_limit_is_invalid_whatever_else_holds() {
    let summary = judged(|observed| {
        for op in observed.load.ops.iter_mut().step_by(20) {
            op.sent_ns = op.sent_ns.map(|sent| sent + 2 * MS);
            op.completed_ns = op.completed_ns.map(|completed| completed + 2 * MS);
        }
    });
    came_to(&summary, Verdict::Invalid, "the generator was past its limit");
}

#[test]
fn a_lost_write_fails_even_a_run_that_is_invalid() {
    let lose = |observed: &mut Observed| {
        let state = observed.final_state.as_mut().expect("a state");
        state.keys.remove(&5);
        observed.faults[0].effective = false;
    };
    let summary = judged(lose);
    came_to(&summary, Verdict::Fail, "acknowledged writes lost");
    assert!(summary.checks.lost_writes > Some(0));
    assert!(summary.reasons.iter().any(|reason| reason.contains("did not bite")));
}

#[test]
fn keys_that_could_not_be_read_back_decide_nothing() {
    let summary = judged(|observed| observed.final_state = None);
    came_to(&summary, Verdict::Inconclusive, "the audit could not be decided");
    let unasked = judged_with(&["checks.audit=false"], |observed| observed.final_state = None);
    assert_eq!((unasked.verdict, unasked.checks.audit), (Verdict::Pass, CheckVerdict::Skipped));
}

const READ: [&str; 3] =
    ["checks.linearizable=true", "checks.audit=false", "load.mix={put=0.5,get=0.5}"];

/// The op that was due at 5 s, on a key that is written once a second, becomes a get that answers
/// what was written at `written_ms`.
fn judged_with_a_read_of(written_ms: u64) -> Summary {
    judged_with(&READ, |observed| {
        let read = &mut observed.load.ops[5000];
        (read.kind, read.read) = (Kind::Get, Some(ReadValue::Written(written_ms)));
    })
}

#[test]
fn a_stale_read_fails_the_run_and_names_its_operations() {
    let summary = judged_with_a_read_of(3000);
    came_to(&summary, Verdict::Fail, "the history is not linearizable: key `hand/00000000`: get");
    assert_eq!(summary.checks.linearizable, CheckVerdict::Fail);
    let check = summary.checks.linearizability.expect("a check");
    let [violation] = check.violations.as_slice() else { panic!("{check:#?}") };
    let lines: Vec<u64> = violation.operations.iter().map(|witness| witness.line).collect();
    assert_eq!(lines, [3001, 4001, 5001], "{violation:#?}");
    assert_eq!(violation.operations[2].operation.node.as_deref(), Some("n3"));
}

#[test]
fn a_run_whose_reads_can_be_ordered_passes_and_says_so() {
    let summary = judged_with_a_read_of(4000);
    came_to(&summary, Verdict::Pass, "the history is linearizable");
    assert_eq!(summary.checks.linearizable, CheckVerdict::Pass);
    let check = summary.checks.linearizability.expect("a check");
    assert_eq!((check.operations, check.keys, check.observations), (20_000, 1000, 1));
    // Nobody asked.
    assert_eq!(judged(|_| {}).checks.linearizable, CheckVerdict::Skipped);
}

#[test]
fn a_history_without_reads_decides_nothing() {
    let summary = judged_with(&READ, |_| {});
    came_to(&summary, Verdict::Inconclusive, "linearizability could not be decided: no ok get");
    assert_eq!(summary.checks.linearizable, CheckVerdict::Undecided);
}

#[test]
fn what_went_wrong_unasked_fails() {
    let summary = judged(|observed| observed.problems.push("n3 ended by itself".into()));
    came_to(&summary, Verdict::Fail, "n3 ended by itself");
}

#[test]
fn a_victim_that_never_caught_up_decides_nothing() {
    let summary = judged(|observed| observed.faults[0].recovered_ns = None);
    assert!(summary.verdict == Verdict::Inconclusive, "{:?}", summary.reasons);
    assert!(summary.reasons.iter().any(|reason| reason.contains("had not caught up")));
}

#[test]
fn etcds_commit_latency_is_bounded_by_the_clients() {
    let as_etcd = |observed: &mut Observed| {
        for sample in &mut observed.samples {
            let changes = sample.values.remove("leader_changes_total").expect("a counter");
            sample.values.insert("etcd_server_leader_changes_seen_total".into(), changes);
            let fsync = sample.histograms.remove("wal_fsync_duration_seconds").expect("fsync");
            sample.histograms.insert("etcd_disk_wal_fsync_duration_seconds".into(), fsync);
        }
    };
    let summary = judged_with(&["cluster.target=etcd"], as_etcd);
    assert_eq!(summary.verdict, Verdict::Pass, "{:?}", summary.reasons);
    let row = threshold(&summary, "commit_latency_seconds", ScopeName::OutsideFaults);
    assert_eq!(row.observed, Some(Reading::Between(0.0, Some(1.98))));
    assert!(row.meaning.starts_with("upper bound"), "{}", row.meaning);
    // An upper bound above the limit says nothing about what it bounds.
    let tight = ["cluster.target=etcd", "limits.commit_p99_ms=1"];
    assert_eq!(judged_with(&tight, as_etcd).verdict, Verdict::Inconclusive);
    // Clients that a fault has cut off wait for their own TCP after it is healed, at 11 s: that is
    // its outage, and bounds no server's commits. Without a fault before them, they do.
    let waits = |from_ms: i64, observed: &mut Observed| {
        as_etcd(observed);
        observed.load.ops =
            ops(|ms| if (from_ms..13_500).contains(&ms) { Some(13_500 - ms) } else { Some(2) });
        observed.final_state = Some(final_state(&observed.load.ops));
    };
    for (from_ms, verdict) in [(8000, Verdict::Pass), (12_000, Verdict::Inconclusive)] {
        let flags = ["cluster.target=etcd", "expect.max_outage_ms=6000"];
        let summary = judged_with(&flags, |observed| waits(from_ms, observed));
        assert_eq!(summary.verdict, verdict, "{from_ms}: {:?}", summary.reasons);
    }
}

/// A target that answers everything but stalls for 1 s in the middle of 10 s at 1,000/s: a tenth of
/// the operations waits uniformly up to 1 s, so p95 is 500 ms and p99 is 900 ms.
#[test]
fn a_stall_of_one_second_has_its_analytic_quantiles() {
    let flags = ["phases.measure_s=10", "faults=[]"];
    let summary = judged_with(&flags, |observed| {
        observed.load.ops = ops(|ms| match ms {
            5000..6000 => Some(6001 - ms),
            _ => Some(1),
        });
        observed.load.ops.truncate(10_000);
        observed.final_state = Some(final_state(&observed.load.ops));
        observed.faults.clear();
    });
    let latency = &summary.load.figures.latency_us;
    let near = |seen_us: f64, ms: f64| (seen_us / 1e3 - ms).abs() < ms / 100.0 + 1.0;
    assert!(near(latency.p99, 900.0), "{latency:?}");
    assert!(near(latency.p99_9, 990.0), "{latency:?}");
    assert!(near(latency.p50, 1.0), "{latency:?}");
    // Late is above 100 ms here: an ordinary second's p99 is 1 ms.
    assert_eq!(summary.stability.late_after_ms, 100.0);
    assert_eq!(summary.stability.longest_outage_ms, 901.0);
    came_to(&summary, Verdict::Pass, "longest outage 901 ms (limit 2000 ms)");
}

#[test]
fn too_few_operations_decide_nothing() {
    let flags = ["phases.measure_s=0.05", "faults=[]", "checks.audit=false"];
    let summary = judged_with(&flags, |observed| {
        observed.load.ops.truncate(50);
        observed.faults.clear();
    });
    came_to(&summary, Verdict::Inconclusive, "only 50 operations were due");
}

#[test]
fn a_fault_that_came_after_the_load_is_invalid() {
    let late = judged(|observed| {
        observed.faults[0].injected_ns = observed.load.ops.last().expect("ops").intended_ns + S;
        observed.faults[0].healed_ns = None;
        observed.faults[0].recovered_ns = None;
    });
    came_to(&late, Verdict::Invalid, "when the load had ended");
}

#[test]
fn an_outage_that_nobody_could_see_is_inconclusive() {
    let blind = judged_with(&["expect.max_outage_ms=9000"], |observed| {
        observed.load.ops.iter_mut().for_each(|op| op.linearizable = false);
    });
    came_to(&blind, Verdict::Inconclusive, "its outage is not known");
}

#[test]
fn an_outage_still_open_at_the_end_is_inconclusive() {
    let dead = judged_with(&["expect.max_outage_ms=9000"], |observed| {
        let end_ns = observed.load.ops.last().expect("ops").intended_ns;
        for op in observed.load.ops.iter_mut().filter(|op| op.intended_ns > end_ns - 2 * S) {
            (op.outcome, op.completed_ns) = (Outcome::Unknown, None);
        }
    });
    came_to(&dead, Verdict::Inconclusive, "was not over when the load ended");
}
