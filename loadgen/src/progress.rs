//! What a terminal shows while load runs: counters that cost the generator next to nothing.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// Shared by the generator, which counts, and whoever shows it. Warm-up counts too.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    ok: AtomicU64,
    fail: AtomicU64,
    unknown: AtomicU64,
    outstanding: AtomicI64,
    longest_us: AtomicU64,
    stop: AtomicBool,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed to a connection.
    pub sent: u64,
    /// Answered.
    pub ok: u64,
    /// Provably never happened.
    pub fail: u64,
    /// May have happened.
    pub unknown: u64,
    /// Waiting for an answer now.
    pub outstanding: u64,
}

impl Progress {
    /// The counters now.
    pub fn counters(&self) -> Counters {
        Counters {
            sent: self.sent.load(Relaxed),
            ok: self.ok.load(Relaxed),
            fail: self.fail.load(Relaxed),
            unknown: self.unknown.load(Relaxed),
            outstanding: self.outstanding.load(Relaxed).max(0) as u64,
        }
    }

    /// The longest latency (of any outcome) since this was last asked, in us.
    pub fn take_longest_us(&self) -> u64 {
        self.longest_us.swap(0, Relaxed)
    }

    /// Ends the load early: nothing more is sent, and what is outstanding is not awaited.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Claims room for one more outstanding operation, unless `limit` are outstanding.
    pub(crate) fn claim(&self, limit: usize) -> bool {
        let free = self.outstanding.fetch_add(1, Relaxed) < limit as i64;
        if !free {
            self.outstanding.fetch_sub(1, Relaxed);
        }
        free
    }

    pub(crate) fn release(&self) {
        self.outstanding.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_settled(&self, outcome: history::Outcome, latency_ns: i64) {
        let counter = match outcome {
            history::Outcome::Ok => &self.ok,
            history::Outcome::Fail => &self.fail,
            history::Outcome::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Relaxed);
        self.longest_us.fetch_max(latency_ns.max(0) as u64 / 1000, Relaxed);
    }
}
