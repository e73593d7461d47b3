//! The faults that hold, each under a lease, and the way from an order to its end.
//!
//! Invariants. The steps of a fault: looked at, noted (synced), applied, observed, undone, noted as
//! done; nothing comes before its predecessor. A lease that has run out is not renewed, also in the
//! moment before its fault is undone. An undo that fails is tried again until it works.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use api::agent::{Observation, State};

use super::cgroup::Limit;
use super::netem::Netem;
use super::order::Order;
use super::partition::Partition;
use super::process::Struck;
use super::undo::{Entry, boot_id};
use super::{Strike, planted};
use crate::Error;
use crate::journal::{Journal, Noted};

/// Between two tries of an undo that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long others may take to apply or undo a fault while the agent ends.
const CLOSING: Duration = Duration::from_secs(60);

/// So many that have ended are remembered.
const REMEMBERED: usize = 1000;

/// What every connection to the agent shares.
pub(super) struct Register {
    journal: Journal<Entry>,
    boot_id: String,
    own_port: u16,
    faults: Mutex<Faults>,
    changed: Condvar,
}

#[derive(Default)]
struct Faults {
    by_id: BTreeMap<String, Fault>,
    /// In the order of their ends.
    ended: Vec<String>,
    is_closing: bool,
}

struct Fault {
    told: String,
    /// What only one may hold.
    holds: Option<String>,
    phase: Phase,
}

enum Phase {
    /// Being applied; its lease has not begun.
    Applied,
    Holds(Held),
    /// Being undone.
    Undone,
    CannotBeUndone {
        error: String,
        why: Why,
        next_try: Instant,
        held: Held,
    },
    Ended {
        how: String,
        /// When its lease ran out, if that is why.
        ran_out: Option<Instant>,
    },
}

/// One that is in force.
struct Held {
    lease_ends: Instant,
    entry: Entry,
    noted: Noted,
    strike: Arc<Mutex<Box<dyn Strike>>>,
}

/// Why a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Healed,
    LeaseRanOut,
    Closing,
    NotApplied,
}

/// A fault, for those who ask.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) fault: String,
    pub(super) state: State,
    pub(super) lease_left: Duration,
    pub(super) told: String,
}

/// What became of a fault that was healed.
pub(super) struct Healed {
    pub(super) observation: Observation,
    pub(super) undone: String,
}

impl Register {
    /// An empty one. What `journal` had is undone. `own_port` is the agent's own.
    pub(super) fn open(journal: Journal<Entry>, own_port: u16) -> Result<Arc<Self>, Error> {
        let register = Arc::new(Self {
            journal,
            boot_id: boot_id()?,
            own_port,
            faults: Mutex::default(),
            changed: Condvar::new(),
        });
        let watch = register.clone();
        thread::spawn(move || watch.watch_leases());
        Ok(register)
    }

    /// Applies a fault for `lease`; its id.
    pub(super) fn inject(&self, order: Order, lease: Duration) -> Result<String, Error> {
        let id = format!("{:08x}", rand::random::<u32>());
        self.reserve(&id, &order)?;
        match self.apply(&id, order, lease) {
            Ok(held) => {
                self.lock().set(&id, Phase::Holds(held));
                self.changed.notify_all();
                Ok(id)
            }
            Err(error) => {
                // Nothing of it is left, or `apply` has put it where it is tried again.
                self.lock().forget_if_applied(&id);
                Err(error)
            }
        }
    }

    fn reserve(&self, id: &str, order: &Order) -> Result<(), Error> {
        let (told, holds) = (order.to_string(), order.holds());
        let mut faults = self.lock();
        if faults.is_closing {
            let fault = "a new fault".into();
            return Err(Error::FaultOver { fault, how: "the agent is about to end".into() });
        }
        let is_held = |fault: &Fault| {
            holds.is_some() && fault.holds == holds && !matches!(fault.phase, Phase::Ended { .. })
        };
        if let Some((holder, _)) = faults.by_id.iter().find(|(_, fault)| is_held(fault)) {
            let (what, fault) = (holds.unwrap_or_default(), holder.clone());
            return Err(Error::Held { what, fault });
        }
        faults.by_id.insert(id.to_owned(), Fault { told, holds, phase: Phase::Applied });
        Ok(())
    }

