//! The loss of power of one or more hosts at the same moment: their processes are gone at once, and so
//! is what their disks had not synced. Undone by starting the processes again, on the disks as they are
//! then.
//!
//! Invariant: the disks stop first, all together, and then the processes are killed. A sync that is on
//! its way at that moment is never answered and makes nothing durable: whoever waits for it dies
//! waiting.

use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_half, does_nothing};
use crate::gone::{self, Before};
use crate::journal::{Noted, Undo};
use crate::lab::disks::{Disks, Loss, Lost, Moment};
use crate::{Error, Exit, Victim};

/// How long a process may take to be gone that is killed while it waits for its disk.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// How long the power waits for a sync to go in.
const SYNC_PATIENCE: Duration = Duration::from_secs(2);

/// How often a disk is asked whether its power has gone.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Takes the power from one process and its disk, together with those of others.
pub struct PowerLoss {
    victim: Victim,
    switch: Arc<Switch>,
    loss: Loss,
    /// With the disk's directory, open.
    before: Option<(Before, File)>,
    lost: Option<Lost>,
}

/// What takes the power from several hosts.
struct Switch {
    victims: Vec<Victim>,
    disks: Arc<Disks>,
    moment: Moment,
    /// It was thrown; and the power went in a sync, if that was asked for.
    thrown: OnceLock<Result<bool, String>>,
    /// What all of them had not synced, in bytes.
    unsynced_bytes: Mutex<u64>,
}

impl Switch {
    /// Takes the power from all, by whichever of them comes first.
    fn throw(&self) -> Result<(), Error> {
        let thrown = self.thrown.get_or_init(|| {
            let done = self.stop_disks().map_err(|error| error.to_string());
            for victim in &self.victims {
                // One that has ended by itself is told of when it is looked at.
                victim.signal(Signal::KILL).ok();
            }
            done
        });
        match thrown {
            Ok(_) => Ok(()),
            Err(reason) => Err(Error::Disk {
                host: self.victims[0].name().to_owned(),
                what: "keeps its power",
                reason: reason.clone(),
            }),
        }
    }

    /// Whether they stopped when they were to.
    fn stop_disks(&self) -> Result<bool, Error> {
        let hosts: Vec<String> = self.victims.iter().map(|v| v.name().to_owned()).collect();
        self.disks.cut_power(&hosts, self.moment)?;
        let deadline = Instant::now() + SYNC_PATIENCE;
        while self.disks.has_power(&hosts[0])? {
            if Instant::now() >= deadline {
                self.disks.cut_power(&hosts, Moment::Now)?;
                return Ok(false);
            }
            sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    fn count(&self, lost: &Lost) {
        *self.unsynced_bytes.lock().unwrap_or_else(PoisonError::into_inner) += lost.unsynced_bytes;
    }

    /// Why it was no loss of power in a sync, where that was asked for.
    fn missed(&self) -> Option<&'static str> {
        if self.moment == Moment::Now {
            return None;
        }
        let unsynced = *self.unsynced_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        match self.thrown.get() {
            Some(Ok(true)) if unsynced > 0 => None,
            Some(Ok(true)) => Some("but nothing was unsynced on any disk when the power went"),
            _ => Some("but no disk had anything to sync for 2 s before the power went"),
        }
    }
}

impl PowerLoss {
    /// Of all `victims` together, whose hosts have each one of `disks`; `loss` of each, by its name.
    /// One fault for each, of which the first to be injected strikes all.
    pub fn of(
        victims: Vec<Victim>,
        disks: Arc<Disks>,
        moment: Moment,
        loss: impl Fn(&str) -> Loss,
    ) -> Vec<Self> {
        let switch = Arc::new(Switch {
            victims: victims.clone(),
            disks,
            moment,
            thrown: OnceLock::new(),
            unsynced_bytes: Mutex::new(0),
        });
        let each = |victim: Victim| {
            let (switch, loss) = (switch.clone(), loss(victim.name()));
            Self { victim, switch, loss, before: None, lost: None }
        };
        victims.into_iter().map(each).collect()
    }

    fn directory(&self) -> Result<File, Error> {
        let dir = self.switch.disks.dir(self.victim.name())?;
        File::open(&dir).map_err(|error| Error::Disk {
            host: self.victim.name().to_owned(),
            what: "cannot be looked at",
            reason: error.to_string(),
        })
    }

    fn is_ours(exit: Exit) -> bool {
        matches!(exit, Exit::Signal(9) | Exit::Unseen)
    }
}

impl Fault for PowerLoss {
    fn victim(&self) -> &Victim {
        &self.victim
    }

    fn available(&mut self) -> Result<(), Error> {
        self.before = Some((Before::look(&self.victim)?, self.directory()?));
        Ok(())
    }

    fn undo(&self) -> Undo {
        Undo::Restart
    }

    fn inject(&mut self, _noted: &Noted) -> Result<(), Error> {
        if does_nothing() {
            return Ok(());
        }
        if does_half() {
            return self.victim.signal(Signal::KILL);
        }
        self.switch.throw()?;
        let lost = self.switch.disks.lose_power(self.victim.name(), self.loss)?;
        self.switch.count(&lost);
        self.lost = Some(lost);
        let deadline = Instant::now() + END_PATIENCE;
        while self.victim.exit().is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding {
        let Some((before, directory)) = &self.before else {
            return gone::never_looked(&self.victim);
        };
        let gone = gone::verify(&self.victim, before, Self::is_ours, witness, deadline);
        // What was open on it is dead, and what is opened now is not.
        let came_back = directory.sync_all().is_err() && self.directory().is_ok();
        match (self.lost, came_back) {
            (Some(lost), true) => {
                let seen = format!("{}; {}", gone.seen, in_words(&lost));
                match self.switch.missed() {
                    None => Finding { effective: gone.effective, seen },
                    Some(missed) => Finding { effective: false, seen: format!("{seen}; {missed}") },
                }
            }
            _ => Finding {
                effective: false,
                seen: format!("{}; but its disk kept its power", gone.seen),
            },
        }
    }

    fn heal(&mut self, restarter: &dyn Restarter) -> Result<Healed, Error> {
        gone::heal(&self.victim, restarter)
    }
}

fn in_words(lost: &Lost) -> String {
    format!(
        "its disk lost {} of {} bytes of {} writes to {} files, and {} of {} names, that were not \
         synced",
        lost.lost_bytes,
        lost.unsynced_bytes,
        lost.unsynced_writes,
        lost.files,
        lost.lost_names,
        lost.unsynced_names
    )
}
