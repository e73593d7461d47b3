//! Open-loop arrivals: the intended send times of a run, as a pure function of rate and seed.
//!
//! Invariant: ascending, one schedule over warm-up and measured phase, with an operation due at
//! exactly 0, which is what time zero means. Nothing here depends on when anything was sent.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;

/// Intended send times in ns on the run's clock, ascending, from `-warmup` until `measure`.
#[derive(Clone, Debug)]
pub struct Schedule {
    gaps: Gaps,
    /// Warm-up times that a Poisson schedule drew backwards from zero, latest first.
    warmup_ns: Vec<i64>,
    next_ns: i64,
    end_ns: i64,
}

#[derive(Clone, Debug)]
enum Gaps {
    /// By multiplication from zero, so that nothing drifts. `next` counts operations from zero.
    Even { gap_ns: f64, next: i64 },
    /// Exponential; `at_ns` is kept exact between roundings.
    Exponential { mean_ns: f64, at_ns: f64, rng: Box<Xoshiro256PlusPlus> },
}

impl Schedule {
    /// Evenly spaced.
    pub fn constant(rate_per_second: f64, warmup: Duration, measure: Duration) -> Self {
        let gap_ns = 1e9 / rate_per_second;
        let first = -(warmup.as_nanos() as f64 / gap_ns).floor() as i64;
        Self {
            gaps: Gaps::Even { gap_ns, next: first },
            warmup_ns: Vec::new(),
            next_ns: (first as f64 * gap_ns) as i64,
            end_ns: measure.as_nanos() as i64,
        }
    }

    /// A Poisson process seen from one of its arrivals: gaps to both sides of it are exponential,
    /// so the warm-up is drawn backwards from zero.
    pub fn poisson(rate_per_second: f64, warmup: Duration, measure: Duration, seed: u64) -> Self {
        let mean_ns = 1e9 / rate_per_second;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (start_ns, mut at_ns, mut warmup_ns) = (-(warmup.as_nanos() as f64), 0.0, Vec::new());
        loop {
            at_ns -= mean_ns * rng.sample::<f64, _>(Exp1);
            if at_ns < start_ns {
                break;
            }
            warmup_ns.push((at_ns as i64).min(-1));
        }
        let next_ns = warmup_ns.pop().unwrap_or(0);
        Self {
            gaps: Gaps::Exponential { mean_ns, at_ns: 0.0, rng: Box::new(rng) },
            warmup_ns,
            next_ns,
            end_ns: measure.as_nanos() as i64,
        }
    }
}

impl Iterator for Schedule {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        let due = self.next_ns;
        if due >= self.end_ns {
            return None;
        }
        self.next_ns = match &mut self.gaps {
            Gaps::Even { gap_ns, next } => {
                *next += 1;
                (*next as f64 * *gap_ns) as i64
            }
            Gaps::Exponential { mean_ns, at_ns, rng } => match self.warmup_ns.pop() {
                Some(earlier) => earlier,
                None if due < 0 => 0,
                None => {
                    *at_ns += *mean_ns * rng.sample::<f64, _>(Exp1);
                    *at_ns as i64
                }
            },
        };
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn constant_arrivals_keep_their_spacing_and_one_is_due_at_zero() {
        let times: Vec<i64> = Schedule::constant(3.0, SECOND, 2 * SECOND).collect();
        assert_eq!(times.len(), 9);
        assert_eq!(times[3], 0);
        assert_eq!(times[0], -1_000_000_000);
        assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - 333_333_333).abs() <= 1));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_the_variance_and_a_zero() {
        let times: Vec<i64> = Schedule::poisson(5000.0, SECOND, 10 * SECOND, 7).collect();
        assert!(times.contains(&0));
        assert!(times.is_sorted());
        assert!(times[0] >= -1_000_000_000 && *times.last().unwrap() < 10_000_000_000);
        let measured = times.iter().filter(|t| **t >= 0).count() as f64;
        assert!((measured - 50_000.0).abs() < 5.0 * 50_000f64.sqrt(), "{measured}");
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "not exponential: {variance} {mean}");
    }

    #[test]
    fn a_schedule_is_its_seed() {
        let times = |seed| Schedule::poisson(100.0, SECOND, SECOND, seed).collect::<Vec<i64>>();
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    #[test]
    fn without_warmup_the_first_is_due_at_zero() {
        assert_eq!(Schedule::poisson(10.0, Duration::ZERO, SECOND, 3).next(), Some(0));
        assert_eq!(Schedule::constant(10.0, Duration::ZERO, SECOND).next(), Some(0));
    }
}
