//! The dashboard: five metrics, each against its limit, in both scopes.
//!
//! Invariant: a limit inside the interval that was observed decides nothing (`no_data`); nothing
//! is guessed from a metric that the target does not have.

use history::Kind;

use super::counters::{MINUTE_NS, largest_growth, largest_shared_growth};
use super::histograms::p99_ms_by_node;
use super::lag::largest_lag;
use super::quantile::nearest_rank;
use super::scope::Span;
use super::summary::{Observation, Reading, ScopeName, Threshold, ThresholdVerdict};
use crate::evidence::{MetricSample, Observed};
use crate::plan::{METRICS, Plan, Target};

/// etcd has none.
const BENCH_NODE_COMMIT: &str = "commit_latency_seconds";

/// The names under which a target's servers show the dashboard's metrics.
pub(super) struct MetricNames {
    leader_changes: &'static str,
    wal_fsync: &'static str,
    /// `None`: the target offers none, and the client's view bounds it from above.
    commit: Option<&'static str>,
    /// Shown as it is, without a limit.
    also: Option<(&'static str, &'static str)>,
}

impl MetricNames {
    /// Of the plan's target; an external cluster speaks etcd's API and is read as etcd, unless it
    /// showed itself to be bench-node.
    pub(super) fn of(plan: &Plan, samples: &[MetricSample]) -> Self {
        let shown = |name: &str| samples.iter().any(|sample| sample.histograms.contains_key(name));
        match &plan.cluster.target {
            Target::External { .. } if shown(BENCH_NODE_COMMIT) => Self::bench_node(),
            Target::BenchNode => Self::bench_node(),
            Target::Etcd | Target::External { .. } => Self {
                leader_changes: "etcd_server_leader_changes_seen_total",
                wal_fsync: "etcd_disk_wal_fsync_duration_seconds",
                commit: None,
                also: Some((
                    "etcd_disk_backend_commit_duration_seconds",
                    "p99 of the commits of etcd's database, which are not Raft's",
                )),
            },
        }
    }

    fn bench_node() -> Self {
        Self {
            leader_changes: "leader_changes_total",
            wal_fsync: "wal_fsync_duration_seconds",
            commit: Some(BENCH_NODE_COMMIT),
            also: None,
        }
    }

    /// The histogram that counts the log's syncs.
    pub(super) fn wal_fsync(&self) -> &'static str {
        self.wal_fsync
    }

    /// The counter of leader changes.
    pub(super) fn leader_changes(&self) -> &'static str {
        self.leader_changes
    }
}

/// One scope, and what was observed in it.
pub(super) struct Scope<'a> {
    /// Which.
    pub(super) name: ScopeName,
    /// Disjoint, in order.
    pub(super) spans: &'a [Span],
    /// Outages that faults made, which may outlast their windows: a client whose connection was cut
    /// off waits for its own TCP then, and no server knows of it. Not for what servers measure.
    pub(super) excused: &'a [Span],
    /// The measured phase.
    pub(super) measured: Span,
}

/// The five thresholds over one scope.
pub(super) fn thresholds(plan: &Plan, observed: &Observed, scope: &Scope<'_>) -> Vec<Threshold> {
    let names = MetricNames::of(plan, &observed.samples);
    let limits = &plan.limits;
    let row = |metric: usize, unit: &str, limit: f64, seen: Option<Reading>, meaning: String| {
        Threshold {
            metric: METRICS[metric].into(),
            unit: unit.into(),
            limit,
            scope: scope.name,
            observed: seen,
            // Only the histograms' p99s lie in buckets.
            verdict: against(seen, limit, if unit == "ms" { Below::Open } else { Below::Closed }),
            meaning,
        }
    };
    let changes = largest_growth(&observed.samples, scope.spans, MINUTE_NS, |sample| {
        sample.values.get(names.leader_changes).copied()
    });
    let terms = largest_shared_growth(&observed.samples, scope.spans, MINUTE_NS, |sample| {
        sample.status.map(|status| status.term as f64)
    });
    let (fsync, fsync_node) =
        worst_p99_ms(observed, scope, names.wal_fsync, limits.wal_fsync_p99_ms);
    let (commit, commit_meaning) = commit_p99_ms(plan, observed, scope, &names);
    let (lag, lag_node) = lag(observed, scope);
    vec![
        row(
            0,
            "per 60 s",
            limits.leader_changes_per_minute,
            changes.map(Reading::Exact),
            "most in any 60 s; too many: the disk is slow, or the heartbeat too tight".into(),
        ),
        row(
            1,
            "ms",
            limits.wal_fsync_p99_ms,
            fsync,
            format!("p99 of the log's syncs, worst node{fsync_node}; too high: the disk is slow"),
        ),
        row(2, "ms", limits.commit_p99_ms, commit, commit_meaning),
        row(
            3,
            "entries",
            limits.follower_lag_entries as f64,
            lag,
            format!("most that a follower was behind{lag_node}; too many: it may need a snapshot"),
        ),
        row(
            4,
            "per 60 s",
            limits.term_growth_per_minute,
            terms.map(Reading::Exact),
            "most growth in any 60 s; too much: repeated elections, check the network and pre-vote"
                .into(),
        ),
    ]
}

