//! What a volume may do in a second: token buckets, with burst credits that run out.
//!
//! Invariant: pure; times are ns on one clock.

use serde::{Deserialize, Serialize};

use super::planted::{Bug, planted};

/// A limit of so many units (requests, or bytes) per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// For as long as one likes.
    pub per_second: f64,
    /// What more it can do for a while.
    pub burst: Option<Burst>,
}

/// A higher rate while credits last. Credits come in at the base rate, up to their most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// While there are credits.
    pub per_second: f64,
    /// The most that can be saved up, in units.
    pub credits: f64,
    /// What the volume starts with.
    pub starts_with: f64,
}

/// Whatever the rate, a volume takes what comes within so long at once.
const WINDOW_S: f64 = 0.01;

/// One limit in force.
#[derive(Debug)]
pub(super) struct Limit {
    base: Bucket,
    /// Bounds how fast credits are spent.
    peak: Option<Bucket>,
}

impl Limit {
    /// `unit` is the least that must fit at once: one request.
    pub(super) fn new(rate: Rate, unit: f64) -> Self {
        let paced = |per_second: f64| {
            let capacity = (per_second * WINDOW_S).max(unit);
            Bucket { per_second, capacity, level: capacity, at_ns: 0 }
        };
        match rate.burst {
            None => Self { base: paced(rate.per_second), peak: None },
            Some(burst) => {
                let capacity = burst.credits.max(unit);
                let level = burst.starts_with.min(capacity);
                let base = Bucket { per_second: rate.per_second, capacity, level, at_ns: 0 };
                Self { base, peak: Some(paced(burst.per_second)) }
            }
        }
    }

    /// When `amount` may begin that comes at `now_ns`; it is taken.
    pub(super) fn take(&mut self, now_ns: u64, amount: f64) -> u64 {
        let peak_ns = self.peak.as_ref().map_or(now_ns, |peak| peak.ready_ns(now_ns, amount));
        let base_ns = match planted(Bug::CreditsNeverRunOut) && self.peak.is_some() {
            true => now_ns,
            false => self.base.ready_ns(now_ns, amount),
        };
        let start_ns = now_ns.max(peak_ns).max(base_ns);
        self.base.spend(start_ns, amount);
        if let Some(peak) = &mut self.peak {
            peak.spend(start_ns, amount);
        }
        start_ns
    }

    /// What is saved up at `now_ns`, where there are burst credits.
    pub(super) fn credits(&self, now_ns: u64) -> Option<f64> {
        self.peak.as_ref().map(|_| self.base.level_at(now_ns).max(0.0))
    }
}

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    capacity: f64,
    /// At `at_ns`; below zero after a request that is larger than the bucket.
    level: f64,
    at_ns: u64,
}

impl Bucket {
    fn level_at(&self, now_ns: u64) -> f64 {
        let passed_s = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        (self.level + passed_s * self.per_second).min(self.capacity)
    }

    fn ready_ns(&self, now_ns: u64, amount: f64) -> u64 {
        let now_ns = now_ns.max(self.at_ns);
        let missing = amount.min(self.capacity) - self.level_at(now_ns);
        match missing > 0.0 {
            true => now_ns + (missing / self.per_second * 1e9).ceil() as u64,
            false => now_ns,
        }
    }

    fn spend(&mut self, at_ns: u64, amount: f64) {
        self.level = self.level_at(at_ns) - amount;
        self.at_ns = self.at_ns.max(at_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// How many single requests begin in each second, if there is always one waiting.
    fn served_each_second(mut limit: Limit, seconds: u64) -> Vec<u64> {
        let mut served = vec![0; seconds as usize];
        let mut now_ns = 0;
        loop {
            now_ns = limit.take(now_ns, 1.0);
            match served.get_mut((now_ns / S) as usize) {
                Some(count) => *count += 1,
                None => return served,
            }
        }
    }

    #[test]
    fn a_rate_is_kept_from_the_first_second_on() {
        let limit = Limit::new(Rate { per_second: 500.0, burst: None }, 1.0);
        for (second, served) in served_each_second(limit, 5).into_iter().enumerate() {
            assert!((495..=506).contains(&served), "second {second}: {served}");
        }
    }

    #[test]
    fn credits_are_spent_at_the_burst_rate_and_run_out() {
        let burst = Burst { per_second: 3000.0, credits: 10_000.0, starts_with: 5400.0 };
        let limit = Limit::new(Rate { per_second: 300.0, burst: Some(burst) }, 1.0);
        let served = served_each_second(limit, 5);
        // 5,400 credits and 300 more a second, spent at 3,000 a second: two seconds.
        assert!((2990..=3031).contains(&served[0]), "{served:?}");
        assert!((2900..=3031).contains(&served[1]), "{served:?}");
        for later in &served[2..] {
            assert!((295..=310).contains(later), "{served:?}");
        }
    }

    #[test]
    fn credits_come_back_while_nothing_is_asked() {
        let burst = Burst { per_second: 1000.0, credits: 1000.0, starts_with: 0.0 };
        let mut limit = Limit::new(Rate { per_second: 100.0, burst: Some(burst) }, 1.0);
        assert_eq!(limit.credits(0), Some(0.0));
        assert_eq!(limit.credits(5 * S), Some(500.0));
        assert_eq!(limit.credits(50 * S), Some(1000.0));
        assert_eq!(limit.take(50 * S, 10.0), 50 * S);
    }

    #[test]
    fn a_request_larger_than_the_bucket_is_served_and_paid_for_afterwards() {
        let mut limit = Limit::new(Rate { per_second: 1000.0, burst: None }, 1.0);
        assert_eq!(limit.take(0, 500.0), 0);
        let next = limit.take(0, 1.0);
        assert!((480_000_000..=500_000_000).contains(&next), "{next}");
    }
}
