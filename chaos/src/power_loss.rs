//! The loss of a host's power: its process is gone at once, and so is what its disk had not synced.
//! Undone by starting the process again, on the disk as it is then.

use std::fs::File;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_half, does_nothing};
use crate::gone::{self, Before};
use crate::journal::{Noted, Undo};
use crate::lab::disks::{Disks, Loss, Lost};
use crate::{Error, Exit, Victim};

/// How long the killed process may take to be gone: the sync that it waits for is first answered.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// Takes the power from one process and its disk.
pub struct PowerLoss {
    victim: Victim,
    disks: Arc<Disks>,
    loss: Loss,
    /// With the disk's directory, open.
    before: Option<(Before, File)>,
    lost: Option<Lost>,
}

impl PowerLoss {
    /// Of `victim`, whose host has one of `disks`.
    pub fn of(victim: Victim, disks: Arc<Disks>, loss: Loss) -> Self {
        Self { victim, disks, loss, before: None, lost: None }
    }

    fn directory(&self) -> Result<File, Error> {
        let dir = self.disks.dir(self.victim.name())?;
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
        self.victim.signal(Signal::KILL)?;
        // A dead process asks nothing more: what it had not synced by then is what is lost.
        let deadline = Instant::now() + END_PATIENCE;
        while self.victim.exit().is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        if !does_half() {
            self.lost = Some(self.disks.lose_power(self.victim.name(), self.loss)?);
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
            (Some(lost), true) => Finding {
                effective: gone.effective,
                seen: format!("{}; {}", gone.seen, in_words(&lost)),
            },
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