/// What is shown without a limit.
pub(super) fn observations(
    plan: &Plan,
    observed: &Observed,
    scope: &Scope<'_>,
) -> Vec<Observation> {
    let mut rows = Vec::new();
    let mut row = |metric: &str, seen: Reading, meaning: &str| {
        rows.push(Observation {
            metric: metric.into(),
            unit: "ms".into(),
            scope: scope.name,
            observed: seen,
            meaning: meaning.into(),
        });
    };
    if let Some(lag) = largest_lag(&observed.samples, &observed.faults, scope.measured, scope.spans)
    {
        let high = lag.ms.1.is_finite().then_some(lag.ms.1);
        let seen = Reading::Between(lag.ms.0, high);
        row("follower_lag_ms", seen, "since when the leader had had what the follower had");
    }
    if let Some((name, meaning)) = MetricNames::of(plan, &observed.samples).also
        && let (Some(seen), _) = worst_p99_ms(observed, scope, name, f64::INFINITY)
    {
        row(name, seen, meaning);
    }
    rows
}

/// Whether an interval holds its lower bound: a histogram's bucket does not, a count does.
#[derive(Clone, Copy, PartialEq)]
enum Below {
    Open,
    Closed,
}

fn against(seen: Option<Reading>, limit: f64, below: Below) -> ThresholdVerdict {
    let (low, high) = match seen {
        None => return ThresholdVerdict::NoData,
        Some(Reading::Exact(value)) => (value, value),
        Some(Reading::Between(low, high)) => (low, high.unwrap_or(f64::INFINITY)),
    };
    if high <= limit {
        ThresholdVerdict::Pass
    } else if low > limit || (low == limit && below == Below::Open) {
        ThresholdVerdict::Fail
    } else {
        ThresholdVerdict::NoData
    }
}

/// The p99 of the node that decides: one that fails before one that may, and that before the
/// others; among equals the one with the higher bound.
fn worst_p99_ms(
    observed: &Observed,
    scope: &Scope<'_>,
    name: &str,
    limit: f64,
) -> (Option<Reading>, String) {
    let severity = |seen: &Reading| {
        let verdict = match against(Some(*seen), limit, Below::Open) {
            ThresholdVerdict::Pass => 0,
            ThresholdVerdict::NoData => 1,
            ThresholdVerdict::Fail => 2,
        };
        let high = match seen {
            Reading::Exact(value) => *value,
            Reading::Between(_, high) => high.unwrap_or(f64::INFINITY),
        };
        (verdict, high)
    };
    let p99s = p99_ms_by_node(&observed.samples, scope.spans, name);
    let worst = p99s.iter().max_by(|(_, a), (_, b)| {
        let (a, b) = (severity(a), severity(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    match worst {
        Some((node, seen)) => (Some(*seen), format!(" ({node})")),
        None => (None, String::new()),
    }
}

fn commit_p99_ms(
    plan: &Plan,
    observed: &Observed,
    scope: &Scope<'_>,
    names: &MetricNames,
) -> (Option<Reading>, String) {
    let advice = "too high: disk, network, or a follower that lags";
    if let Some(name) = names.commit {
        let (seen, node) = worst_p99_ms(observed, scope, name, plan.limits.commit_p99_ms);
        return (seen, format!("p99 from proposal to commit, worst node{node}; {advice}"));
    }
    // An outage that a fault left to the clients bounds nothing; it is told as that fault's. Other
    // puts that are not ok count as their timeout, so that this stays an upper bound whatever became
    // of them.
    let timeout_ns = plan.load.timeout.as_nanos() as i64;
    let mut times: Vec<i64> = observed
        .load
        .ops
        .iter()
        .filter(|op| op.kind == Kind::Put)
        .filter(|op| scope.spans.iter().any(|span| span.contains(op.intended_ns)))
        .filter(|op| !scope.excused.iter().any(|span| span.contains(op.intended_ns)))
        .filter_map(|op| {
            let took_ns =
                op.completed_ns.map_or(timeout_ns, |done| done - op.sent_ns.unwrap_or(done));
            let ok = op.outcome == history::Outcome::Ok;
            op.sent_ns.map(|_| if ok { took_ns } else { took_ns.max(timeout_ns) })
        })
        .collect();
    let p99 = nearest_rank(&mut times, 0.99).map(|ns| Reading::Between(0.0, Some(ns as f64 / 1e6)));
    let meaning = format!(
        "upper bound: the p99 of the clients' put service time, since the target offers no commit \
         latency; {advice}"
    );
    (p99, meaning)
}

fn lag(observed: &Observed, scope: &Scope<'_>) -> (Option<Reading>, String) {
    match largest_lag(&observed.samples, &observed.faults, scope.measured, scope.spans) {
        None => (None, String::new()),
        Some(lag) => {
            let (low, high) = (lag.entries.0 as f64, lag.entries.1 as f64);
            let seen =
                if low == high { Reading::Exact(low) } else { Reading::Between(low, Some(high)) };
            (Some(seen), format!(" ({})", lag.node))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_inside_the_interval_decides_nothing() {
        let bucket = |low, high| against(Some(Reading::Between(low, high)), 50.0, Below::Open);
        assert_eq!(bucket(10.0, Some(50.0)), ThresholdVerdict::Pass);
        assert_eq!(bucket(40.0, Some(60.0)), ThresholdVerdict::NoData);
        assert_eq!(bucket(50.0, Some(60.0)), ThresholdVerdict::Fail);
        assert_eq!(bucket(10.0, None), ThresholdVerdict::NoData);
        assert_eq!(bucket(60.0, None), ThresholdVerdict::Fail);
        let count =
            |low, high| against(Some(Reading::Between(low, Some(high))), 50.0, Below::Closed);
        assert_eq!(count(50.0, 60.0), ThresholdVerdict::NoData);
        assert_eq!(count(51.0, 60.0), ThresholdVerdict::Fail);
        let exact = |value| against(Some(Reading::Exact(value)), 1.0, Below::Closed);
        assert_eq!((exact(1.0), exact(2.0)), (ThresholdVerdict::Pass, ThresholdVerdict::Fail));
        assert_eq!(against(None, 1.0, Below::Open), ThresholdVerdict::NoData);
    }
}
