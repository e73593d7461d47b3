//! Time: spans, fault windows, and the two scopes that thresholds are judged over.
//!
//! Invariant: a fault window runs from injection until healed and caught up; a victim that has not
//! caught up [`RECOVERY_DEADLINE`] after the fault was healed no longer excuses anything.

use std::time::Duration;

use crate::evidence::FaultRecord;

/// How long after its healing a fault's window stays open for a victim that has not caught up.
pub(super) const RECOVERY_DEADLINE: Duration = Duration::from_secs(15);

/// From, to; in ns on the run's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First moment.
    pub(super) start_ns: i64,
    /// Last moment.
    pub(super) end_ns: i64,
}

impl Span {
    /// `None` where it would be empty.
    pub(super) fn new(start_ns: i64, end_ns: i64) -> Option<Self> {
        (start_ns < end_ns).then_some(Self { start_ns, end_ns })
    }

    /// Inside, or on a bound.
    pub(super) fn contains(&self, t_ns: i64) -> bool {
        (self.start_ns..=self.end_ns).contains(&t_ns)
    }

    /// Its length.
    pub(super) fn ms(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / 1e6
    }
}

/// The window of each fault, in their order, cut at the end of the measured phase.
pub(super) fn fault_windows(faults: &[FaultRecord], measured: Span) -> Vec<Span> {
    let window = |fault: &FaultRecord| {
        let deadline = fault.healed_ns.map(|healed| healed + RECOVERY_DEADLINE.as_nanos() as i64);
        let end_ns = match (fault.recovered_ns, deadline) {
            (Some(recovered), Some(deadline)) => recovered.min(deadline),
            (Some(recovered), None) => recovered,
            (None, Some(deadline)) => deadline,
            (None, None) => measured.end_ns,
        };
        let start_ns = fault.injected_ns.clamp(measured.start_ns, measured.end_ns);
        Span { start_ns, end_ns: end_ns.clamp(start_ns, measured.end_ns) }
    };
    faults.iter().map(window).collect()
}

/// `spans` as disjoint ones, in order.
pub(super) fn union(spans: &[Span]) -> Vec<Span> {
    let mut spans: Vec<Span> = spans.to_vec();
    spans.sort_by_key(|span| span.start_ns);
    let mut disjoint: Vec<Span> = Vec::new();
    for span in spans {
        match disjoint.last_mut() {
            Some(last) if span.start_ns <= last.end_ns => {
                last.end_ns = last.end_ns.max(span.end_ns);
            }
            _ => disjoint.push(span),
        }
    }
    disjoint
}

/// What of `whole` lies outside `windows`, in order.
pub(super) fn outside(whole: Span, windows: &[Span]) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut from_ns = whole.start_ns;
    for window in union(windows) {
        gaps.extend(Span::new(from_ns, window.start_ns.min(whole.end_ns)));
        from_ns = from_ns.max(window.end_ns);
    }
    gaps.extend(Span::new(from_ns, whole.end_ns));
    gaps
}

/// The length of disjoint spans together.
pub(super) fn total_ms(spans: &[Span]) -> f64 {
    // The sum of no floats is -0.
    spans.iter().map(Span::ms).fold(0.0, |sum, ms| sum + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const MEASURED: Span = Span { start_ns: 0, end_ns: 60 * S };

    fn fault(injected_s: i64, healed_s: Option<i64>, recovered_s: Option<i64>) -> FaultRecord {
        FaultRecord {
            id: "f1".into(),
            kind: "kill".into(),
            target: "leader".into(),
            victims: vec!["n1".into()],
            injected_ns: injected_s * S,
            term_at_injection: None,
            leader_at_injection: None,
            effective: true,
            proof: String::new(),
            healed_ns: healed_s.map(|s| s * S),
            recovered_ns: recovered_s.map(|s| s * S),
        }
    }

    fn seconds(spans: &[Span]) -> Vec<(i64, i64)> {
        spans.iter().map(|span| (span.start_ns / S, span.end_ns / S)).collect()
    }

    #[test]
    fn windows_end_when_caught_up_or_at_the_deadline_or_with_the_run() {
        let faults = [
            fault(5, Some(8), Some(9)),
            fault(20, Some(22), None),
            fault(40, Some(42), Some(59)),
            fault(50, None, None),
        ];
        let windows = fault_windows(&faults, MEASURED);
        assert_eq!(seconds(&windows), [(5, 9), (20, 37), (40, 57), (50, 60)]);
        assert_eq!(seconds(&outside(MEASURED, &windows)), [(0, 5), (9, 20), (37, 40)]);
        assert_eq!(total_ms(&union(&windows)), 41_000.0);
    }

    #[test]
    fn without_faults_everything_is_outside() {
        assert_eq!(outside(MEASURED, &[]), [MEASURED]);
        assert!(total_ms(&[]).is_sign_positive(), "nobody reads -0.000 ms");
    }
}
