//! Gaps: the longest time in which no client got an answer, at the scale of milliseconds.
//!
//! An outage asks who was late; an orderly hand-over makes nobody late, and still holds writes up
//! for a moment. A gap is the time from one success of a linearizable operation to the next one, on
//! the axis of completions. Where there was no fault gaps are not 0 either (clients send so many a
//! second, and a disk hesitates), so every run shows those of its quiet half seconds beside them.

use history::Outcome;
use loadgen::record::OpRecord;

use super::quantile::nearest_rank;
use super::scope::Span;
use super::summary::Spread;

/// How far a fault that is over at once is looked after, and what it is held against.
const LEAST_WINDOW_NS: i64 = 500_000_000;

/// When linearizable operations succeeded.
pub(super) struct Gaps {
    completed_ns: Vec<i64>,
    measured: Span,
}

impl Gaps {
    /// Of the measured phase.
    pub(super) fn new(ops: &[OpRecord], measured: Span) -> Self {
        let ok = ops.iter().filter(|op| op.linearizable && op.outcome == Outcome::Ok);
        let mut completed_ns: Vec<i64> = ok.filter_map(|op| op.completed_ns).collect();
        completed_ns.sort_unstable();
        Self { completed_ns, measured }
    }

    /// Over which time a fault's gap is looked for: its window, but half a second at least, and until
    /// the next fault comes.
    pub(super) fn window(&self, fault: Span, next_injected_ns: i64) -> Span {
        let end_ns = fault.end_ns.max(fault.start_ns + LEAST_WINDOW_NS);
        let end_ns = end_ns.min(next_injected_ns).min(self.measured.end_ns);
        Span { start_ns: fault.start_ns, end_ns: end_ns.max(fault.start_ns) }
    }

    /// The longest gap that reaches into `span`, whole; where no success follows it, it ends with
    /// the phase. `None` without any success before it.
    pub(super) fn longest_ns(&self, span: Span) -> Option<i64> {
        let first = self.completed_ns.partition_point(|at| *at <= span.start_ns).checked_sub(1)?;
        let after = self.completed_ns.partition_point(|at| *at < span.end_ns);
        let inside = &self.completed_ns[first..after];
        let within = inside.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Some(within.max(self.next_ns(span.end_ns) - inside.last()?))
    }

    /// The first success at or after `t_ns`; else the end of the phase.
    fn next_ns(&self, t_ns: i64) -> i64 {
        let after = self.completed_ns.partition_point(|at| *at < t_ns);
        self.completed_ns.get(after).copied().unwrap_or(self.measured.end_ns)
    }

    /// Those of each whole half second of `quiet` spans, but for one that goes on when the span is
    /// over: that is the fault's.
    pub(super) fn of_quiet(&self, quiet: &[Span]) -> Option<Spread> {
        let halves = quiet.iter().flat_map(|span| {
            (span.start_ns..)
                .step_by(LEAST_WINDOW_NS as usize)
                .map(|start_ns| Span { start_ns, end_ns: start_ns + LEAST_WINDOW_NS })
                .take_while(|half| half.end_ns <= span.end_ns)
                .filter(|half| self.next_ns(half.end_ns) <= span.end_ns)
        });
        spread_ms(halves.filter_map(|half| self.longest_ns(half)))
    }
}

/// How values in ns spread, in ms; `None` without values.
pub(super) fn spread_ms(values_ns: impl Iterator<Item = i64>) -> Option<Spread> {
    let mut values: Vec<i64> = values_ns.collect();
    let mut ms = |quantile| nearest_rank(&mut values, quantile).map(|ns| ns as f64 / 1e6);
    let (p50, p90, p99, max) = (ms(0.5)?, ms(0.9)?, ms(0.99)?, ms(1.0)?);
    Some(Spread { count: values.len() as u64, p50, p90, p99, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{MS, Op, S, op_every_ms};

    const MEASURED: Span = Span { start_ns: 0, end_ns: 10 * S };

    fn span(from_ms: i64, to_ms: i64) -> Span {
        Span { start_ns: from_ms * MS, end_ns: to_ms * MS }
    }

    /// An answer each ms, but none in [4,000, 4,030) ms: what was due then is answered at 4,030.
    fn held_up() -> Vec<OpRecord> {
        op_every_ms(0..10_000, |ms| match ms {
            3999..4030 => Op::Ok { took_ms: 4030 - ms },
            _ => Op::Ok { took_ms: 1 },
        })
    }

    #[test]
    fn a_gap_is_whole_whichever_part_of_it_the_span_has() {
        let ops = held_up();
        let gaps = Gaps::new(&ops, MEASURED);
        let ms = |from, to| gaps.longest_ns(span(from, to)).map(|ns| ns / MS);
        assert_eq!(ms(3990, 4990), Some(31));
        assert_eq!(ms(4010, 4020), Some(31));
        assert_eq!(ms(4030, 5000), Some(1));
        assert_eq!(ms(-5, 0), None, "before the first answer nobody knows");
        assert_eq!(Gaps::new(&ops[..5000], MEASURED).longest_ns(span(4900, 9000)), Some(5 * S));
    }

    #[test]
    fn a_faults_window_is_half_a_second_at_least_and_ends_where_the_next_one_begins() {
        let gaps = Gaps::new(&[], MEASURED);
        assert_eq!(gaps.window(span(1000, 1020), i64::MAX), span(1000, 1500));
        assert_eq!(gaps.window(span(1000, 5000), i64::MAX), span(1000, 5000));
        assert_eq!(gaps.window(span(1000, 1020), 1200 * MS), span(1000, 1200));
        assert_eq!(gaps.window(span(9700, 9800), i64::MAX), span(9700, 10_000));
    }

    #[test]
    fn the_quiet_half_seconds_are_the_control() {
        let ops = held_up();
        let gaps = Gaps::new(&ops, MEASURED);
        let quiet = gaps.of_quiet(&[span(1, 3500), span(5000, 10_000)]).expect("quiet");
        assert_eq!((quiet.count, quiet.max), (16, 1.0));
        let all = gaps.of_quiet(&[span(1, 10_000)]).expect("all");
        assert_eq!((all.count, all.p50, all.max), (19, 1.0, 31.0));
        assert_eq!(gaps.of_quiet(&[span(0, 499)]), None, "no whole half second");
        let before = gaps.of_quiet(&[span(1, 4010)]).expect("quiet up to a fault at 4,010");
        assert_eq!((before.count, before.max), (7, 1.0), "the gap of 4,000 is the fault's");
    }
}
