//! Work that is to be done at its time, and work that may block.
//!
//! Invariant: one thread keeps the time of a disk; it never blocks, has no timer slack, and a
//! real-time priority where the user may give it one. A machine wakes a sleeper late all the same
//! (measured here: by some 50 us); so it learns by how much, and sleeps so much shorter.

use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::set_current_timer_slack;
use thread_priority::unix::{ScheduleParams, set_thread_priority_and_policy, thread_native_id};
use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

type Work = Box<dyn FnOnce() + Send>;

/// Threads that block on the host's disk at once.
const BLOCKING_THREADS: usize = 8;

/// Does work at its time.
pub(super) struct Timer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    ended: bool,
    last: u64,
    waiting: BinaryHeap<Due>,
}

struct Due {
    at: Instant,
    number: u64,
    work: Work,
}

impl Timer {
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let inside = shared.clone();
        std::thread::Builder::new().name("disk-timer".into()).spawn(move || inside.run())?;
        Ok(Self { shared })
    }

    /// Does `work` at `at`; at once where that is past.
    pub(super) fn at(&self, at: Instant, work: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        state.last += 1;
        let number = state.last;
        state.waiting.push(Due { at, number, work: Box::new(work) });
        self.shared.news.notify_one();
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.news.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        take_precedence();
        let mut state = self.lock();
        let mut lateness = Lateness::default();
        let mut slept_for = None;
        while !state.ended {
            let now = Instant::now();
            let next = state.waiting.peek().map(|due| due.at);
            if let (Some(at), Some(aim)) = (next, slept_for.take())
                && now >= aim
            {
                lateness.woke(now, at);
            }
            let next = next.map(|at| at.checked_sub(lateness.usual).unwrap_or(at));
            state = match next {
                Some(at) if at <= now => {
                    let due = state.waiting.pop();
                    drop(state);
                    if let Some(due) = due {
                        (due.work)();
                    }
                    self.lock()
                }
                Some(at) => {
                    slept_for = Some(at);
                    let waited = self.news.wait_timeout(state, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// By how much sleeps end late: a running median.
#[derive(Default)]
struct Lateness {
    usual: Duration,
}

/// What one sleep may change of it.
const LATENESS_STEP: Duration = Duration::from_micros(1);
/// Later than that is no habit of the machine's.
const MOST_LATENESS: Duration = Duration::from_micros(200);

impl Lateness {
    /// A sleep ended at `now` that should have ended at `at`, and was cut short by the usual.
    fn woke(&mut self, now: Instant, at: Instant) {
        self.usual = match now > at {
            true => (self.usual + LATENESS_STEP).min(MOST_LATENESS),
            false => self.usual.saturating_sub(LATENESS_STEP),
        };
    }
}

/// A turn before the nodes, with which the disk shares the machine.
pub(super) fn take_precedence() {
    set_current_timer_slack(NonZeroU64::new(1)).ok();
    let lowest = ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 });
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    // An ordinary user may not; what that costs shows in what is measured.
    set_thread_priority_and_policy(thread_native_id(), lowest, fifo).ok();
}

// The earliest is the greatest, for a heap that gives the greatest.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

/// Does work that may block, several at once.
pub(super) struct Blocking {
    work: Sender<Work>,
}

impl Blocking {
    pub(super) fn start() -> std::io::Result<Self> {
        let (work, orders) = channel::<Work>();
        let orders = Arc::new(Mutex::new(orders));
        for _ in 0..BLOCKING_THREADS {
            let orders = orders.clone();
            let run = move || {
                while let Some(work) = next(&orders) {
                    work();
                }
            };
            std::thread::Builder::new().name("disk-sync".into()).spawn(run)?;
        }
        Ok(Self { work })
    }

    pub(super) fn soon(&self, work: impl FnOnce() + Send + 'static) {
        // The threads live as long as this value.
        self.work.send(Box::new(work)).ok();
    }
}

fn next(orders: &Mutex<Receiver<Work>>) -> Option<Work> {
    orders.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_lateness_is_learnt_and_unlearnt() {
        let mut lateness = Lateness::default();
        let at = Instant::now();
        // Woken 50 us after the shortened sleep's end, again and again.
        let wake = |lateness: &mut Lateness, late: Duration| {
            let now = at - lateness.usual + late;
            lateness.woke(now, at);
        };
        (0..500).for_each(|_| wake(&mut lateness, Duration::from_micros(50)));
        assert!((49..=51).contains(&lateness.usual.as_micros()), "{:?}", lateness.usual);
        (0..500).for_each(|_| wake(&mut lateness, Duration::ZERO));
        assert!(lateness.usual.as_micros() <= 1, "{:?}", lateness.usual);
        (0..500).for_each(|_| wake(&mut lateness, Duration::from_millis(5)));
        assert_eq!(lateness.usual, MOST_LATENESS);
    }

    #[test]
    fn work_is_done_in_the_order_of_its_time() {
        let timer = Timer::start().expect("started");
        let (done, order) = channel();
        let now = Instant::now();
        for (number, ms) in [(0, 30), (1, 10), (2, 20), (3, 0)] {
            let done = done.clone();
            timer.at(now + Duration::from_millis(ms), move || done.send(number).expect("heard"));
        }
        let order: Vec<i32> = order.iter().take(4).collect();
        assert_eq!(order, [3, 1, 2, 0]);
    }
}
