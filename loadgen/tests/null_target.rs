//! The generator in real time over real sockets, against the null target. No claims about speed.

use std::sync::Arc;
use std::time::Duration;

use history::{Kind, Outcome};
use loadgen::clock::RunClock;
use loadgen::record::ReadValue;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use loadgen::summary::LoadSummary;
use loadgen::target::etcd::Etcd;
use loadgen::target::null::NullServer;
use loadgen::{Load, LoadError, Progress};

fn spec() -> LoadSpec {
    LoadSpec {
        arrivals: Arrivals::Poisson { rate_per_second: 500.0 },
        connections: 4,
        timeout: Duration::from_secs(5),
        max_outstanding: 20_000,
        reads: Consistency::Linearizable,
        put_share: 0.5,
        keys: Keys {
            prefix: "null/".to_owned(),
            count: 100,
            distribution: KeyDistribution::Zipfian { exponent: 0.99 },
        },
        value_bytes: 20_000,
        warmup: Duration::from_millis(200),
        measure: Duration::from_millis(800),
        drain: Duration::from_secs(6),
        seed: 4,
    }
}

#[tokio::test]
async fn every_operation_is_answered_and_recorded_once() {
    let null = NullServer::start().unwrap();
    let target = Arc::new(Etcd::new(&[null.endpoint()]).unwrap());
    let spec = spec();
    let load = Load::connect(&spec, target).await.unwrap();
    let progress = Arc::new(Progress::default());
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(50));
    let result = load.run(clock, progress.clone()).await.unwrap();
    let mut sequences: Vec<u64> = result.ops.iter().map(|op| op.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (0..result.ops.len() as u64).collect::<Vec<_>>());
    assert!(result.ops.iter().any(|op| op.intended_ns == 0));
    let errors = &result.errors;
    for op in &result.ops {
        assert_eq!(op.outcome, Outcome::Ok, "{op:?} {errors:?}");
        assert!(op.sent_ns.unwrap() >= op.intended_ns);
        assert!(op.completed_ns.unwrap() > op.sent_ns.unwrap());
        match op.kind {
            Kind::Put => assert!(op.revision > 1),
            _ => assert_eq!(op.read, Some(ReadValue::Absent)),
        }
    }
    let counters = progress.counters();
    assert_eq!(counters.ok, result.ops.len() as u64);
    assert_eq!((counters.sent, counters.outstanding), (counters.ok, 0));
    assert!(result.cpu_seconds > 0.0);
    assert_eq!(result.endpoints, [null.endpoint()]);
}

#[tokio::test]
async fn a_stall_of_the_target_shows_in_full() {
    let null = NullServer::start().unwrap();
    let target = Arc::new(Etcd::new(&[null.endpoint()]).unwrap());
    let spec = LoadSpec { value_bytes: 16, measure: Duration::from_secs(2), ..spec() };
    let load = Load::connect(&spec, target).await.unwrap();
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(50));
    null.stall_at(clock.instant_at(1_000_000_000), Duration::from_millis(400));
    let result = load.run(clock, Arc::default()).await.unwrap();
    let summary = LoadSummary::new(&spec, &result);
    // A fifth of the operations waits, evenly from 0 to 400 ms: at p90 half of that.
    assert!(summary.latency_us.max > 350_000.0, "{summary:?}");
    assert!(summary.latency_us.p90 > 150_000.0, "{summary:?}");
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_named() {
    let target = Arc::new(Etcd::new(&["127.0.0.1:1".to_owned()]).unwrap());
    let error = Load::connect(&spec(), target).await.unwrap_err();
    assert!(matches!(error, LoadError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_stopped_load_ends_at_once_with_what_it_has() {
    let null = NullServer::start().unwrap();
    let target = Arc::new(Etcd::new(&[null.endpoint()]).unwrap());
    let spec = LoadSpec { measure: Duration::from_secs(3600), ..spec() };
    let load = Load::connect(&spec, target).await.unwrap();
    let progress = Arc::new(Progress::default());
    let clock = RunClock::starting_in(spec.warmup);
    let stopper = progress.clone();
    let (result, ()) = tokio::join!(load.run(clock, progress.clone()), async move {
        while stopper.counters().ok < 20 {
            tokio::task::yield_now().await;
        }
        stopper.stop();
    });
    assert!(result.unwrap().ops.len() >= 20);
}
