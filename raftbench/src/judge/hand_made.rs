//! Records made by hand, with known answers. Tests only.

use history::{Kind, Outcome};
use loadgen::record::OpRecord;

use crate::evidence::{HistogramSample, MetricSample, NodeStatus};

pub(super) const MS: i64 = 1_000_000;
pub(super) const S: i64 = 1_000 * MS;

/// How an operation ends.
pub(super) enum Op {
    Ok { took_ms: i64 },
    Fail,
    Unknown,
}

/// A put for each ms of `range`.
pub(super) fn op_every_ms(
    range: std::ops::Range<i64>,
    outcome: impl Fn(i64) -> Op,
) -> Vec<OpRecord> {
    let record = |(sequence, ms): (usize, i64)| {
        let intended_ns = ms * MS;
        let (outcome, completed_ns) = match outcome(ms) {
            Op::Ok { took_ms } => (Outcome::Ok, Some(intended_ns + took_ms * MS)),
            Op::Fail => (Outcome::Fail, Some(intended_ns + MS)),
            Op::Unknown => (Outcome::Unknown, None),
        };
        OpRecord {
            sequence: sequence as u64,
            process: 0,
            kind: Kind::Put,
            linearizable: true,
            key: 0,
            node: 0,
            intended_ns,
            sent_ns: Some(intended_ns),
            completed_ns,
            outcome,
            read: None,
            revision: 0,
            error: None,
        }
    };
    range.enumerate().map(record).collect()
}

/// One look at a node, with nothing seen yet.
pub(super) fn sample(node: &str, t_ns: i64) -> MetricSample {
    MetricSample { t_ns, node: node.into(), ..MetricSample::default() }
}

/// Status: asked 1 ms before the answer.
pub(super) fn status(t_ns: i64, term: u64, is_leader: bool, index: u64) -> Option<NodeStatus> {
    let asked_ns = t_ns - MS;
    Some(NodeStatus { asked_ns, answered_ns: t_ns, term, is_leader, index, applied_index: index })
}

/// Counts of values in (0, 10], (10, 50], (50, 100], above 100 ms, since the node started.
pub(super) fn histogram(counts: [u64; 4]) -> HistogramSample {
    let mut seen = 0;
    let mut cumulative = |count: u64| {
        seen += count;
        seen
    };
    let bounds = [0.01, 0.05, 0.1, f64::MAX];
    let buckets: Vec<(f64, u64)> =
        bounds.into_iter().zip(counts).map(|(bound, count)| (bound, cumulative(count))).collect();
    HistogramSample { buckets, sum: 0.0, count: counts.iter().sum() }
}
