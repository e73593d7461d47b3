//! A thread that waits, and those that wake it up.
//!
//! Invariant: a wake-up is not lost: one that comes while nobody waits ends the next wait.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// For queues that wait for nothing but a wake-up.
#[derive(Debug, Default)]
pub(super) struct Wakeup {
    pending: Mutex<bool>,
    changed: Condvar,
}

impl Wakeup {
    /// Waits for a wake-up, and takes it.
    pub(super) fn wait(&self) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = self.changed.wait_while(pending, |pending| !*pending);
        *pending.unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Wakes up whoever waits here.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *pending, true) {
            self.changed.notify_one();
        }
    }
}
