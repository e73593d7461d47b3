//! How long a disk takes: a distribution given by its quantiles.
//!
//! Invariant: pure. The same seed draws the same times.

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// A distribution of times, as points of its quantile function: share of requests (0 to 1) and the
/// time in ms that so many do not exceed. Between two points the logarithm of the time is linear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(f64, f64)>", into = "Vec<(f64, f64)>")]
pub struct Latency {
    points: Vec<(f64, f64)>,
}

/// The shortest time that a point may have; zero has no logarithm.
const LEAST_MS: f64 = 0.001;
/// The longest: a minute.
const MOST_MS: f64 = 60_000.0;

impl Latency {
    /// From at least two points, the first at 0 and the last at 1, both coordinates rising (times may
    /// stay equal); otherwise what is wrong with them.
    pub fn new(points: Vec<(f64, f64)>) -> Result<Self, String> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Err("has no points".into());
        };
        if first.0 != 0.0 || last.0 != 1.0 {
            return Err(
                "must begin with the share 0 (the minimum) and end with 1 (the maximum)".into()
            );
        }
        if let Some((_, ms)) = points.iter().find(|(_, ms)| !(LEAST_MS..=MOST_MS).contains(ms)) {
            return Err(format!("has {ms} ms; times are from {LEAST_MS} to {MOST_MS} ms"));
        }
        if let Some(pair) = points.windows(2).find(|pair| pair[1].0 <= pair[0].0) {
            return Err(format!(
                "has the share {} after {}; shares must rise",
                pair[1].0, pair[0].0
            ));
        }
        if let Some(pair) = points.windows(2).find(|pair| pair[1].1 < pair[0].1) {
            let ((_, before), (share, ms)) = (pair[0], pair[1]);
            return Err(format!("has {ms} ms at {share}, less than the {before} ms before it"));
        }
        Ok(Self { points })
    }

    /// The same time always.
    pub fn constant(ms: f64) -> Result<Self, String> {
        Self::new(vec![(0.0, ms), (1.0, ms)])
    }

    /// The time in ms that the share `share` of all requests does not exceed.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let share = share.clamp(0.0, 1.0);
        let after = self.points.partition_point(|(at, _)| *at < share).max(1);
        let ((from, low), (to, high)) = (self.points[after - 1], self.points[after]);
        low * (high / low).powf((share - from) / (to - from))
    }

    /// The mean in ms.
    pub fn mean_ms(&self) -> f64 {
        let part = |pair: &[(f64, f64)]| {
            let ((from, low), (to, high)) = (pair[0], pair[1]);
            // The integral of low * (high / low)^t over t from 0 to 1.
            let mean = if high == low { low } else { (high - low) / (high / low).ln() };
            (to - from) * mean
        };
        self.points.windows(2).map(part).sum()
    }

    /// One time in ms.
    pub(crate) fn draw_ms(&self, random: &mut StdRng) -> f64 {
        self.quantile_ms(random.random())
    }

    /// All points.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }
}

impl TryFrom<Vec<(f64, f64)>> for Latency {
    type Error = String;

    fn try_from(points: Vec<(f64, f64)>) -> Result<Self, String> {
        Self::new(points)
    }
}

impl From<Latency> for Vec<(f64, f64)> {
    fn from(latency: Latency) -> Self {
        latency.points
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn gp3_like() -> Latency {
        Latency::new(vec![(0.0, 0.4), (0.5, 0.66), (0.9, 0.95), (0.99, 1.6), (1.0, 5.1)])
            .expect("rises")
    }

    #[test]
    fn quantiles_are_the_points_and_between_them() {
        let latency = gp3_like();
        assert_eq!(latency.quantile_ms(0.0), 0.4);
        assert_eq!(latency.quantile_ms(0.5), 0.66);
        assert_eq!(latency.quantile_ms(1.0), 5.1);
        let between = latency.quantile_ms(0.25);
        assert!((between - (0.4_f64 * 0.66).sqrt()).abs() < 1e-9, "{between}");
    }

    #[test]
    fn draws_follow_the_quantiles_and_the_mean() {
        let latency = gp3_like();
        let mut random = StdRng::seed_from_u64(1);
        let mut drawn: Vec<f64> = (0..100_000).map(|_| latency.draw_ms(&mut random)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        assert!((mean / latency.mean_ms() - 1.0).abs() < 0.01, "{mean} {}", latency.mean_ms());
        drawn.sort_by(f64::total_cmp);
        for share in [0.1, 0.5, 0.9, 0.99] {
            let seen = drawn[(share * drawn.len() as f64) as usize];
            assert!((seen / latency.quantile_ms(share) - 1.0).abs() < 0.06, "{share}: {seen}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..10).map(|_| gp3_like().draw_ms(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn points_that_make_no_distribution_are_refused() {
        for points in [
            vec![],
            vec![(0.0, 1.0)],
            vec![(0.1, 1.0), (1.0, 2.0)],
            vec![(0.0, 1.0), (0.5, 2.0), (0.5, 3.0), (1.0, 4.0)],
            vec![(0.0, 2.0), (1.0, 1.0)],
            vec![(0.0, 0.0), (1.0, 1.0)],
            vec![(0.0, f64::NAN), (1.0, 1.0)],
        ] {
            assert!(Latency::new(points.clone()).is_err(), "{points:?}");
        }
    }
}
