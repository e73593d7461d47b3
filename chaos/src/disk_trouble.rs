//! A disk that stalls, is slow, full or broken, under one process. The proof is the victim's own:
//! what it asked of the disk and did not get, or not in time, and its threads that wait for it.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_half, does_nothing};
use crate::journal::{Noted, Undo};
use crate::lab::disks::{Disks, Figures, Slow, Trouble};
use crate::{Error, Victim};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// So long must nothing have been served for a stall to be one.
const STALL_WINDOW: Duration = Duration::from_millis(150);

/// With fewer syncs a median says nothing.
const LEAST_SYNCS: u64 = 5;

/// The median of few syncs may be so much faster than asked for, which is chance; half of what was
/// asked for is not. Slower it may be at will.
const SLOW_TOLERANCE: f64 = 0.75;

/// How long a victim may take to go on once its disk does.
const GO_ON_PATIENCE: Duration = Duration::from_secs(10);

/// What is done to the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DiskTrouble {
    /// It answers nothing.
    Stall,
    /// It is slower; its median without that is given, in ms.
    Slow {
        /// By how much.
        slow: Slow,
        /// Of a sync, by the disk's profile.
        median_ms: f64,
    },
    /// Nothing can be written.
    Full,
    /// It fails.
    Error {
        /// At writes.
        writes: bool,
        /// At syncs.
        syncs: bool,
    },
}

/// Trouble with the disk of one process.
pub struct DiskFault {
    victim: Victim,
    disks: Arc<Disks>,
    trouble: DiskTrouble,
    before: Option<Figures>,
    /// The first look at which the disk held a request, and its syncs then.
    stalled: Option<(Instant, u64)>,
}

impl DiskFault {
    /// Of `victim`, whose host has one of `disks`.
    pub fn new(victim: Victim, disks: Arc<Disks>, trouble: DiskTrouble) -> Self {
        Self { victim, disks, trouble, before: None, stalled: None }
    }

    fn figures(&self) -> Result<Figures, Error> {
        self.disks.figures(self.victim.name())
    }

    /// May end its victim, who need not bear it.
    fn may_end_it(&self) -> bool {
        matches!(self.trouble, DiskTrouble::Full | DiskTrouble::Error { .. })
    }

    fn look(&mut self) -> Result<Finding, Error> {
        let (name, pid) = (self.victim.name().to_owned(), self.victim.pid());
        let finding = |effective: bool, seen: String| {
            Ok(Finding { effective, seen: format!("{name} (pid {pid}) {seen}") })
        };
        if let Some(exit) = self.victim.exit()
            && !self.may_end_it()
        {
            return finding(false, exit.to_string());
        }
        let now = self.figures()?;
        let before = self.before.clone().unwrap_or_default();
        match self.trouble {
            DiskTrouble::Stall => {
                if now.held == 0 {
                    self.stalled = None;
                    return finding(false, "asked nothing that its disk held back".into());
                }
                let (since, syncs) = *self.stalled.get_or_insert((Instant::now(), now.syncs));
                let stood = since.elapsed();
                if now.syncs != syncs {
                    let served = now.syncs - syncs;
                    return finding(false, format!("had {served} syncs served in {stood:.1?}"));
                }
                let waiting = match self.victim.threads_waiting_in("request_wait_answer") {
                    // An ordinary user may not be told.
                    0 => String::new(),
                    count => format!("; {count} of its threads wait in the kernel for the answer"),
                };
                let seen = format!(
                    "waits for its disk: {} requests held, none served in {stood:.1?}{waiting}",
                    now.held
                );
                finding(stood >= STALL_WINDOW, seen)
            }
            DiskTrouble::Slow { slow, median_ms } => {
                let wanted_ms = median_ms * slow.factor + slow.added_ms;
                let (count, p50_ms) = (now.sync_now.count, now.sync_now.p50_ms);
                let seen = format!(
                    "waited {p50_ms:.2} ms for half of its {count} syncs or longer; {wanted_ms:.2} \
                     ms were asked for"
                );
                finding(count >= LEAST_SYNCS && p50_ms >= SLOW_TOLERANCE * wanted_ms, seen)
            }
            DiskTrouble::Full => {
                let refused = now.refused_full - before.refused_full;
                finding(refused > 0, format!("had {refused} requests refused with ENOSPC"))
            }
            DiskTrouble::Error { .. } => {
                let refused = now.refused_error - before.refused_error;
                finding(refused > 0, format!("had {refused} requests refused with EIO"))
            }
        }
    }

