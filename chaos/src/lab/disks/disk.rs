//! One emulated disk: what is asked of it, and when it answers.
//!
//! A request is refused, or held, or served: then the volume says when it is done, the host does
//! what it must meanwhile, and the answer goes out at the later of the two.
//!
//! Invariant: a request is answered once, and what a sync makes durable is durable before its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};

use super::backing::Backing;
use super::breaker::Breaker;
use super::figures::{Figures, Meter};
use super::ledger::{Loss, Lost};
use super::pace::{Blocking, Timer};
use super::volume::{DiskSpec, Kind, Service, Slow, Volume};

/// What is wrong with a disk at present; the default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// Reads, syncs and writes past the page cache wait until this is over.
    pub stalled: bool,
    /// It is slower.
    pub slow: Option<Slow>,
    /// Every write, and everything that makes files, gets ENOSPC.
    pub full: bool,
    /// Every write gets EIO.
    pub write_error: bool,
    /// Every sync gets EIO, and makes nothing durable.
    pub sync_error: bool,
}

/// A disk that is served.
pub(super) struct Disk {
    pub(super) backing: Backing,
    spec: DiskSpec,
    seed: u64,
    began: Instant,
    state: Mutex<State>,
    timer: Timer,
    blocking: Blocking,
}

struct State {
    /// `None`: it answers as soon as the host can.
    volume: Option<Volume>,
    /// What the way from a user to here and back takes, which no volume's time includes.
    transit_ns: u64,
    trouble: Trouble,
    /// Counts the changes of trouble.
    epoch: u64,
    /// Counts losses of power.
    life: u64,
    /// Its power is gone: nothing is answered.
    off: bool,
    breaker: Option<Arc<Breaker>>,
    held: Vec<Held>,
    meter: Meter,
}

/// A request: what the host must do first, and the answer.
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// Done on a thread that may block.
    pub(super) host: Option<Box<dyn FnOnce() -> Result<()> + Send>>,
    pub(super) answer: Box<dyn FnOnce(Result<()>) + Send>,
}

struct Held {
    job: Job,
    arrived_ns: u64,
}

impl Disk {
    pub(super) fn new(backing: Backing, spec: DiskSpec, seed: u64) -> std::io::Result<Self> {
        let state = State {
            volume: None,
            transit_ns: 0,
            trouble: Trouble::default(),
            epoch: 0,
            life: 0,
            off: false,
            breaker: None,
            held: Vec::new(),
            meter: Meter::new(),
        };
        Ok(Self {
            backing,
            spec,
            seed,
            began: Instant::now(),
            state: Mutex::new(state),
            timer: Timer::start()?,
            blocking: Blocking::start()?,
        })
    }

    pub(super) fn spec(&self) -> &DiskSpec {
        &self.spec
    }

    /// From now on it takes its time; `transit_ns` is what its users wait besides. It begins anew.
    pub(super) fn take_its_time(&self, transit_ns: u64) {
        let mut state = self.lock();
        state.volume = Some(Volume::new(self.spec.clone(), self.seed));
        state.transit_ns = transit_ns;
        state.meter = Meter::new();
    }

