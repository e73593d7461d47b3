//! The servers' own histograms over a scope.
//!
//! Invariant: only what a node counted between its first and its last look inside a span is in
//! it. A histogram that began anew inside the span (the node was restarted) counts from zero.

use std::collections::BTreeMap;

use super::quantile;
use super::scope::Span;
use super::summary::Reading;
use crate::evidence::{HistogramSample, MetricSample};

/// Each node's p99 of a histogram over the scope, in ms; nodes that counted nothing are left out.
pub(super) fn p99_ms_by_node<'a>(
    samples: &'a [MetricSample],
    scope: &[Span],
    name: &str,
) -> BTreeMap<&'a str, Reading> {
    let mut p99s = BTreeMap::new();
    for (node, buckets) in counted_by_node(samples, scope, name) {
        if let Some(Reading::Between(low, high)) = quantile::of_buckets(&buckets, 0.99) {
            p99s.insert(node, Reading::Between(low * 1e3, high.map(|high| high * 1e3)));
        }
    }
    p99s
}

/// How many values each node counted over the scope.
pub(super) fn counts_by_node<'a>(
    samples: &'a [MetricSample],
    scope: &[Span],
    name: &str,
) -> BTreeMap<&'a str, u64> {
    let total = |buckets: Vec<(f64, u64)>| buckets.iter().map(|(_, count)| count).sum();
    let counted = counted_by_node(samples, scope, name);
    counted.into_iter().map(|(node, buckets)| (node, total(buckets))).collect()
}

/// What all nodes counted over the scope: buckets with the values in each alone.
pub(super) fn counted_together(
    samples: &[MetricSample],
    scope: &[Span],
    name: &str,
) -> Vec<(f64, u64)> {
    let mut together = Vec::new();
    for (_, buckets) in counted_by_node(samples, scope, name) {
        buckets.into_iter().for_each(|bucket| put(&mut together, bucket));
    }
    together.sort_by(|a, b| a.0.total_cmp(&b.0));
    together
}

/// Buckets with what was counted in each alone.
fn counted_by_node<'a>(
    samples: &'a [MetricSample],
    scope: &[Span],
    name: &str,
) -> BTreeMap<&'a str, Vec<(f64, u64)>> {
    let mut looks: BTreeMap<&str, Vec<(&MetricSample, &HistogramSample)>> = BTreeMap::new();
    for sample in samples {
        if let Some(histogram) = sample.histograms.get(name) {
            looks.entry(&sample.node).or_default().push((sample, histogram));
        }
    }
    let counted = |looks: Vec<(&MetricSample, &HistogramSample)>| {
        let mut total: Vec<(f64, u64)> = Vec::new();
        for span in scope {
            let inside: Vec<_> =
                looks.iter().filter(|(sample, _)| span.contains(sample.t_ns)).collect();
            let mut base: Option<&HistogramSample> = None;
            for (index, (sample, histogram)) in inside.iter().enumerate() {
                let restarted = index > 0 && inside[index - 1].0.start != sample.start;
                if index == 0 {
                    base = Some(histogram);
                } else if restarted {
                    base = None;
                }
                let last_of_start =
                    inside.get(index + 1).is_none_or(|(next, _)| next.start != sample.start);
                if last_of_start {
                    add(&mut total, histogram, base);
                }
            }
        }
        total
    };
    looks
        .into_iter()
        .map(|(node, looks)| (node, counted(looks)))
        .filter(|(_, buckets)| buckets.iter().any(|(_, count)| *count > 0))
        .collect()
}

/// Adds what `histogram` counted since `base`, bucket by bucket.
fn add(total: &mut Vec<(f64, u64)>, histogram: &HistogramSample, base: Option<&HistogramSample>) {
    let before = |bound: f64| {
        let base = base.and_then(|base| base.buckets.iter().find(|bucket| bucket.0 == bound));
        base.map_or(0, |bucket| bucket.1)
    };
    let mut cumulative_below = 0;
    for &(bound, cumulative) in &histogram.buckets {
        let since = cumulative.saturating_sub(before(bound));
        let alone = since.saturating_sub(cumulative_below);
        cumulative_below = since;
        put(total, (bound, alone));
    }
    total.sort_by(|a, b| a.0.total_cmp(&b.0));
}

fn put(total: &mut Vec<(f64, u64)>, (bound, count): (f64, u64)) {
    match total.iter_mut().find(|bucket| bucket.0 == bound) {
        Some(bucket) => bucket.1 += count,
        None => total.push((bound, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{S, histogram, sample};

    fn look(second: i64, start: u32, counts: [u64; 4]) -> MetricSample {
        let mut sample = sample("n1", second * S);
        sample.start = start;
        sample.histograms.insert("fsync".into(), histogram(counts));
        sample
    }

    fn p99(samples: &[MetricSample], scope: &[Span]) -> Option<Reading> {
        p99_ms_by_node(samples, scope, "fsync").get("n1").copied()
    }

    const TEN: Span = Span { start_ns: 0, end_ns: 10 * S };

    #[test]
    fn only_what_was_counted_inside_is_in() {
        // Slow before and after the span, fast inside.
        let samples = [
            look(-1, 0, [0, 0, 0, 500]),
            look(0, 0, [0, 0, 0, 900]),
            look(10, 0, [1000, 0, 0, 900]),
            look(11, 0, [1000, 0, 0, 9000]),
        ];
        assert_eq!(p99(&samples, &[TEN]), Some(Reading::Between(0.0, Some(10.0))));
        assert_eq!(counts_by_node(&samples, &[TEN], "fsync")["n1"], 1000);
    }

    #[test]
    fn a_restart_inside_counts_from_zero() {
        let samples = [
            look(0, 0, [100, 0, 0, 0]),
            look(4, 0, [150, 0, 0, 0]),
            look(6, 1, [0, 0, 30, 0]),
            look(9, 1, [0, 0, 50, 0]),
        ];
        assert_eq!(counts_by_node(&samples, &[TEN], "fsync")["n1"], 100);
        assert_eq!(p99(&samples, &[TEN]), Some(Reading::Between(50.0, Some(100.0))));
    }

    #[test]
    fn spans_add_up_and_the_gap_between_them_stays_out() {
        let scope = [Span { start_ns: 0, end_ns: 2 * S }, Span { start_ns: 8 * S, end_ns: 10 * S }];
        let samples = [
            look(0, 0, [0; 4]),
            look(2, 0, [10, 0, 0, 0]),
            look(8, 0, [10, 0, 0, 700]),
            look(10, 0, [20, 0, 0, 700]),
        ];
        assert_eq!(counts_by_node(&samples, &scope, "fsync")["n1"], 20);
        assert_eq!(p99(&samples, &scope), Some(Reading::Between(0.0, Some(10.0))));
    }

    #[test]
    fn above_the_last_bound_has_no_upper_bound_and_nothing_has_no_p99() {
        let samples = [look(0, 0, [0; 4]), look(9, 0, [0, 0, 0, 5])];
        assert_eq!(p99(&samples, &[TEN]), Some(Reading::Between(100.0, None)));
        assert_eq!(p99(&samples[..1], &[TEN]), None);
        assert_eq!(p99_ms_by_node(&samples, &[TEN], "other").len(), 0);
    }
}
