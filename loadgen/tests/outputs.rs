//! What a run leaves behind: intervals, the latency log, the history. All from one virtual run.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use history::{Kind, Outcome};
use loadgen::clock::RunClock;
use loadgen::intervals::{INTERVAL_NS, intervals};
use loadgen::latency_log::write_latency_log;
use loadgen::record::LoadResult;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use loadgen::summary::LoadSummary;
use loadgen::target::simulated::{Simulated, Stall};

fn run() -> (LoadSpec, LoadResult) {
    let spec = LoadSpec {
        arrivals: Arrivals::Poisson { rate_per_second: 500.0 },
        connections: 3,
        timeout: Duration::from_millis(300),
        max_outstanding: 20_000,
        reads: Consistency::Serializable,
        put_share: 0.5,
        keys: Keys { prefix: "out/".to_owned(), count: 10, distribution: KeyDistribution::Uniform },
        value_bytes: 64,
        warmup: Duration::from_secs(1),
        measure: Duration::from_secs(4),
        drain: Duration::from_secs(1),
        seed: 11,
    };
    let stall = Stall { from: Duration::from_secs(3), length: Duration::from_millis(500) };
    let result =
        loadgen::run_virtual(&spec, &Simulated::new(Duration::from_millis(2), Some(stall)));
    (spec, result.unwrap())
}

#[test]
fn intervals_hold_every_operation_where_it_was_due() {
    let (spec, result) = run();
    let summary = LoadSummary::new(&spec, &result);
    let rows = intervals(&spec, &result);
    assert_eq!(rows.len(), 40);
    assert!(rows.windows(2).all(|pair| pair[1].start_ns - pair[0].start_ns == INTERVAL_NS));
    assert_eq!(rows.iter().map(|row| row.scheduled).sum::<u64>(), summary.scheduled);
    assert_eq!(rows.iter().map(|row| row.unknown).sum::<u64>(), summary.unknown);
    // The stall is from 2 s to 2.5 s; what is due in its first 200 ms outlasts the timeout.
    assert_eq!((rows[20].ok, rows[20].unknown), (0, rows[20].scheduled));
    assert_eq!(rows[20].latency_p50_us, Some(300_000.0));
    assert_eq!((rows[25].ok, rows[25].unknown), (rows[25].scheduled, 0));
    assert!(rows[30].latency_max_us.unwrap() < 5_000.0);
}

#[test]
fn the_latency_log_is_read_back_with_the_same_quantiles() {
    let (spec, result) = run();
    let summary = LoadSummary::new(&spec, &result);
    let mut log = Vec::new();
    let clock = RunClock::starting_in(Duration::ZERO);
    write_latency_log(&mut log, &spec, &result, clock.zero_unix_ns()).unwrap();
    let mut all = Histogram::<u64>::new(3).unwrap();
    let (mut tagged, mut seconds) = (0, 0);
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let bytes = base64(interval.encoded_histogram());
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        if interval.tag().is_some() {
            tagged += histogram.len();
        } else {
            assert_eq!(interval.start_timestamp(), Duration::from_secs(seconds));
            seconds += 1;
            all.add(&histogram).unwrap();
        }
    }
    assert_eq!((all.len(), tagged, seconds), (summary.scheduled, summary.scheduled, 4));
    let p99_us = all.value_at_quantile(0.99) as f64 / 1000.0;
    assert!((p99_us / summary.latency_us.p99 - 1.0).abs() < 0.002, "{p99_us} {summary:?}");
}

#[test]
fn the_history_says_what_the_clients_know() {
    let (spec, result) = run();
    let nodes = ["n1".to_owned()];
    let history: Vec<_> =
        loadgen::to_history::operations(&result, &spec.keys, Some(&nodes)).collect();
    assert_eq!(history.len(), result.ops.len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl.zst");
    history::write(&path, &history).unwrap();
    assert_eq!(history::read(&path).unwrap(), history);
    let mut written = std::collections::HashSet::new();
    for op in &history {
        assert_eq!(op.node.as_deref(), Some("n1"));
        assert_eq!(op.complete_ns.is_none(), op.outcome == Outcome::Unknown);
        assert_eq!(op.error.is_some(), op.outcome != Outcome::Ok);
        match op.op {
            Kind::Put => {
                assert_eq!(op.consistency, Consistency::Linearizable);
                assert!(written.insert(op.value.clone().unwrap()), "values are unique");
            }
            _ => assert_eq!(op.consistency, Consistency::Serializable),
        }
    }
}

/// The decoder that the log's readers bring along.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|l| *l == letter).expect("base64") as u32;
        (bits, held) = (bits << 6 | value, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
