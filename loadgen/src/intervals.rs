//! A run in slices of 100 ms of intended send time: the load's columns of `intervals.csv`.
//!
//! Invariant: an operation belongs to the slice in which it was due, whenever it was answered; so
//! an outage shows where it was, not where it ended.

use history::Outcome;

use crate::record::LoadResult;
use crate::spec::LoadSpec;
use crate::summary::{Distribution, measured};

/// The length of a slice.
pub const INTERVAL_NS: i64 = 100_000_000;

/// One slice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// Where it begins.
    pub start_ns: i64,
    /// Operations due in it.
    pub scheduled: u64,
    /// Of them ended ok.
    pub ok: u64,
    /// Of them provably never happened.
    pub fail: u64,
    /// Of them may have happened.
    pub unknown: u64,
    /// Median latency of all of them; `None` where none was due.
    pub latency_p50_us: Option<f64>,
    /// 99 %.
    pub latency_p99_us: Option<f64>,
    /// The largest.
    pub latency_max_us: Option<f64>,
}

/// All slices of the measured phase, without gaps.
pub fn intervals(spec: &LoadSpec, result: &LoadResult) -> Vec<Interval> {
    let timeout_ns = spec.timeout.as_nanos() as i64;
    let ops = measured(&result.ops);
    let last_ns = ops.last().map_or(0, |op| op.intended_ns + 1);
    let end_ns = last_ns.max(spec.measure.as_nanos() as i64);
    let mut rest = ops;
    (0..end_ns)
        .step_by(INTERVAL_NS as usize)
        .map(|start_ns| {
            let count = rest.partition_point(|op| op.intended_ns < start_ns + INTERVAL_NS);
            let (due, later) = rest.split_at(count);
            rest = later;
            let mut latency = Distribution::new();
            let mut interval =
                Interval { start_ns, scheduled: due.len() as u64, ..Interval::default() };
            for op in due {
                latency.record(op.latency_ns(timeout_ns));
                match op.outcome {
                    Outcome::Ok => interval.ok += 1,
                    Outcome::Fail => interval.fail += 1,
                    Outcome::Unknown => interval.unknown += 1,
                }
            }
            let quantiles = latency.quantiles_us();
            let seen = |us: f64| (quantiles.count > 0).then_some(us);
            interval.latency_p50_us = seen(quantiles.p50);
            interval.latency_p99_us = seen(quantiles.p99);
            interval.latency_max_us = seen(quantiles.max);
            interval
        })
        .collect()
}
