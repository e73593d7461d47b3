//! Decides many keys on all cores, within one limit.
//!
//! Invariant: a hard key costs the others no more than its first look. Every key gets one; those
//! that were not decided are taken up again, and share what is left of the time.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::limits::{Budget, CheckProgress, Exhausted, Limits};
use super::prepare::Step;
use super::records::Record;
use super::search::{Decision, decide};

/// Of the time limit, a first look may take one part in so many,
const FIRST_LOOK_PARTS: u32 = 20;
/// and no longer than this.
const LONGEST_FIRST_LOOK: Duration = Duration::from_millis(500);
/// Fewer operations than this are not worth a thread.
const OPERATIONS_PER_THREAD: usize = 20_000;

/// What became of each key, in the order given.
pub(super) fn decide_all(
    keys: &[&[Record]],
    limits: &Limits,
    progress: &CheckProgress,
) -> Vec<Decision> {
    progress.begin(keys.len());
    let begun = Instant::now();
    let end = begun.checked_add(limits.time).unwrap_or(begun + Duration::from_secs(1 << 30));
    let operations: usize = keys.iter().map(|records| records.len()).sum();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.min(operations / OPERATIONS_PER_THREAD).max(1);
    let pass = Pass { keys, progress, threads, memory_bytes: limits.memory_bytes / threads };

    // The largest first, so that no thread is left with one alone at the end.
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|key| std::cmp::Reverse(keys[*key].len()));
    let look = (limits.time / FIRST_LOOK_PARTS).min(LONGEST_FIRST_LOOK);
    let mut decisions = vec![Decision::Ordered; keys.len()];
    for (key, decision) in pass.run(&order, |_| Instant::now() + look) {
        decisions[key] = decision;
    }
    let late = Decision::Exhausted(Exhausted::Time);
    let hard: Vec<usize> = order.into_iter().filter(|key| decisions[*key] == late).collect();
    let share = |left: usize| {
        let rounds = left.div_ceil(threads).max(1) as u32;
        Instant::now() + end.saturating_duration_since(Instant::now()) / rounds
    };
    for (key, decision) in pass.run(&hard, share) {
        decisions[key] = decision;
    }
    decisions
}

struct Pass<'a> {
    keys: &'a [&'a [Record]],
    progress: &'a CheckProgress,
    threads: usize,
    /// For each thread.
    memory_bytes: usize,
}

impl Pass<'_> {
    /// Decides these keys. `deadline` is asked when a key's turn comes, with the number of keys that
    /// are left, this one among them.
    fn run(
        &self,
        keys: &[usize],
        deadline: impl Fn(usize) -> Instant + Sync,
    ) -> Vec<(usize, Decision)> {
        let next = AtomicUsize::new(0);
        let decided = Mutex::new(Vec::with_capacity(keys.len()));
        let work = || {
            let mut own = Vec::new();
            loop {
                let turn = next.fetch_add(1, Relaxed);
                let Some(key) = keys.get(turn) else { break };
                let steps: Vec<Step> = self.keys[*key].iter().map(Step::of).collect();
                let budget = Budget::new(deadline(keys.len() - turn), self.memory_bytes);
                let decision = decide(&steps, budget);
                if decision != Decision::Exhausted(Exhausted::Time) {
                    self.progress.count_decided();
                }
                own.push((*key, decision));
            }
            decided.lock().expect("no thread panicked with it").extend(own);
        };
        thread::scope(|scope| {
            (1..self.threads.min(keys.len())).for_each(|_| {
                scope.spawn(work);
            });
            work();
        });
        decided.into_inner().expect("no thread panicked with it")
    }
}
