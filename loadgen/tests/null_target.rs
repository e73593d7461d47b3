//! The generator in real time over real sockets, against the null target. No claims about speed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use history::{Kind, Outcome};
use loadgen::clock::RunClock;
use loadgen::record::{OpRecord, ReadValue};
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use loadgen::summary::LoadSummary;
use loadgen::target::etcd::Etcd;
use loadgen::target::null::NullServer;
use loadgen::{Load, LoadError, Progress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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

/// The server stalls at 0.5 s, dies at 1 s, is back at 1.6 s. What was sent in between may have
/// happened; what was due while nobody listened never did; what is due a little after the return
/// is answered again.
#[tokio::test]
async fn a_server_that_dies_and_returns_is_told_truthfully() {
    let null = NullServer::start().unwrap();
    let address = null.address();
    let target = Arc::new(Etcd::new(&[null.endpoint()]).unwrap());
    let measure = Duration::from_secs(4);
    let spec = LoadSpec { value_bytes: 16, put_share: 1.0, measure, ..spec() };
    let load = Load::connect(&spec, target).await.unwrap();
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(50));
    null.stall_at(clock.instant_at(500_000_000), Duration::from_secs(60));
    let until = |ms: i64| tokio::time::sleep_until(clock.instant_at(ms * 1_000_000).into());
    let (result, (died_ns, back_ns)) = tokio::join!(load.run(clock, Arc::default()), async {
        until(1000).await;
        tokio::task::spawn_blocking(|| drop(null)).await.unwrap();
        let died_ns = clock.now_ns();
        until(1600).await;
        let back_ns = clock.now_ns();
        (died_ns, (NullServer::start_on(address).unwrap(), back_ns))
    });
    let (result, (_null, back_ns)) = (result.unwrap(), back_ns);
    let due = |from_ns: i64, to_ns: i64| {
        let range = from_ns..to_ns;
        result.ops.iter().filter(move |op| range.contains(&op.intended_ns))
    };
    let text = |op: &OpRecord| op.error.map_or("", |error| &result.errors[usize::from(error)]);
    let mut unknown = 0;
    for op in due(550_000_000, 950_000_000) {
        assert_eq!(op.outcome, Outcome::Unknown, "{op:?}");
        assert!(text(op).contains("broke") && op.sent_ns.is_some(), "{op:?} {}", text(op));
        unknown += 1;
    }
    assert!(unknown > 100);
    // Some milliseconds may pass until the generator hears of the death.
    for op in due(died_ns + 100_000_000, back_ns) {
        assert_eq!((op.outcome, op.sent_ns), (Outcome::Fail, None), "{op:?}");
        assert!(text(op).contains("refused") && text(op).contains("127.0.0.1"), "{}", text(op));
    }
    // A second for a busy machine; a dial follows within 80 ms.
    assert!(due(back_ns + 1_000_000_000, i64::MAX).count() > 100);
    for op in due(back_ns + 1_000_000_000, i64::MAX) {
        assert_eq!(op.outcome, Outcome::Ok, "{op:?} {}", text(op));
    }
}

/// A proxy for one connection: what the server says waits while it is held back. (A server that
/// stalls by itself would not answer what was cancelled meanwhile.)
async fn hold_answers(server: SocketAddr, held: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) =
            TcpStream::connect(server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut bytes = vec![0; 1 << 16];
        loop {
            while held.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            match from_server.read(&mut bytes).await {
                Ok(count @ 1..) => to_client.write_all(&bytes[..count]).await.unwrap(),
                _ => break,
            }
        }
    });
    address
}

/// A connection whose endpoint dies goes to the next one, as clients of a cluster do: what was due
/// a little later is answered over there, and the records say by whom.
#[tokio::test]
async fn a_connection_moves_on_when_its_endpoint_dies() {
    let (dying, living) = (NullServer::start().unwrap(), NullServer::start().unwrap());
    let target = Arc::new(Etcd::new(&[dying.endpoint(), living.endpoint()]).unwrap());
    let measure = Duration::from_secs(3);
    let spec = LoadSpec { value_bytes: 16, connections: 4, measure, ..spec() };
    let load = Load::connect(&spec, target).await.unwrap();
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(50));
    let (result, died_ns) = tokio::join!(load.run(clock, Arc::default()), async {
        tokio::time::sleep_until(clock.instant_at(1_000_000_000).into()).await;
        tokio::task::spawn_blocking(|| drop(dying)).await.unwrap();
        clock.now_ns()
    });
    let result = result.unwrap();
    let nodes = |from_ns: i64, to_ns: i64| {
        let range = from_ns..to_ns;
        let ops = result.ops.iter().filter(move |op| range.contains(&op.intended_ns));
        ops.map(|op| (op.node, op.outcome)).collect::<std::collections::HashSet<_>>()
    };
    assert_eq!(nodes(0, 900_000_000), [(0, Outcome::Ok), (1, Outcome::Ok)].into());
    assert_eq!(nodes(died_ns + 1_000_000_000, i64::MAX), [(1, Outcome::Ok)].into());
}

/// Answers that come long after their operations were given up must not cost the connection.
#[tokio::test]
async fn late_answers_to_thousands_of_timed_out_operations_are_dropped() {
    let null = NullServer::start().unwrap();
    let held = Arc::new(AtomicBool::new(false));
    let proxy = hold_answers(null.address(), held.clone()).await;
    let target = Arc::new(Etcd::new(&[proxy.to_string()]).unwrap());
    let spec = LoadSpec {
        arrivals: Arrivals::Constant { rate_per_second: 3000.0 },
        connections: 1,
        timeout: Duration::from_millis(200),
        value_bytes: 16,
        measure: Duration::from_secs(3),
        ..spec()
    };
    let load = Load::connect(&spec, target).await.unwrap();
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(50));
    let until = |ms: i64| tokio::time::sleep_until(clock.instant_at(ms * 1_000_000).into());
    let (result, ()) = tokio::join!(load.run(clock, Arc::default()), async {
        until(500).await;
        held.store(true, Relaxed);
        until(1500).await;
        held.store(false, Relaxed);
    });
    let result = result.unwrap();
    let unknown = result.ops.iter().filter(|op| op.outcome == Outcome::Unknown).count();
    assert!(unknown > 2000, "{unknown}");
    assert!(!result.errors.iter().any(|text| text.contains("broke")), "{:?}", result.errors);
    let after = result.ops.iter().filter(|op| op.intended_ns > 1_500_000_000);
    assert!(after.filter(|op| op.outcome == Outcome::Ok).count() > 100, "{:?}", result.errors);
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
