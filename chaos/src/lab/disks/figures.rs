//! What a disk counts and measures of what its users asked of it.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A disk's own account, since it was attached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Syncs that were answered.
    pub syncs: u64,
    /// Bytes that they had to make durable.
    pub synced_bytes: u64,
    /// Writes, whether past the page cache or not.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Reads that no cache answered.
    pub reads: u64,
    /// Requests that are being served or held.
    pub in_flight: u64,
    /// Requests that are held by a stall now.
    pub held: u64,
    /// Requests refused because the disk was full.
    pub refused_full: u64,
    /// Requests refused with an input/output error.
    pub refused_error: u64,
    /// From a sync's arrival to its answer, those under no fault's condition; without the time that
    /// it waited for its turn.
    pub sync_service: Times,
    /// The same with all waiting, of the syncs that arrived under the present condition.
    pub sync_now: Times,
    /// Requests that could still be served at the burst rate, where there is one.
    pub burst_credits: Option<f64>,
}

/// A distribution that was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Quartile.
    pub p25_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// Quartile.
    pub p75_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// Counts and measures.
pub(super) struct Meter {
    pub(super) counts: Figures,
    service_ns: Histogram<u64>,
    now_ns: Histogram<u64>,
}

impl Meter {
    pub(super) fn new() -> Self {
        // Three digits up to ten minutes.
        let histogram = || {
            Histogram::new_with_bounds(1000, 600_000_000_000, 3).expect("bounds that are in order")
        };
        Self { counts: Figures::default(), service_ns: histogram(), now_ns: histogram() }
    }

    pub(super) fn sync_served(&mut self, service_ns: u64) {
        self.service_ns.saturating_record(service_ns);
    }

    pub(super) fn sync_answered(&mut self, took_ns: u64) {
        self.now_ns.saturating_record(took_ns);
    }

    /// A new condition holds.
    pub(super) fn condition_changed(&mut self) {
        self.now_ns.reset();
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            sync_service: times(&self.service_ns),
            sync_now: times(&self.now_ns),
            ..self.counts.clone()
        }
    }
}

fn times(ns: &Histogram<u64>) -> Times {
    if ns.is_empty() {
        return Times::default();
    }
    let at = |share| ns.value_at_quantile(share) as f64 / 1e6;
    Times {
        count: ns.len(),
        mean_ms: ns.mean() / 1e6,
        p25_ms: at(0.25),
        p50_ms: at(0.5),
        p75_ms: at(0.75),
        p99_ms: at(0.99),
        max_ms: ns.max() as f64 / 1e6,
    }
}