    fn apply(&self, id: &str, order: Order, lease: Duration) -> Result<Held, Error> {
        let told = order.to_string();
        let mut strike = prepare(order, id, self.own_port)?;
        let (fault, boot_id) = (id.to_owned(), self.boot_id.clone());
        let entry = Entry { fault, told, boot_id, undo: strike.undo() };
        let noted = self.journal.write_down(entry.clone())?;
        planted::die_at("noted");
        let applied = strike.apply(&noted);
        planted::die_at("applied");
        let strike = Arc::new(Mutex::new(strike));
        let held = Held { lease_ends: Instant::now() + lease, entry, noted, strike };
        match applied {
            Ok(()) => Ok(held),
            Err(error) => {
                // A part of it may be there.
                match held.entry.undo() {
                    Ok(_) => self.journal.done(held.noted)?,
                    Err(not_undone) => self.try_again(id, &not_undone, Why::NotApplied, held),
                }
                Err(error)
            }
        }
    }

    /// Lets a lease run for `lease` from now.
    pub(super) fn renew(&self, id: &str, lease: Duration) -> Result<(), Error> {
        let now = Instant::now();
        let mut faults = self.lock();
        match &mut faults.find(id)?.phase {
            Phase::Holds(held) if now < held.lease_ends || planted::ignores_leases() => {
                held.lease_ends = now + lease;
                Ok(())
            }
            Phase::Holds(held) => Err(lease_over(id, held.lease_ends)),
            Phase::Ended { ran_out: Some(at), .. } => Err(lease_over(id, *at)),
            Phase::Ended { how, .. } => {
                Err(Error::FaultOver { fault: id.to_owned(), how: how.clone() })
            }
            Phase::Applied | Phase::Undone | Phase::CannotBeUndone { .. } => {
                let how = "it is being applied, or undone".into();
                Err(Error::FaultOver { fault: id.to_owned(), how })
            }
        }
    }

    /// What it has done so far.
    pub(super) fn observe(&self, id: &str) -> Result<Observation, Error> {
        let strike = match &self.lock().find(id)?.phase {
            Phase::Holds(held) => held.strike.clone(),
            Phase::Ended { how, .. } => {
                return Err(Error::FaultOver { fault: id.to_owned(), how: how.clone() });
            }
            _ => {
                let how = "it is being applied, or undone".into();
                return Err(Error::FaultOver { fault: id.to_owned(), how });
            }
        };
        observed(&strike)
    }

    /// Undoes it.
    pub(super) fn heal(&self, id: &str) -> Result<Healed, Error> {
        self.end(id, Why::Healed)
    }

