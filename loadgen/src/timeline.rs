//! The time that the engine lives in: real, or virtual for tests.
//!
//! Invariant: the engine asks only a [`Timeline`] for the time, so the code that records a run is
//! the code that the virtual clock tests.
//!
//! Real waits end on a timerfd with an absolute deadline in the worker's own epoll set. Tokio's
//! timer counts milliseconds; a pacing thread would add a thread hop to every send; a timerfd is
//! exact to the kernel's high-resolution timer (no slack), spins nowhere, and wakes the very
//! thread that sends.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::net::unix::pipe;

use crate::clock::RunClock;

/// Tells the time on the run's clock, and waits for a time on it.
pub(crate) trait Timeline: Clone + 'static {
    /// Nanoseconds since time zero.
    fn now_ns(&self) -> i64;

    /// Returns at `at_ns` or as soon after as can be. One waiter at a time.
    async fn sleep_until(&self, at_ns: i64);

    /// The same for many waiters, to tokio's millisecond.
    async fn sleep_coarsely_until(&self, at_ns: i64) {
        let wait_ns = at_ns.saturating_sub(self.now_ns()).max(0);
        tokio::time::sleep(Duration::from_nanos(wait_ns as u64)).await;
    }
}

/// Real time.
#[derive(Clone)]
pub(crate) struct RealTime {
    clock: RunClock,
    /// The kernel's monotonic clock at time zero, in ns.
    zero_monotonic_ns: i64,
    timer: Rc<TimerFd>,
    /// The same timer, which becomes readable when it expires, as if it were a pipe. (A pipe's end is the one
    /// reader that tokio safely makes of any descriptor handed to it.)
    expiries: Rc<pipe::Receiver>,
}

impl RealTime {
    /// Must be made on the runtime that will wait on it.
    pub(crate) fn new(clock: RunClock) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let expiries =
            pipe::Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        let zero_monotonic_ns = monotonic_ns_at_zero(clock)?;
        Ok(Self { clock, zero_monotonic_ns, timer: Rc::new(timer), expiries: Rc::new(expiries) })
    }
}

impl Timeline for RealTime {
    fn now_ns(&self) -> i64 {
        self.clock.now_ns()
    }

    async fn sleep_until(&self, at_ns: i64) {
        let deadline_ns = (self.zero_monotonic_ns + at_ns).max(1);
        let deadline = TimeSpec::from(Duration::from_nanos(deadline_ns as u64));
        let expiry = Expiration::OneShot(deadline);
        let armed = self.timer.set(expiry, TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_ok();
        // Arming forgets an earlier expiry, but tokio still takes the timer for readable: a read
        // that finds nothing tells it otherwise. The expiry itself is left unread.
        while armed && self.expiries.readable().await.is_ok() {
            if self.now_ns() >= at_ns {
                return;
            }
            let _ = self.expiries.try_read(&mut [0; 8]);
        }
        self.sleep_coarsely_until(at_ns).await;
    }
}

/// `Instant` is the kernel's monotonic clock but does not show it: read both, and keep the pair
/// read closest together.
fn monotonic_ns_at_zero(clock: RunClock) -> io::Result<i64> {
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..8 {
        let before = Instant::now();
        let kernel = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let apart = before.elapsed();
        let kernel_ns = kernel.tv_sec() * 1_000_000_000 + kernel.tv_nsec();
        let zero_ns = kernel_ns - clock.ns_at(before + apart / 2);
        if best.is_none_or(|(closest, _)| apart < closest) {
            best = Some((apart, zero_ns));
        }
    }
    Ok(best.map_or(0, |(_, zero_ns)| zero_ns))
}

/// Tokio's paused clock: waits take no time, and end at whole milliseconds.
#[derive(Clone)]
pub(crate) struct VirtualTime {
    start: tokio::time::Instant,
    start_ns: i64,
}

impl VirtualTime {
    /// Now is `start_ns` on the run's clock. Must be made on a paused runtime.
    pub(crate) fn starting_at(start_ns: i64) -> Self {
        Self { start: tokio::time::Instant::now(), start_ns }
    }
}

impl Timeline for VirtualTime {
    fn now_ns(&self) -> i64 {
        self.start_ns + self.start.elapsed().as_nanos() as i64
    }

    async fn sleep_until(&self, at_ns: i64) {
        self.sleep_coarsely_until(at_ns).await;
    }
}