    /// What is wrong from now on.
    pub(super) fn set(self: &Arc<Self>, trouble: Trouble) {
        let mut state = self.lock();
        state.trouble = trouble;
        state.epoch += 1;
        state.meter.condition_changed();
        if let Some(volume) = &mut state.volume {
            volume.set_slow(trouble.slow);
        }
        if trouble.stalled || state.off {
            return;
        }
        let held = std::mem::take(&mut state.held);
        drop(state);
        for Held { job, arrived_ns } in held {
            self.begin(job, arrived_ns);
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let now_ns = self.now_ns();
        let state = self.lock();
        let mut figures = state.meter.figures();
        figures.held = state.held.len() as u64;
        figures.burst_credits = state.volume.as_ref().and_then(|v| v.burst_credits(now_ns));
        figures
    }

    /// How often its power went and came back.
    pub(super) fn life(&self) -> u64 {
        self.lock().life
    }

    /// From now on nothing is answered, and nothing becomes durable, in this life.
    pub(super) fn power_off(&self, life: u64) {
        let mut state = self.lock();
        if state.life != life {
            return;
        }
        state.off = true;
        state.breaker = None;
    }

    pub(super) fn has_power(&self) -> bool {
        !self.lock().off
    }

    /// `breaker` may go off in the next sync.
    pub(super) fn arm(&self, breaker: Arc<Breaker>) {
        self.lock().breaker = Some(breaker);
    }

    /// Takes back what was not synced; nobody is served meanwhile. What was asked before is
    /// answered no more.
    pub(super) fn lose_power(&self, loss: Loss) -> Result<Lost> {
        let mut state = self.lock();
        state.life += 1;
        (state.off, state.breaker) = (false, None);
        state.meter.counts.in_flight = 0;
        let held = std::mem::take(&mut state.held);
        drop(state);
        drop(held);
        self.backing.lose_power(loss)
    }

    /// Refuses what needs room, where there is none; for what the page cache takes in, and names.
    pub(super) fn admit_cached(&self, needs_room: bool) -> Result<()> {
        let mut state = self.lock();
        if state.trouble.full && needs_room {
            state.meter.counts.refused_full += 1;
            return Err(Errno::NOSPC);
        }
        if state.trouble.write_error {
            state.meter.counts.refused_error += 1;
            return Err(Errno::IO);
        }
        Ok(())
    }

    /// Counts a write.
    pub(super) fn wrote(&self, bytes: u64) {
        let mut state = self.lock();
        state.meter.counts.writes += 1;
        state.meter.counts.written_bytes += bytes;
    }

    /// No block is free.
    pub(super) fn is_full(&self) -> bool {
        self.lock().trouble.full
    }

    /// Serves a request that reaches the volume.
    pub(super) fn serve(self: &Arc<Self>, job: Job) {
        let arrived_ns = self.now_ns();
        let mut state = self.lock();
        if job.kind == Kind::Sync && state.trouble.sync_error && !state.off {
            state.meter.counts.refused_error += 1;
            drop(state);
            (job.answer)(Err(Errno::IO));
            return;
        }
        state.meter.counts.in_flight += 1;
        if state.trouble.stalled || state.off {
            state.held.push(Held { job, arrived_ns });
            return;
        }
        drop(state);
        self.begin(job, arrived_ns);
    }

    fn begin(self: &Arc<Self>, job: Job, arrived_ns: u64) {
        let Job { kind, bytes, host, answer } = job;
        let mut state = self.lock();
        let now_ns = self.now_ns();
        let is_timed = state.volume.is_some();
        let service = match &mut state.volume {
            Some(volume) => volume.submit(now_ns, kind, bytes),
            None => Service { start_ns: now_ns, due_ns: now_ns },
        };
        let began = Began {
            kind,
            bytes,
            arrived_ns,
            start_ns: service.start_ns,
            is_timed: is_timed && state.trouble == Trouble::default(),
            epoch: state.epoch,
            life: state.life,
        };
        if kind == Kind::Sync
            && bytes > 0
            && let Some(breaker) = state.breaker.take()
            && let Some(after) =
                breaker.choose(Duration::from_nanos(service.due_ns - service.start_ns))
        {
            let at = self.began + Duration::from_nanos(service.start_ns) + after;
            self.timer.at(at, move || breaker.go_off());
        }
        let answer_ns = service.due_ns.saturating_sub(state.transit_ns).max(service.start_ns);
        drop(state);
        let at = self.began + Duration::from_nanos(answer_ns);
        let disk = self.clone();
        let Some(host) = host else {
            self.timer.at(at, move || disk.finish(&began, Ok(()), answer));
            return;
        };
        self.blocking.soon(move || {
            let done = host();
            let inside = disk.clone();
            disk.timer.at(at, move || inside.finish(&began, done, answer));
        });
    }

    fn finish(&self, began: &Began, done: Result<()>, answer: Box<dyn FnOnce(Result<()>) + Send>) {
        let now_ns = self.now_ns();
        let mut state = self.lock();
        // The power went: whoever asked is gone.
        if began.life != state.life {
            return;
        }
        // What its host did meanwhile is undone with the rest.
        if state.off {
            let job = Job { kind: began.kind, bytes: began.bytes, host: None, answer };
            state.held.push(Held { job, arrived_ns: began.arrived_ns });
            return;
        }
        let (epoch, transit_ns) = (state.epoch, state.transit_ns);
        let counts = &mut state.meter.counts;
        counts.in_flight = counts.in_flight.saturating_sub(1);
        match (began.kind, done) {
            (_, Err(_)) => {}
            (Kind::Read, Ok(())) => counts.reads += 1,
            (Kind::Write, Ok(())) => {}
            (Kind::Sync, Ok(())) => {
                counts.syncs += 1;
                counts.synced_bytes += began.bytes;
                if began.epoch == epoch {
                    state.meter.sync_answered(now_ns - began.arrived_ns + transit_ns);
                    if began.is_timed {
                        let served_ns = now_ns.saturating_sub(began.start_ns) + transit_ns;
                        state.meter.sync_served(served_ns);
                    }
                }
            }
        }
        drop(state);
        answer(done);
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being served.
struct Began {
    kind: Kind,
    bytes: u64,
    arrived_ns: u64,
    start_ns: u64,
    /// It counts for what the volume's latencies are.
    is_timed: bool,
    epoch: u64,
    life: u64,
}
