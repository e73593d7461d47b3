//! How far followers are behind, from Status calls.
//!
//! Invariant: a follower's index is compared only with two readings of the same leader in the same
//! term, one answered before it was asked and one asked after it answered. The leader's index at
//! that moment lies between the two, and so the lag is an interval. A member that our own fault
//! holds down is not behind: it is left out.

use super::scope::{Span, fault_windows};
use crate::evidence::{FaultRecord, MetricSample, NodeStatus};

/// The largest lag of a scope.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lag {
    /// Entries: at least, at most.
    pub(super) entries: (u64, u64),
    /// Time since the leader's log was as long as the follower's: at least, at most.
    pub(super) ms: (f64, f64),
    /// Who was (at most) furthest behind.
    pub(super) node: String,
}

/// Entries and milliseconds, each at least and at most.
type Bracketed = ((u64, u64), (f64, f64));

/// The largest lag of any follower in the scope; `None` where no reading could be bracketed.
pub(super) fn largest_lag(
    samples: &[MetricSample],
    faults: &[FaultRecord],
    measured: Span,
    scope: &[Span],
) -> Option<Lag> {
    let readings: Vec<(&str, NodeStatus)> = samples
        .iter()
        .filter_map(|sample| sample.status.map(|status| (sample.node.as_str(), status)))
        .collect();
    let mut leaders: Vec<(&str, NodeStatus)> =
        readings.iter().filter(|(_, status)| status.is_leader).copied().collect();
    leaders.sort_by_key(|(_, status)| status.answered_ns);
    let windows = fault_windows(faults, measured);
    let held_down = |node: &str, t_ns: i64| {
        faults.iter().zip(&windows).any(|(fault, window)| {
            fault.victims.iter().any(|victim| victim == node) && window.contains(t_ns)
        })
    };
    let mut largest: Option<Lag> = None;
    for (node, follower) in readings.iter().filter(|(_, status)| !status.is_leader) {
        let inside = scope
            .iter()
            .any(|span| span.contains(follower.asked_ns) && span.contains(follower.answered_ns));
        if !inside || held_down(node, follower.answered_ns) {
            continue;
        }
        let Some((entries, ms)) = bracketed(follower, &leaders) else { continue };
        let lag = largest.get_or_insert_with(|| Lag { entries, ms, node: (*node).to_owned() });
        if entries.1 > lag.entries.1 {
            lag.node = (*node).to_owned();
        }
        lag.entries = (lag.entries.0.max(entries.0), lag.entries.1.max(entries.1));
        lag.ms = (lag.ms.0.max(ms.0), lag.ms.1.max(ms.1));
    }
    largest
}

fn bracketed(follower: &NodeStatus, leaders: &[(&str, NodeStatus)]) -> Option<Bracketed> {
    let until_asked = leaders.partition_point(|(_, l)| l.answered_ns <= follower.asked_ns);
    let since_answered = leaders.partition_point(|(_, l)| l.asked_ns < follower.answered_ns);
    let (name, low) = *leaders.get(until_asked.checked_sub(1)?)?;
    let (name_after, high) = *leaders.get(since_answered)?;
    if name != name_after || low.term != high.term || low.term != follower.term {
        return None;
    }
    let index = follower.index;
    let entries = (low.index.saturating_sub(index), high.index.saturating_sub(index));
    // When the leader's log outgrew the follower's: after its last reading that had not, and
    // before the first that had.
    let (mut already, mut not_yet) = (None, None);
    for (_, leader) in
        leaders[..until_asked].iter().rev().take_while(|(n, l)| *n == name && l.term == low.term)
    {
        if leader.index <= index {
            not_yet = Some(leader.asked_ns);
            break;
        }
        already = Some(leader.answered_ns);
    }
    let ms = |from_ns: i64, to_ns: i64| (to_ns - from_ns).max(0) as f64 / 1e6;
    let at_least = already.map_or(0.0, |since_ns| ms(since_ns, follower.asked_ns));
    let at_most = match (entries.1, not_yet) {
        (0, _) => 0.0,
        (_, Some(since_ns)) => ms(since_ns, follower.answered_ns),
        // Behind since before the first reading: how long is not known.
        (_, None) => f64::INFINITY,
    };
    Some((entries, (at_least, at_most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{MS, S, sample, status};

    const MEASURED: Span = Span { start_ns: 0, end_ns: 60 * S };

    fn look(node: &str, t_ns: i64, term: u64, is_leader: bool, index: u64) -> MetricSample {
        MetricSample { status: status(t_ns, term, is_leader, index), ..sample(node, t_ns) }
    }

    fn lag(samples: &[MetricSample], faults: &[FaultRecord]) -> Option<Lag> {
        largest_lag(samples, faults, MEASURED, &[MEASURED])
    }

    #[test]
    fn a_follower_lies_between_two_readings_of_the_leader() {
        let samples = [
            look("n1", 1000 * MS, 2, true, 100),
            look("n2", 1010 * MS, 2, false, 90),
            look("n1", 1020 * MS, 2, true, 130),
        ];
        let lag = lag(&samples, &[]).expect("bracketed");
        assert_eq!((lag.entries, lag.node.as_str()), ((10, 40), "n2"));
    }

    #[test]
    fn time_behind_runs_from_when_the_leader_was_there() {
        let samples = [
            look("n1", 1000 * MS, 2, true, 100),
            look("n1", 1100 * MS, 2, true, 200),
            look("n1", 1200 * MS, 2, true, 300),
            look("n2", 1250 * MS, 2, false, 150),
            look("n1", 1300 * MS, 2, true, 400),
        ];
        let lag = lag(&samples, &[]).expect("bracketed");
        assert_eq!(lag.entries, (150, 250));
        // Outgrown after 999 ms (asked, had 100) and before 1,100 ms (answered, had 200).
        assert_eq!(lag.ms, (149.0, 251.0));
    }

    #[test]
    fn one_that_has_what_the_later_reading_has_is_not_behind() {
        let samples = [
            look("n1", 1000 * MS, 2, true, 100),
            look("n2", 1010 * MS, 2, false, 105),
            look("n1", 1020 * MS, 2, true, 105),
        ];
        let lag = lag(&samples, &[]).expect("bracketed");
        assert_eq!((lag.entries, lag.ms), ((0, 0), (0.0, 0.0)));
    }

    #[test]
    fn a_change_of_leader_or_a_missing_reading_brackets_nothing() {
        let samples = [
            look("n1", 1000 * MS, 2, true, 100),
            look("n2", 1010 * MS, 2, false, 50),
            look("n3", 1020 * MS, 3, true, 130),
        ];
        assert_eq!(lag(&samples, &[]), None);
        assert_eq!(lag(&samples[..2], &[]), None);
    }

    #[test]
    fn what_our_fault_holds_down_is_left_out() {
        let samples = [
            look("n1", 5000 * MS, 2, true, 9000),
            look("n2", 5010 * MS, 2, false, 10),
            look("n1", 5020 * MS, 2, true, 9000),
        ];
        let fault = FaultRecord {
            id: "f1".into(),
            kind: "pause".into(),
            target: "follower".into(),
            victims: vec!["n2".into()],
            injected_ns: 2 * S,
            term_at_injection: Some(2),
            leader_at_injection: Some("n1".into()),
            effective: true,
            proof: String::new(),
            healed_ns: Some(4 * S),
            recovered_ns: Some(6 * S),
        };
        assert_eq!(lag(&samples, std::slice::from_ref(&fault)), None);
        assert_eq!(lag(&samples, &[]).expect("bracketed").entries, (8990, 8990));
    }
}
