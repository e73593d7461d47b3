//! How long the steps of a write take, as far as this layer sees them.
//!
//! Invariant: each step is counted at most once for a write, and only for writes that this member
//! proposed and still leads: what a later leader makes of them is not its to time. All proposals of
//! one turn share a moment, and lie side by side in the log; so what waits for the disk
//! or for followers is kept by turn, not by write.

use std::collections::VecDeque;
use std::time::Duration;

use prometheus::local::LocalHistogram;
use raft::Index;

use crate::metrics::StepTimes;

/// The steps of one group's writes.
pub struct Steps {
    times: StepTimes,
    /// Not known to be durable here.
    unlogged: VecDeque<Proposed>,
    /// Not known to be with enough followers.
    unreplicated: VecDeque<Proposed>,
}

/// What one turn proposed, as far as it still waits.
#[derive(Clone, Copy)]
struct Proposed {
    next: Index,
    last: Index,
    at: Duration,
}

impl Steps {
    /// Into these histograms.
    pub(crate) fn new(times: StepTimes) -> Self {
        Self { times, unlogged: VecDeque::new(), unreplicated: VecDeque::new() }
    }

    /// That nobody looks at.
    pub fn unseen() -> Self {
        Self::new(StepTimes::unseen())
    }

    /// A command that came at `arrived` is proposed.
    pub(super) fn dequeued(&mut self, arrived: Duration, now: Duration) {
        self.times.queue.observe(seconds(arrived, now));
    }

    /// The entries from `first` to `last` were proposed in this turn.
    pub(super) fn proposed(&mut self, first: Index, last: Index, now: Duration) {
        let proposed = Proposed { next: first, last, at: now };
        self.unlogged.push_back(proposed);
        self.unreplicated.push_back(proposed);
    }

    /// This member's disk holds the log up to `index` since `at`.
    pub(super) fn logged(&mut self, index: Index, at: Duration) {
        settle(&mut self.unlogged, index, at, &self.times.log);
    }

    /// Followers enough hold the log up to `index`; this turn learnt it. `None`: there are none.
    pub(super) fn replicated(&mut self, index: Option<Index>, now: Duration) {
        match index {
            Some(index) => settle(&mut self.unreplicated, index, now, &self.times.replicate),
            None => self.unreplicated.clear(),
        }
    }

    pub(super) fn committed(&mut self, proposed_at: Duration, committed_at: Duration) {
        self.times.commit.observe(seconds(proposed_at, committed_at));
    }

    /// The store holds so many of this member's proposals more.
    pub(super) fn applied(&mut self, writes: usize, committed_at: Duration, applied_at: Duration) {
        let took = seconds(committed_at, applied_at);
        (0..writes).for_each(|_| self.times.apply.observe(took));
    }

    /// This member leads no more: whatever becomes of its proposals is not seen here.
    pub(super) fn forget(&mut self) {
        self.unlogged.clear();
        self.unreplicated.clear();
    }

    /// Shows at `/metrics` what was observed so far.
    pub(super) fn flush(&self) {
        self.times.flush();
    }
}

/// Counts and takes out what lies at or below `index`.
fn settle(waiting: &mut VecDeque<Proposed>, index: Index, at: Duration, times: &LocalHistogram) {
    while let Some(front) = waiting.front_mut()
        && front.next <= index
    {
        let took = seconds(front.at, at);
        let last = front.last.min(index);
        (front.next..=last).for_each(|_| times.observe(took));
        front.next = last + 1;
        if front.next > front.last {
            waiting.pop_front();
        }
    }
}

fn seconds(from: Duration, to: Duration) -> f64 {
    // The log's thread may stamp a write before the loop that asked for it has read its clock.
    to.saturating_sub(from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn each_write_is_counted_once_however_its_turn_is_split() {
        let metrics = Metrics::new();
        let mut steps = Steps::new(metrics.step_times());
        let start = Duration::from_secs(1);
        let after = |ms| start + Duration::from_millis(ms);
        steps.proposed(5, 8, start);
        steps.proposed(9, 9, after(10));
        steps.logged(4, after(1));
        steps.logged(6, after(2));
        steps.logged(6, after(3));
        steps.logged(9, after(14));
        assert_eq!(steps.times.log.get_sample_count(), 5);
        assert!((steps.times.log.get_sample_sum() - 0.036).abs() < 1e-9, "2 x 2, 2 x 14, 4 ms");
        assert!(steps.unlogged.is_empty());
        steps.replicated(Some(8), after(5));
        assert_eq!(steps.times.replicate.get_sample_count(), 4);
        steps.forget();
        steps.replicated(Some(9), after(6));
        assert_eq!(steps.times.replicate.get_sample_count(), 4, "another leads now");
    }

    #[test]
    fn alone_there_is_nothing_to_replicate() {
        let mut steps = Steps::new(Metrics::new().step_times());
        steps.proposed(1, 1, Duration::ZERO);
        steps.replicated(None, Duration::ZERO);
        assert!(steps.unreplicated.is_empty());
        assert_eq!(steps.times.replicate.get_sample_count(), 0);
    }
}
