//! Work that is to be done at its time, and work that may block.
//!
//! Invariant: one thread keeps the time of a disk; it never blocks, has no timer slack, and a
//! real-time priority where the user may give it one.

use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
        while !state.ended {
            let now = Instant::now();
            let next = state.waiting.peek().map(|due| due.at);
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
                    let waited = self.news.wait_timeout(state, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
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
