//! Quantiles: of values that are all known, and of a histogram, which knows only an interval.

use super::summary::Reading;

/// The smallest value that at least `quantile` of all do not exceed; `None` without values.
pub(super) fn nearest_rank(values: &mut [i64], quantile: f64) -> Option<i64> {
    let rank = rank(values.len() as u64, quantile)?;
    Some(*values.select_nth_unstable(rank as usize - 1).1)
}

/// The interval that the buckets allow for a quantile: from the bound below its bucket to the
/// bucket's own. `buckets` are upper bounds with the number of values in each bucket alone.
pub(super) fn of_buckets(buckets: &[(f64, u64)], quantile: f64) -> Option<Reading> {
    let rank = rank(buckets.iter().map(|(_, count)| count).sum(), quantile)?;
    let (mut seen, mut low) = (0, 0.0);
    for (bound, count) in buckets {
        seen += count;
        if seen >= rank {
            let high = (*bound < f64::MAX).then_some(*bound);
            return Some(Reading::Between(low, high));
        }
        low = *bound;
    }
    None
}

/// 1-based.
fn rank(count: u64, quantile: f64) -> Option<u64> {
    (count > 0).then(|| ((count as f64 * quantile).ceil() as u64).clamp(1, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_textbook_ones() {
        let mut values: Vec<i64> = (1..=100).rev().collect();
        assert_eq!(nearest_rank(&mut values, 0.99), Some(99));
        assert_eq!(nearest_rank(&mut values, 0.5), Some(50));
        assert_eq!(nearest_rank(&mut values, 1.0), Some(100));
        assert_eq!(nearest_rank(&mut [], 0.5), None);
    }

    #[test]
    fn a_bucket_gives_its_bounds() {
        let buckets = [(0.001, 90), (0.002, 8), (0.05, 1), (f64::MAX, 1)];
        assert_eq!(of_buckets(&buckets, 0.5), Some(Reading::Between(0.0, Some(0.001))));
        assert_eq!(of_buckets(&buckets, 0.99), Some(Reading::Between(0.002, Some(0.05))));
        assert_eq!(of_buckets(&buckets, 1.0), Some(Reading::Between(0.05, None)));
        assert_eq!(of_buckets(&[(1.0, 0)], 0.99), None);
    }
}
