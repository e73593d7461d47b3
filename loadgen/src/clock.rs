//! The run's clock: one monotonic zero, and where that zero lies on the wall clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time zero of a run is the first intended send of the measured phase.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    zero: Instant,
    zero_unix_ns: i128,
}

impl RunClock {
    /// A clock whose zero lies `until_zero` in the future.
    pub fn starting_in(until_zero: Duration) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let unix_ns = wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        Self { zero: now + until_zero, zero_unix_ns: unix_ns + until_zero.as_nanos() as i128 }
    }

    /// Nanoseconds since zero; negative before it.
    pub fn now_ns(&self) -> i64 {
        self.ns_at(Instant::now())
    }

    /// `instant` on this clock, in ns.
    pub fn ns_at(&self, instant: Instant) -> i64 {
        match instant.checked_duration_since(self.zero) {
            Some(after) => after.as_nanos() as i64,
            None => -(self.zero.duration_since(instant).as_nanos() as i64),
        }
    }

    /// The instant at `ns` on this clock.
    pub fn instant_at(&self, ns: i64) -> Instant {
        let distance = Duration::from_nanos(ns.unsigned_abs());
        if ns >= 0 { self.zero + distance } else { self.zero - distance }
    }

    /// A wall-clock time (ns since the Unix epoch), such as a server's log line has, on this clock.
    pub fn ns_of_unix(&self, unix_ns: i128) -> i64 {
        (unix_ns - self.zero_unix_ns) as i64
    }

    /// Where zero lies on the wall clock, in ns since the Unix epoch.
    pub fn zero_unix_ns(&self) -> i128 {
        self.zero_unix_ns
    }
}
