//! A target that answers everything but stalls for 1 s in the middle of 10 s, on a virtual clock.

use std::time::Duration;

use history::Outcome;
use loadgen::record::LoadResult;
use loadgen::run_virtual;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use loadgen::summary::{LoadSummary, measured};
use loadgen::target::simulated::{Simulated, Stall};

const RATE: f64 = 1000.0;

fn spec(arrivals: Arrivals) -> LoadSpec {
    LoadSpec {
        arrivals,
        connections: 4,
        timeout: Duration::from_secs(5),
        max_outstanding: 20_000,
        reads: Consistency::Linearizable,
        put_share: 0.5,
        keys: Keys {
            prefix: "stall/".to_owned(),
            count: 100,
            distribution: KeyDistribution::Uniform,
        },
        value_bytes: 64,
        warmup: Duration::from_secs(1),
        measure: Duration::from_secs(10),
        drain: Duration::from_secs(6),
        seed: 4,
    }
}

/// The stall begins 5 s into the measured phase; the target's clock begins with the warm-up.
fn stalling(length: Duration) -> Simulated {
    let stall = Stall { from: Duration::from_secs(1 + 5), length };
    Simulated::new(Duration::from_millis(1), Some(stall))
}

fn run(spec: &LoadSpec, target: &Simulated) -> (LoadResult, LoadSummary) {
    let result = run_virtual(spec, target).unwrap();
    let summary = LoadSummary::new(spec, &result);
    (result, summary)
}

/// Of 10,000 operations, those due in the stall, a tenth, wait for its end: evenly from 0 to 1 s.
/// So quantile q lies at (q - 0.9) / 0.1 of a second.
#[test]
fn the_quantiles_of_a_stall_are_the_analytic_ones() {
    for arrivals in
        [Arrivals::Constant { rate_per_second: RATE }, Arrivals::Poisson { rate_per_second: RATE }]
    {
        let spec = spec(arrivals);
        let (result, summary) = run(&spec, &stalling(Duration::from_secs(1)));
        let latency = summary.latency_us;
        assert_eq!(summary.ok, summary.scheduled);
        assert!(summary.scheduled.abs_diff(10_000) < 500, "{}", summary.scheduled);
        assert!(result.ops[0].intended_ns < -990_000_000, "the warm-up is recorded");
        let (mut in_ms, ops) = (Vec::new(), measured(&result.ops));
        in_ms.extend(ops.iter().map(|op| op.latency_ns(5_000_000_000) as f64 / 1e6));
        in_ms.sort_by(f64::total_cmp);
        for (quantile, analytic_ms) in [(0.925, 250.0), (0.95, 500.0), (0.99, 900.0)] {
            let seen_ms = in_ms[(quantile * in_ms.len() as f64) as usize];
            let off = seen_ms / analytic_ms - 1.0;
            assert!(off.abs() < 0.1, "{arrivals:?} p{quantile}: {seen_ms} ms, not {analytic_ms}");
        }
        assert!(latency.p50 < 3_000.0, "{latency:?}");
        assert!((latency.p99 / 900_000.0 - 1.0).abs() < 0.1, "{latency:?}");
        assert!((latency.max / 1_000_000.0 - 1.0).abs() < 0.01, "{latency:?}");
    }
}

#[test]
fn a_virtual_run_is_the_same_every_time() {
    let spec = spec(Arrivals::Poisson { rate_per_second: RATE });
    let target = stalling(Duration::from_secs(1));
    assert_eq!(run(&spec, &target).0.ops, run(&spec, &target).0.ops);
}

#[test]
fn a_closed_loop_hides_the_stall() {
    let spec = spec(Arrivals::Closed { clients: 16 });
    let (result, summary) = run(&spec, &stalling(Duration::from_secs(1)));
    assert!(summary.latency_us.max > 990_000.0, "{:?}", summary.latency_us);
    assert!(summary.latency_us.p99 < 10_000.0, "{:?}", summary.latency_us);
    assert!(result.ops.iter().all(|op| op.sent_ns == Some(op.intended_ns)));
}

#[test]
fn what_is_not_answered_in_time_is_unknown_and_counts_as_its_timeout() {
    let mut spec = spec(Arrivals::Constant { rate_per_second: RATE });
    spec.timeout = Duration::from_millis(400);
    let (result, summary) = run(&spec, &stalling(Duration::from_secs(1)));
    // Due in the first 600 ms of the stall: answered after more than 400.
    assert!(summary.unknown.abs_diff(600) <= 2, "{summary:?}");
    assert_eq!((summary.fail, summary.ok + summary.unknown), (0, 10_000));
    assert_eq!(summary.latency_us.max, 400_000.0);
    assert!(summary.ok_latency_us.max <= 400_000.0);
    let unknown = result.ops.iter().find(|op| op.outcome == Outcome::Unknown).unwrap();
    assert_eq!(unknown.completed_ns, None);
    let text = &result.errors[usize::from(unknown.error.unwrap())];
    assert!(text.contains("timeout"), "{text}");
}

#[test]
fn beyond_max_outstanding_operations_fail_unsent_and_count() {
    let mut spec = spec(Arrivals::Constant { rate_per_second: RATE });
    spec.max_outstanding = 300;
    let (result, summary) = run(&spec, &stalling(Duration::from_secs(1)));
    assert!(summary.fail.abs_diff(700) <= 2, "{summary:?}");
    assert_eq!(summary.scheduled, 10_000);
    assert_eq!(summary.latency_us.max, 5_000_000.0, "a failure counts as its timeout");
    let failed = result.ops.iter().filter(|op| op.outcome == Outcome::Fail);
    assert!(failed.clone().all(|op| op.sent_ns.is_none()));
    assert!(failed.clone().all(|op| op.completed_ns == Some(op.intended_ns)));
}

#[test]
fn what_the_drain_does_not_see_answered_is_unknown() {
    let mut spec = spec(Arrivals::Constant { rate_per_second: RATE });
    spec.drain = Duration::from_millis(500);
    let (_, summary) = run(&spec, &stalling(Duration::from_secs(60)));
    assert!(summary.unknown.abs_diff(5_000) <= 2, "{summary:?}");
    assert_eq!(summary.scheduled, 10_000);
}
