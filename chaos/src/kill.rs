//! SIGKILL: a crash of the process. What it wrote to the page cache survives it; what it held in
//! memory does not. Undone by starting it again.

use std::time::Instant;

use rustix::process::Signal;

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_nothing};
use crate::gone::{self, Before};
use crate::journal::{Noted, Undo};
use crate::{Error, Exit, Victim};

/// Kills one process with -9.
pub struct Kill {
    victim: Victim,
    before: Option<Before>,
}

impl Kill {
    /// Of `victim`.
    pub fn of(victim: Victim) -> Self {
        Self { victim, before: None }
    }
}

impl Fault for Kill {
    fn victim(&self) -> &Victim {
        &self.victim
    }

    fn available(&mut self) -> Result<(), Error> {
        self.before = Some(Before::look(&self.victim)?);
        Ok(())
    }

    fn undo(&self) -> Undo {
        Undo::Restart
    }

    fn inject(&mut self, _noted: &Noted) -> Result<(), Error> {
        if does_nothing() { Ok(()) } else { self.victim.signal(Signal::KILL) }
    }

    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding {
        let Some(before) = &self.before else { return gone::never_looked(&self.victim) };
        let killed = |exit| matches!(exit, Exit::Signal(9) | Exit::Unseen);
        gone::verify(&self.victim, before, killed, witness, deadline)
    }

    fn heal(&mut self, restarter: &dyn Restarter) -> Result<Healed, Error> {
        gone::heal(&self.victim, restarter)
    }
}
