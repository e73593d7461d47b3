//! Outages, as the clients saw them.
//!
//! The axis is intended send times, and only linearizable operations of the measured phase count.
//! An operation is late when it is not ok, or takes longer than `late_after`. An outage runs from a
//! late operation to the first operation in time from which on 90 % are in time for a whole
//! second (or, at the end of the phase, for what is left of it).
//!
//! A fault's first outage starts with its first late operation: one due after the injection, or
//! open at it and not late before it. Any other outage, of a fault or of none, starts where a late
//! operation begins a second in which less than 90 % are in time: single stragglers are none. A
//! fault's `outage_ms` is the longest that starts in its window.

use history::Outcome;
use loadgen::record::OpRecord;

use super::quantile::nearest_rank;
use super::scope::Span;

const SECOND_NS: i64 = 1_000_000_000;
/// However fast the baseline is, an operation below this is not late.
pub(super) const LEAST_LATE_AFTER_NS: i64 = 100_000_000;

/// The linearizable operations of the measured phase, each late or in time.
pub(super) struct Service<'a> {
    ops: Vec<&'a OpRecord>,
    /// How many of `ops[..i]` were in time.
    in_time_before: Vec<usize>,
    late_after_ns: i64,
    measured: Span,
}

/// One outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// Intended send times.
    pub(super) span: Span,
    /// The load ended before it did.
    pub(super) at_least: bool,
}

/// With fewer operations before the first fault, the warm-up joins the baseline.
const LEAST_BASELINE: usize = 1000;

/// The larger of 100 ms and 10 x the p99 of the baseline: the linearizable operations of the
/// measured phase that were settled before the first fault came at `fault_ns`. Those that it found
/// open do not count: their latency is the outage's.
pub(super) fn late_after_ns(ops: &[OpRecord], fault_ns: i64, timeout_ns: i64) -> i64 {
    let settled = |op: &&OpRecord| {
        op.linearizable && op.completed_ns.is_some_and(|completed| completed < fault_ns)
    };
    let before = &ops[..ops.partition_point(|op| op.intended_ns < fault_ns)];
    let measured = &before[before.partition_point(|op| op.intended_ns < 0)..];
    let baseline =
        if measured.iter().filter(settled).count() < LEAST_BASELINE { before } else { measured };
    let mut latencies: Vec<i64> =
        baseline.iter().filter(settled).map(|op| op.latency_ns(timeout_ns)).collect();
    LEAST_LATE_AFTER_NS.max(10 * nearest_rank(&mut latencies, 0.99).unwrap_or(0))
}

/// The same where there is no fault, and so no baseline: the median second's p99 stands in, which
/// a stall of the run itself does not move.
pub(super) fn late_after_without_baseline_ns(
    ops: &[OpRecord],
    measured: Span,
    timeout_ns: i64,
) -> i64 {
    let mut p99s: Vec<i64> = (measured.start_ns..measured.end_ns)
        .step_by(SECOND_NS as usize)
        .filter_map(|start_ns| {
            let second = Span { start_ns, end_ns: start_ns + SECOND_NS - 1 };
            p99_ns(ops, second, timeout_ns)
        })
        .collect();
    LEAST_LATE_AFTER_NS.max(10 * nearest_rank(&mut p99s, 0.5).unwrap_or(0))
}

fn p99_ns(ops: &[OpRecord], span: Span, timeout_ns: i64) -> Option<i64> {
    let first = ops.partition_point(|op| op.intended_ns < span.start_ns);
    let after = ops.partition_point(|op| op.intended_ns <= span.end_ns);
    let linearizable = ops[first..after].iter().filter(|op| op.linearizable);
    let mut latencies: Vec<i64> = linearizable.map(|op| op.latency_ns(timeout_ns)).collect();
    nearest_rank(&mut latencies, 0.99)
}