    fn trouble(&self) -> Trouble {
        match self.trouble {
            DiskTrouble::Stall => Trouble { stalled: true, ..Trouble::default() },
            DiskTrouble::Slow { mut slow, .. } => {
                if does_half() {
                    slow = Slow {
                        factor: 1.0 + (slow.factor - 1.0) / 2.0,
                        added_ms: slow.added_ms / 2.0,
                    };
                }
                Trouble { slow: Some(slow), ..Trouble::default() }
            }
            DiskTrouble::Full => Trouble { full: true, ..Trouble::default() },
            DiskTrouble::Error { writes, syncs } => {
                Trouble { write_error: writes, sync_error: syncs, ..Trouble::default() }
            }
        }
    }

    /// After the disk was mended: the victim asks again, and is served.
    fn went_on(&self, syncs: u64) -> Result<String, Error> {
        let deadline = Instant::now() + GO_ON_PATIENCE;
        loop {
            let now = self.figures()?;
            if now.syncs > syncs {
                let max_ms = now.sync_now.max_ms;
                return Ok(format!("was served again; its longest sync since took {max_ms:.0} ms"));
            }
            if Instant::now() >= deadline {
                let waited_s = GO_ON_PATIENCE.as_secs();
                return Ok(format!("synced nothing in {waited_s} s after its disk was mended"));
            }
            sleep(LOOK_EVERY);
        }
    }
}

impl Fault for DiskFault {
    fn victim(&self) -> &Victim {
        &self.victim
    }

    fn available(&mut self) -> Result<(), Error> {
        if let Some(exit) = self.victim.exit() {
            let (node, pid) = (self.victim.name().to_owned(), self.victim.pid());
            return Err(Error::NotRunning { node, pid, exit: exit.to_string() });
        }
        self.before = Some(self.figures()?);
        Ok(())
    }

    fn undo(&self) -> Undo {
        Undo::MendDisk
    }

    fn inject(&mut self, _noted: &Noted) -> Result<(), Error> {
        match does_nothing() {
            true => Ok(()),
            false => self.disks.set(self.victim.name(), self.trouble()),
        }
    }

    fn verify(&mut self, _witness: &mut dyn Witness, deadline: Instant) -> Finding {
        loop {
            let finding = self
                .look()
                .unwrap_or_else(|error| Finding { effective: false, seen: error.to_string() });
            if finding.effective || Instant::now() >= deadline {
                return finding;
            }
            sleep(LOOK_EVERY);
        }
    }

    fn heal(&mut self, restarter: &dyn Restarter) -> Result<Healed, Error> {
        let last = self.look();
        let before = self.figures()?;
        self.disks.set(self.victim.name(), Trouble::default())?;
        let (held, seen) = match last {
            Ok(last) => (last.effective, last.seen),
            Err(error) => (false, error.to_string()),
        };
        if self.victim.exit().is_some() {
            let victim = restarter.restart(self.victim.name())?;
            let seen = format!(
                "at the end: {seen}; {} had ended by itself, and was started again as pid {}",
                victim.name(),
                victim.pid()
            );
            return Ok(Healed { victim, held, seen });
        }
        let seen = format!("at the end: {seen}; {}", self.went_on(before.syncs)?);
        Ok(Healed { victim: self.victim.clone(), held, seen })
    }
}
