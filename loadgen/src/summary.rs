//! The numbers that reports lead with, as pure functions of the records.
//!
//! Invariant: only operations whose intended send time lies in the measured phase count, and all
//! of those do: `latency_us` holds every one of them, not-ok ones as at least their timeout.

use hdrhistogram::Histogram;
use history::Outcome;
use serde::{Deserialize, Serialize};

use crate::record::{LoadResult, OpRecord};
use crate::spec::{Arrivals, LoadSpec};

/// The clients' side of a run in numbers; the `load` of `summary.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadSummary {
    /// Operations that were due, per second of the measured phase.
    pub offered_per_second: f64,
    /// Operations that ended ok, per second of the measured phase.
    pub achieved_per_second: f64,
    /// Operations that were due.
    pub scheduled: u64,
    /// Of them ended ok.
    pub ok: u64,
    /// Of them provably never happened.
    pub fail: u64,
    /// Of them may have happened.
    pub unknown: u64,
    /// Every operation, from its intended send time; not-ok ones at least their timeout.
    pub latency_us: Quantiles,
    /// Ok ones, from the intended send time.
    pub ok_latency_us: Quantiles,
    /// Ok ones, from when they were sent: what a generator that waits for answers would show.
    pub service_time_us: Quantiles,
    /// From intended to sent (or to the refusal, where nothing could be sent).
    pub send_lag_us: Quantiles,
}

/// Quantiles of a distribution, in us, to three significant digits; all 0 where it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many values there were.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// The largest.
    pub max: f64,
}

impl LoadSummary {
    /// Of the measured phase.
    pub fn new(spec: &LoadSpec, result: &LoadResult) -> Self {
        let timeout_ns = spec.timeout.as_nanos() as i64;
        let (mut all, mut ok) = (Distribution::new(), Distribution::new());
        let (mut service, mut lag) = (Distribution::new(), Distribution::new());
        let mut summary = Self::default();
        for op in measured(&result.ops) {
            summary.scheduled += 1;
            all.record(op.latency_ns(timeout_ns));
            if let Some(left_ns) = op.sent_ns.or(op.completed_ns) {
                lag.record(left_ns - op.intended_ns);
            }
            match op.outcome {
                Outcome::Fail => summary.fail += 1,
                Outcome::Unknown => summary.unknown += 1,
                Outcome::Ok => {
                    summary.ok += 1;
                    ok.record(op.latency_ns(timeout_ns));
                    if let (Some(sent_ns), Some(completed_ns)) = (op.sent_ns, op.completed_ns) {
                        service.record(completed_ns - sent_ns);
                    }
                }
            }
        }
        let seconds = spec.measure.as_secs_f64();
        // What a backlog still answers in the drain was not achieved in the phase.
        let end_ns = spec.measure.as_nanos() as i64;
        let in_phase = |op: &&OpRecord| {
            op.outcome == Outcome::Ok
                && op.completed_ns.is_some_and(|completed| (0..end_ns).contains(&completed))
        };
        let achieved = result.ops.iter().filter(in_phase).count();
        Self {
            offered_per_second: summary.scheduled as f64 / seconds,
            achieved_per_second: achieved as f64 / seconds,
            latency_us: all.quantiles_us(),
            ok_latency_us: ok.quantiles_us(),
            service_time_us: service.quantiles_us(),
            send_lag_us: lag.quantiles_us(),
            ..summary
        }
    }

    /// Whether the generator, not the target, set these latencies; if so, in which numbers. A
    /// closed loop has no intended send times to lag behind: its report shows
    /// [`generator_cpu_share`] instead.
    pub fn generator_past_limit(&self, arrivals: Arrivals) -> Option<String> {
        let limit_us = (self.latency_us.p50 / 10.0).max(1000.0);
        let lag_us = self.send_lag_us.p99;
        let open = !matches!(arrivals, Arrivals::Closed { .. });
        (open && lag_us > limit_us).then(|| {
            format!(
                "the generator was past its limit: the p99 of its send lag is {lag_us:.0} us, \
                 above {limit_us:.0} us (the larger of 1 ms and 10 % of the latency's p50)"
            )
        })
    }
}

/// Share of one core that the generator's threads used.
pub fn generator_cpu_share(result: &LoadResult) -> f64 {
    if result.wall_seconds > 0.0 { result.cpu_seconds / result.wall_seconds } else { 0.0 }
}

/// The operations of the measured phase. They are in the order of their intended send times.
pub fn measured(ops: &[OpRecord]) -> &[OpRecord] {
    &ops[ops.partition_point(|op| op.intended_ns < 0)..]
}

/// Durations in ns, to three significant digits; the largest one exactly.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    pub(crate) histogram: Histogram<u64>,
    max_ns: u64,
}

/// An hour; what is longer counts as this.
const MAX_TRACKED_NS: u64 = 3_600_000_000_000;

impl Distribution {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_TRACKED_NS, 3).expect("sound bounds");
        Self { histogram, max_ns: 0 }
    }

    pub(crate) fn record(&mut self, ns: i64) {
        let ns = ns.max(0) as u64;
        self.histogram.saturating_record(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    pub(crate) fn quantiles_us(&self) -> Quantiles {
        // A value stands for its bucket's upper end, which may lie above all that was recorded.
        let us = |ns: u64| ns.min(self.max_ns) as f64 / 1000.0;
        let at = |quantile| us(self.histogram.value_at_quantile(quantile));
        Quantiles {
            count: self.histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: us(self.max_ns),
        }
    }
}