impl<'a> Service<'a> {
    /// `ops` in order of intended send times.
    pub(super) fn new(
        ops: &'a [OpRecord],
        measured: Span,
        late_after_ns: i64,
        timeout_ns: i64,
    ) -> Self {
        let due = |op: &&OpRecord| {
            op.linearizable && (measured.start_ns..measured.end_ns).contains(&op.intended_ns)
        };
        let ops: Vec<&OpRecord> = ops.iter().filter(due).collect();
        let mut in_time_before = Vec::with_capacity(ops.len() + 1);
        let mut in_time = 0;
        in_time_before.push(0);
        for op in &ops {
            in_time += usize::from(!is_late(op, late_after_ns, timeout_ns));
            in_time_before.push(in_time);
        }
        Self { ops, in_time_before, late_after_ns, measured }
    }

    /// Whether any operation was due in `window`.
    pub(super) fn sees(&self, window: Span) -> bool {
        self.ops.iter().any(|op| window.contains(op.intended_ns))
    }

    /// What counts as late.
    pub(super) fn late_after_ns(&self) -> i64 {
        self.late_after_ns
    }

    /// Every outage of the phase, whatever caused it.
    pub(super) fn outages(&self) -> Vec<Outage> {
        let mut outages = Vec::new();
        self.add_outages(&mut outages, 0, self.ops.len());
        outages
    }

    /// Those of a fault injected at the start of `window`.
    pub(super) fn outages_of(&self, window: Span) -> Vec<Outage> {
        // What was due longer ago than this and is still open was late before the fault came.
        let earliest_ns = window.start_ns - self.late_after_ns;
        let from = self.ops.partition_point(|op| op.intended_ns < earliest_ns);
        let until = self.ops.partition_point(|op| op.intended_ns < window.end_ns);
        let of_the_fault = |index: &usize| {
            let settled_ns = self.ops[*index].completed_ns;
            self.late(*index) && settled_ns.is_none_or(|settled| settled >= window.start_ns)
        };
        let mut outages = Vec::new();
        if let Some(first) = (from..until).find(of_the_fault) {
            let after = self.add_outage(&mut outages, first);
            self.add_outages(&mut outages, after, until);
        }
        outages
    }

    /// Operations that did not end ok, of those due up to `until_ns` that an injection found open or
    /// that came after it. Not only those in outages: when leaders change in good order, some fail
    /// while their neighbours are in time.
    pub(super) fn lost(&self, injected_ns: i64, until_ns: i64) -> u64 {
        let earliest_ns = injected_ns - self.late_after_ns;
        let from = self.ops.partition_point(|op| op.intended_ns < earliest_ns);
        let until = self.ops.partition_point(|op| op.intended_ns < until_ns).max(from);
        let lost = self.ops[from..until].iter().filter(|op| {
            op.outcome != Outcome::Ok && op.completed_ns.is_none_or(|at| at >= injected_ns)
        });
        lost.count() as u64
    }

    /// From injection to the first success of an operation sent after it.
    pub(super) fn first_success_ns(&self, injected_ns: i64) -> Option<i64> {
        let sent_after = |op: &&&OpRecord| {
            op.outcome == Outcome::Ok
                && op.intended_ns >= injected_ns
                && op.sent_ns.is_some_and(|sent| sent >= injected_ns)
        };
        let completed = self.ops.iter().filter(sent_after).filter_map(|op| op.completed_ns);
        completed.min().map(|done| done - injected_ns)
    }

    /// Those that start in `ops[from..until]`.
    fn add_outages(&self, outages: &mut Vec<Outage>, from: usize, until: usize) {
        let mut index = from;
        while index < until {
            index = match self.late(index) && !self.mostly_in_time(index) {
                true => self.add_outage(outages, index),
                false => index + 1,
            };
        }
    }

    /// The one that starts with `ops[first]`; returns the operation that ended it.
    fn add_outage(&self, outages: &mut Vec<Outage>, first: usize) -> usize {
        let good = |index: &usize| !self.late(*index) && self.mostly_in_time(*index);
        let end = (first + 1..self.ops.len()).find(good);
        let after = end.unwrap_or(self.ops.len());
        outages.push(Outage {
            span: Span {
                start_ns: self.ops[first].intended_ns,
                end_ns: end.map_or(self.measured.end_ns, |end| self.ops[end].intended_ns),
            },
            at_least: end.is_none(),
        });
        after
    }

