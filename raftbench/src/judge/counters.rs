//! How much a server's counter grew inside a scope.
//!
//! Invariant: only growth between two looks at the same start of a node, both inside the same span
//! of the scope, is counted: nothing leaks in from a fault window, and a counter that began anew
//! is never read as growth. Nothing is extrapolated.

use std::collections::BTreeMap;

use super::scope::Span;
use crate::evidence::MetricSample;

/// A minute, in which the dashboard counts.
pub(super) const MINUTE_NS: i64 = 60_000_000_000;

/// The largest growth of any node's counter in any `window_ns` of the scope; in a shorter scope,
/// the growth itself. `None` where no node was looked at twice.
pub(super) fn largest_growth(
    samples: &[MetricSample],
    scope: &[Span],
    window_ns: i64,
    counter: impl Fn(&MetricSample) -> Option<f64>,
) -> Option<f64> {
    let mut by_node: BTreeMap<&str, Vec<(i64, u32, f64)>> = BTreeMap::new();
    for sample in samples {
        if let Some(value) = counter(sample) {
            by_node.entry(&sample.node).or_default().push((sample.t_ns, sample.start, value));
        }
    }
    let largest = by_node.values().filter_map(|series| {
        let grown = grown_inside(series, scope);
        (!grown.is_empty()).then(|| largest_in_window(&grown, window_ns))
    });
    largest.max_by(f64::total_cmp)
}

/// The same for a value that all nodes share and that survives restarts, such as the term: the
/// highest of all nodes so far.
pub(super) fn largest_shared_growth(
    samples: &[MetricSample],
    scope: &[Span],
    window_ns: i64,
    value: impl Fn(&MetricSample) -> Option<f64>,
) -> Option<f64> {
    let mut highest = f64::MIN;
    let mut series = Vec::new();
    for sample in samples {
        if let Some(value) = value(sample) {
            highest = highest.max(value);
            series.push((sample.t_ns, 0, highest));
        }
    }
    let grown = grown_inside(&series, scope);
    (!grown.is_empty()).then(|| largest_in_window(&grown, window_ns))
}

/// From one look to the next, inside the scope: when, until when, by how much.
fn grown_inside(series: &[(i64, u32, f64)], scope: &[Span]) -> Vec<(i64, i64, f64)> {
    let inside = |from_ns: i64, to_ns: i64| {
        scope.iter().any(|span| span.contains(from_ns) && span.contains(to_ns))
    };
    series
        .windows(2)
        .filter(|pair| pair[0].1 == pair[1].1 && inside(pair[0].0, pair[1].0))
        .map(|pair| (pair[0].0, pair[1].0, (pair[1].2 - pair[0].2).max(0.0)))
        .collect()
}

fn largest_in_window(grown: &[(i64, i64, f64)], window_ns: i64) -> f64 {
    let (mut first, mut sum, mut largest) = (0, 0.0, 0.0_f64);
    for (_, to_ns, growth) in grown {
        sum += growth;
        // What may have happened longer ago than the window may not be added to this.
        while to_ns - grown[first].0 > window_ns && grown[first].1 < *to_ns {
            sum -= grown[first].2;
            first += 1;
        }
        largest = largest.max(sum);
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{S, sample};

    fn counted(looks: &[(&str, i64, u32, f64)]) -> Vec<MetricSample> {
        let look = |&(node, second, start, value): &(&str, i64, u32, f64)| {
            let mut sample = sample(node, second * S);
            sample.start = start;
            sample.values.insert("changes".into(), value);
            sample
        };
        looks.iter().map(look).collect()
    }

    fn growth(samples: &[MetricSample], scope: &[Span]) -> Option<f64> {
        largest_growth(samples, scope, MINUTE_NS, |sample| sample.values.get("changes").copied())
    }

    const WHOLE: Span = Span { start_ns: 0, end_ns: 200 * S };

    #[test]
    fn a_short_scope_gives_its_own_growth_and_no_rate() {
        let samples = counted(&[("n1", 0, 0, 1.0), ("n1", 10, 0, 3.0)]);
        assert_eq!(growth(&samples, &[Span { start_ns: 0, end_ns: 10 * S }]), Some(2.0));
    }

    #[test]
    fn only_a_minute_at_a_time_is_added_up() {
        let looks: Vec<_> = (0..=20).map(|step| ("n1", step * 10, 0, step as f64)).collect();
        assert_eq!(growth(&counted(&looks), &[WHOLE]), Some(6.0));
    }

    #[test]
    fn a_restart_is_no_growth_and_no_loss() {
        let looks = [("n1", 0, 0, 7.0), ("n1", 5, 0, 8.0), ("n1", 10, 1, 1.0), ("n1", 15, 1, 2.0)];
        assert_eq!(growth(&counted(&looks), &[WHOLE]), Some(2.0));
    }

    #[test]
    fn growth_inside_or_across_the_edge_of_a_fault_window_stays_out() {
        let scope =
            [Span { start_ns: 0, end_ns: 10 * S }, Span { start_ns: 20 * S, end_ns: 30 * S }];
        let looks = [
            ("n1", 8, 0, 1.0),
            ("n1", 12, 0, 2.0),
            ("n1", 18, 0, 4.0),
            ("n1", 22, 0, 5.0),
            ("n1", 28, 0, 5.0),
        ];
        assert_eq!(growth(&counted(&looks), &scope), Some(0.0));
        assert_eq!(growth(&counted(&looks), &[WHOLE]), Some(4.0));
    }

    #[test]
    fn the_worst_node_counts_and_nobody_is_no_data() {
        let looks = [("n1", 0, 0, 1.0), ("n2", 0, 0, 1.0), ("n1", 9, 0, 1.0), ("n2", 9, 0, 4.0)];
        assert_eq!(growth(&counted(&looks), &[WHOLE]), Some(3.0));
        assert_eq!(growth(&counted(&looks[..2]), &[WHOLE]), None);
        assert_eq!(growth(&[], &[WHOLE]), None);
    }

    #[test]
    fn a_shared_value_is_the_highest_of_all() {
        let looks = [("n1", 0, 0, 5.0), ("n2", 1, 0, 4.0), ("n1", 2, 1, 4.0), ("n2", 3, 0, 7.0)];
        let samples = counted(&looks);
        let value = |sample: &MetricSample| sample.values.get("changes").copied();
        assert_eq!(largest_shared_growth(&samples, &[WHOLE], MINUTE_NS, value), Some(2.0));
    }
}
