//! The steps of a write inside the cluster, from the servers' own histograms.
//!
//! Invariant: a write is counted by the member that proposed it, so the counts of all members add
//! up, whoever led when. A target that does not time a step has no row for it.
//!
//! Not seen: what a killed member had counted since it was last looked at.

use super::histograms::counted_together;
use super::quantile;
use super::scope::Span;
use super::summary::{Reading, WriteStep};
use crate::evidence::MetricSample;

/// Step, metric, what it is; in the order of a write.
const STEPS: [(&str, &str, &str); 6] = [
    ("queue", "write_queue_seconds", "arrival to proposal"),
    ("log", "write_log_seconds", "proposal to durable on the leader"),
    ("replicate", "write_replicate_seconds", "proposal to durable on enough followers"),
    ("commit", "commit_latency_seconds", "proposal to commit"),
    ("apply", "write_apply_seconds", "commit to the leader's store"),
    ("answer", "write_answer_seconds", "store to transport"),
];

/// Those of which something was counted in the measured phase; none unless the target times them
/// all.
pub(super) fn write_steps(samples: &[MetricSample], measured: Span) -> Vec<WriteStep> {
    let timed = |metric: &str| samples.iter().any(|sample| sample.histograms.contains_key(metric));
    if !STEPS.iter().all(|(_, metric, _)| timed(metric)) {
        return Vec::new();
    }
    let row = |(step, metric, meaning): (&str, &str, &str)| {
        let buckets = counted_together(samples, &[measured], metric);
        let ms = |quantile| {
            let Reading::Between(low, high) = quantile::of_buckets(&buckets, quantile)? else {
                return None;
            };
            Some(Reading::Between(low * 1e3, high.map(|high| high * 1e3)))
        };
        Some(WriteStep {
            step: step.into(),
            metric: metric.into(),
            meaning: meaning.into(),
            writes: buckets.iter().map(|(_, count)| count).sum(),
            p50_ms: ms(0.5)?,
            p99_ms: ms(0.99)?,
        })
    };
    STEPS.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{S, histogram, sample};

    const MEASURED: Span = Span { start_ns: 0, end_ns: 10 * S };

    fn look(node: &str, second: i64, metrics: &[&str], counts: [u64; 4]) -> MetricSample {
        let mut sample = sample(node, second * S);
        for metric in metrics {
            sample.histograms.insert((*metric).into(), histogram(counts));
        }
        sample
    }

    #[test]
    fn the_writes_of_every_leader_are_counted_once_and_those_before_not() {
        let all = STEPS.map(|(_, metric, _)| metric);
        let samples = [
            look("n1", 0, &all, [70, 0, 0, 0]),
            look("n2", 0, &all, [0; 4]),
            look("n1", 4, &all, [130, 0, 0, 0]),
            look("n2", 9, &all, [0, 38, 0, 2]),
        ];
        let steps = write_steps(&samples, MEASURED);
        assert_eq!(steps.len(), STEPS.len());
        for step in &steps {
            assert_eq!(step.writes, 100);
            assert_eq!(step.p50_ms, Reading::Between(0.0, Some(10.0)));
            assert_eq!(step.p99_ms, Reading::Between(100.0, None));
        }
    }

    #[test]
    fn a_target_that_does_not_time_them_has_none() {
        let samples = [
            look("n1", 0, &["commit_latency_seconds"], [0; 4]),
            look("n1", 9, &["commit_latency_seconds"], [9, 0, 0, 0]),
        ];
        assert_eq!(write_steps(&samples, MEASURED), []);
    }
}