    /// Undoes all, and takes no more. What cannot be undone is told, and left to the next agent.
    pub(super) fn close(&self) -> Vec<Error> {
        self.lock().is_closing = true;
        let deadline = Instant::now() + CLOSING;
        loop {
            let (mut holding, mut changing) = (Vec::new(), false);
            for (id, fault) in &self.lock().by_id {
                match fault.phase {
                    Phase::Holds(_) | Phase::CannotBeUndone { .. } => holding.push(id.clone()),
                    Phase::Applied | Phase::Undone => changing = true,
                    Phase::Ended { .. } => {}
                }
            }
            let ends = holding.iter().map(|id| self.end(id, Why::Closing));
            let failed: Vec<Error> = ends
                .filter_map(Result::err)
                .filter(|error| !matches!(error, Error::FaultOver { .. }))
                .collect();
            if !changing || !failed.is_empty() || Instant::now() >= deadline {
                return failed;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that are remembered.
    pub(super) fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        let listed = |(id, fault): (&String, &Fault)| {
            let (state, lease_left, told) = match &fault.phase {
                Phase::Holds(held) => {
                    (State::Holds, held.lease_ends.saturating_duration_since(now), String::new())
                }
                Phase::Applied => (State::Holds, Duration::ZERO, "it is being applied".into()),
                Phase::Undone => (State::Holds, Duration::ZERO, "it is being undone".into()),
                Phase::CannotBeUndone { error, .. } => {
                    (State::CannotBeUndone, Duration::ZERO, error.clone())
                }
                Phase::Ended { how, .. } => (State::Ended, Duration::ZERO, how.clone()),
            };
            Listed { id: id.clone(), fault: fault.told.clone(), state, lease_left, told }
        };
        self.lock().by_id.iter().map(listed).collect()
    }

    fn end(&self, id: &str, why: Why) -> Result<Healed, Error> {
        let held = self.lock().take(id)?;
        let observation = observed(&held.strike);
        let undone = held.entry.undo();
        planted::die_at("undone");
        let undone = match undone {
            Ok(undone) => undone,
            Err(error) => {
                self.try_again(id, &error, why, held);
                return Err(error);
            }
        };
        if let Err(error) = self.journal.done(held.noted) {
            // The next agent undoes it once more, which changes nothing.
            tracing::error!(fault = id, %error, "is undone, which could not be noted");
        }
        let ran_out = (why == Why::LeaseRanOut).then_some(held.lease_ends);
        let reason = match why {
            Why::Healed => "healed",
            Why::LeaseRanOut => "its lease ran out",
            Why::Closing => "the agent ended",
            Why::NotApplied => "it could not be applied",
        };
        tracing::info!(fault = id, what = held.entry.told, reason, undone, "undone");
        let mut faults = self.lock();
        faults.set(id, Phase::Ended { how: format!("{reason}; {undone}"), ran_out });
        faults.remember(id);
        let observation = observation.unwrap_or_else(|error| Observation {
            bit: false,
            seen: error.to_string(),
            figures: Vec::new(),
        });
        Ok(Healed { observation, undone })
    }

    fn try_again(&self, id: &str, error: &Error, why: Why, held: Held) {
        tracing::error!(fault = id, %error, "cannot be undone; it is tried again");
        let (error, next_try) = (error.to_string(), Instant::now() + RETRY);
        self.lock().set(id, Phase::CannotBeUndone { error, why, next_try, held });
        self.changed.notify_all();
    }

    /// Ends those whose time has come, each by a thread of its own: one may take long.
    fn watch_leases(self: Arc<Self>) {
        let mut faults = self.lock();
        loop {
            let now = Instant::now();
            let mut next = now + RETRY;
            let mut due = Vec::new();
            for (id, fault) in &faults.by_id {
                match &fault.phase {
                    Phase::Holds(_) if planted::ignores_leases() => {}
                    Phase::Holds(held) if held.lease_ends <= now => {
                        due.push((id.clone(), Why::LeaseRanOut));
                    }
                    Phase::Holds(held) => next = next.min(held.lease_ends),
                    Phase::CannotBeUndone { why, next_try, .. } if *next_try <= now => {
                        due.push((id.clone(), *why));
                    }
                    Phase::CannotBeUndone { next_try, .. } => next = next.min(*next_try),
                    _ => {}
                }
            }
            drop(faults);
            for (id, why) in due {
                let register = self.clone();
                thread::spawn(move || register.end(&id, why).ok());
            }
            let wait = next.saturating_duration_since(Instant::now());
            faults = self.lock();
            let waited = self.changed.wait_timeout(faults, wait);
            faults = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults {
    fn find(&mut self, id: &str) -> Result<&mut Fault, Error> {
        let unknown = || Error::UnknownFault { fault: id.to_owned() };
        self.by_id.get_mut(id).ok_or_else(unknown)
    }

    /// For one who undoes it.
    fn take(&mut self, id: &str) -> Result<Held, Error> {
        let over = |how: String| Error::FaultOver { fault: id.to_owned(), how };
        let fault = self.find(id)?;
        match std::mem::replace(&mut fault.phase, Phase::Undone) {
            Phase::Holds(held) | Phase::CannotBeUndone { held, .. } => Ok(held),
            other => {
                let how = match &other {
                    Phase::Ended { how, .. } => how.clone(),
                    _ => "it is being applied, or undone".into(),
                };
                fault.phase = other;
                Err(over(how))
            }
        }
    }

    fn set(&mut self, id: &str, phase: Phase) {
        if let Some(fault) = self.by_id.get_mut(id) {
            fault.phase = phase;
        }
    }

    fn forget_if_applied(&mut self, id: &str) {
        if self.by_id.get(id).is_some_and(|fault| matches!(fault.phase, Phase::Applied)) {
            self.by_id.remove(id);
        }
    }

    fn remember(&mut self, id: &str) {
        self.ended.push(id.to_owned());
        if self.ended.len() > REMEMBERED {
            let oldest = self.ended.remove(0);
            self.by_id.remove(&oldest);
        }
    }
}

/// Looks at the host as it is before the fault.
fn prepare(order: Order, id: &str, own_port: u16) -> Result<Box<dyn Strike>, Error> {
    Ok(match order {
        Order::Netem { interface, conditions } => {
            Box::new(Netem::prepare(interface, conditions, own_port)?)
        }
        Order::Partition { interface, peers, way } => {
            Box::new(Partition::prepare(interface, peers, way, id, own_port)?)
        }
        Order::Io { cgroup, device, limits } => Box::new(Limit::io(&cgroup, device, limits)?),
        Order::Cpu { cgroup, cpus } => Box::new(Limit::cpu(&cgroup, cpus)?),
        Order::Memory { cgroup, max_bytes, high_bytes } => {
            Box::new(Limit::memory(&cgroup, max_bytes, high_bytes)?)
        }
        Order::Process { deed, named } => Box::new(Struck::prepare(deed, named)?),
    })
}

fn observed(strike: &Mutex<Box<dyn Strike>>) -> Result<Observation, Error> {
    strike.lock().unwrap_or_else(PoisonError::into_inner).observe()
}

fn lease_over(id: &str, at: Instant) -> Error {
    Error::LeaseOver { fault: id.to_owned(), ago_ms: at.elapsed().as_millis() }
}