    fn late(&self, index: usize) -> bool {
        self.in_time_before[index] == self.in_time_before[index + 1]
    }

    /// 90 % of what is due in the second from here on.
    fn mostly_in_time(&self, index: usize) -> bool {
        let until_ns = self.ops[index].intended_ns + SECOND_NS;
        let after = self.ops.partition_point(|op| op.intended_ns < until_ns);
        let in_time = self.in_time_before[after] - self.in_time_before[index];
        in_time * 10 >= (after - index) * 9
    }
}

fn is_late(op: &OpRecord, late_after_ns: i64, timeout_ns: i64) -> bool {
    op.outcome != Outcome::Ok || op.latency_ns(timeout_ns) > late_after_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{MS, Op, op_every_ms};

    const MEASURED: Span = Span { start_ns: 0, end_ns: 10_000 * MS };
    const LATE: i64 = 100 * MS;
    const TIMEOUT: i64 = 5_000 * MS;

    fn service(ops: &[OpRecord]) -> Service<'_> {
        Service::new(ops, MEASURED, LATE, TIMEOUT)
    }

    /// 1,000/s for 10 s; everything due in [4 s, 5 s) is answered at 5 s.
    fn stalled() -> Vec<OpRecord> {
        op_every_ms(0..10_000, |ms| match ms {
            4000..5000 => Op::Ok { took_ms: 5001 - ms },
            _ => Op::Ok { took_ms: 1 },
        })
    }

    #[test]
    fn a_stall_of_one_second_is_an_outage_of_what_was_late() {
        let ops = stalled();
        // Due up to 4.9 s: waits of 1,001 down to 101 ms, which are late; from 4.901 s on in time.
        let outages = service(&ops).outages();
        let span = Span { start_ns: 4000 * MS, end_ns: 4901 * MS };
        assert_eq!(outages, [Outage { span, at_least: false }]);
        assert_eq!(
            service(&ops).outages_of(Span { start_ns: 4000 * MS, end_ns: 6000 * MS }),
            outages
        );
    }

    #[test]
    fn a_kill_counts_what_was_open_and_what_was_lost() {
        // Killed at 3 s: what was due since 2.99 s was open. All lost until 4.5 s.
        let ops = op_every_ms(0..10_000, |ms| match ms {
            2990..4500 => Op::Unknown,
            _ => Op::Ok { took_ms: 2 },
        });
        let window = Span { start_ns: 3000 * MS, end_ns: 8000 * MS };
        let outages = service(&ops).outages_of(window);
        assert_eq!(outages.len(), 1);
        assert_eq!(outages[0].span, Span { start_ns: 2990 * MS, end_ns: 4500 * MS });
        assert_eq!(service(&ops).lost(window.start_ns, window.end_ns), 1510);
        assert_eq!(service(&ops).first_success_ns(3000 * MS), Some(1502 * MS));
    }

    #[test]
    fn answers_on_their_way_at_the_kill_are_not_a_first_success() {
        let ops = op_every_ms(0..10_000, |ms| match ms {
            2990..3000 => Op::Ok { took_ms: 25 },
            3000..4000 => Op::Fail,
            _ => Op::Ok { took_ms: 1 },
        });
        assert_eq!(service(&ops).first_success_ns(3000 * MS), Some(1001 * MS));
    }

    #[test]
    fn an_outage_ends_only_when_nine_tenths_are_in_time_for_a_second() {
        // Two of three connections work from 3.5 s on; all from 5 s on.
        let ops = op_every_ms(0..10_000, |ms| match ms {
            3000..3500 => Op::Fail,
            3500..5000 if ms % 3 == 0 => Op::Fail,
            _ => Op::Ok { took_ms: 1 },
        });
        let outages = service(&ops).outages();
        assert_eq!(outages.len(), 1);
        let end_ms = outages[0].span.end_ns / MS;
        // A tenth of the second that follows may still be late: about 300 ms of one in three.
        assert!((4695..=4705).contains(&end_ms), "{end_ms}");
    }

    #[test]
    fn a_straggler_is_an_outage_only_where_a_fault_made_it() {
        let ops = op_every_ms(0..10_000, |ms| Op::Ok { took_ms: if ms == 5000 { 150 } else { 1 } });
        assert!(service(&ops).outages().is_empty());
        let of = |from_ms: i64, to_ms: i64| {
            service(&ops).outages_of(Span { start_ns: from_ms * MS, end_ns: to_ms * MS })
        };
        assert_eq!(of(4000, 8000)[0].span.ms(), 1.0);
        assert_eq!(of(5050, 8000)[0].span.ms(), 1.0, "open at the injection");
        assert!(of(5160, 8000).is_empty(), "settled before the injection");
        assert!(of(1000, 5000).is_empty(), "due after the window");
    }

    #[test]
    fn what_an_earlier_fault_left_open_is_not_this_ones() {
        let ops = op_every_ms(0..10_000, |ms| match ms {
            3000..4000 | 5000..5500 => Op::Unknown,
            _ => Op::Ok { took_ms: 1 },
        });
        let outages = service(&ops).outages_of(Span { start_ns: 5000 * MS, end_ns: 8000 * MS });
        assert_eq!(outages.len(), 1);
        assert_eq!(outages[0].span.ms(), 500.0);
        assert_eq!(service(&ops).lost(5000 * MS, 8000 * MS), 500);
    }

    #[test]
    fn one_that_fails_among_others_in_time_is_lost_without_an_outage() {
        let ops = op_every_ms(0..10_000, |ms| match ms {
            4995 | 5020 | 5040 | 7000 => Op::Unknown,
            _ => Op::Ok { took_ms: 1 },
        });
        assert_eq!(service(&ops).lost(5000 * MS, 6000 * MS), 3);
    }

    #[test]
    fn service_that_never_returns_is_out_at_least_to_the_end() {
        let ops = op_every_ms(0..10_000, |ms| match ms {
            8000.. => Op::Unknown,
            _ => Op::Ok { took_ms: 1 },
        });
        let outages = service(&ops).outages();
        assert_eq!(outages[0].span, Span { start_ns: 8000 * MS, end_ns: 10_000 * MS });
        assert!(outages[0].at_least);
        assert_eq!(service(&ops).first_success_ns(8000 * MS), None);
    }

    #[test]
    fn serializable_reads_and_the_warm_up_do_not_count() {
        let mut ops = op_every_ms(-2000..10_000, |ms| match ms {
            -1000..-500 | 3000..4000 => Op::Fail,
            _ => Op::Ok { took_ms: 1 },
        });
        for op in ops.iter_mut().filter(|op| op.intended_ns >= 0) {
            op.linearizable = op.outcome == Outcome::Ok;
        }
        assert!(service(&ops).outages().is_empty());
    }

    #[test]
    fn late_is_ten_times_the_baseline_but_never_below_a_tenth_of_a_second() {
        let fast = op_every_ms(0..1000, |_| Op::Ok { took_ms: 2 });
        let fault_ns = 1000 * MS;
        assert_eq!(late_after_ns(&fast, fault_ns, TIMEOUT), 100 * MS);
        let slow = op_every_ms(0..1000, |ms| Op::Ok { took_ms: if ms % 50 == 0 { 40 } else { 2 } });
        assert_eq!(late_after_ns(&slow, fault_ns, TIMEOUT), 400 * MS);
    }

    #[test]
    fn what_a_fault_finds_open_is_not_its_baseline() {
        // Killed at 100 ms: what was due within the last 5 ms waits for the new leader.
        let ops = op_every_ms(0..3000, |ms| match ms {
            95..1600 => Op::Ok { took_ms: 1600 - ms },
            _ => Op::Ok { took_ms: 1 },
        });
        assert_eq!(late_after_ns(&ops, 100 * MS, TIMEOUT), 100 * MS);
    }
}
