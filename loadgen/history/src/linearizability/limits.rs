//! How long a check may take and how much it may remember, and how far it is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a check may use. What it cannot decide within is undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the whole check. Every key gets a first look; those that take long share what is left.
    /// Naming the operations of a failure may take as long again.
    pub time: Duration,
    /// For what the searches remember, all threads together; beside the history itself.
    pub memory_bytes: usize,
}

impl Default for Limits {
    /// A minute and a GiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), memory_bytes: 1 << 30 }
    }
}

/// How far a check is, for whoever shows it.
#[derive(Debug, Default)]
pub struct CheckProgress {
    keys: AtomicU64,
    decided: AtomicU64,
}

impl CheckProgress {
    /// Keys that were decided, and how many there are; (0, 0) before the check begins.
    pub fn keys(&self) -> (u64, u64) {
        (self.decided.load(Relaxed), self.keys.load(Relaxed))
    }

    pub(super) fn begin(&self, keys: usize) {
        self.keys.store(keys as u64, Relaxed);
    }

    pub(super) fn count_decided(&self) {
        self.decided.fetch_add(1, Relaxed);
    }
}

/// The limit that kept a search from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    Time,
    Memory,
}

/// What one search may still use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) deadline: Instant,
    pub(super) memory_bytes: usize,
    steps: u32,
}

/// The clock is read once in so many steps, so that a small search never needs it.
const STEPS_BETWEEN_LOOKS: u32 = 1024;

impl Budget {
    pub(super) fn new(deadline: Instant, memory_bytes: usize) -> Self {
        Self { deadline, memory_bytes, steps: 0 }
    }

    /// Counts a step of a search that remembers so many bytes.
    pub(super) fn step(&mut self, remembered_bytes: usize) -> Result<(), Exhausted> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_BETWEEN_LOOKS) && Instant::now() >= self.deadline {
            return Err(Exhausted::Time);
        }
        if remembered_bytes > self.memory_bytes {
            return Err(Exhausted::Memory);
        }
        Ok(())
    }
}
