//! SIGTERM: the process is asked to end, and must do so by itself. Undone by starting it again.

use std::time::Instant;

use rustix::process::Signal;

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_nothing};
use crate::gone::{self, Before};
use crate::journal::{Noted, Undo};
use crate::{Error, Exit, Victim};

/// Asks one process to end.
pub struct Terminate {
    victim: Victim,
    before: Option<Before>,
}

impl Terminate {
    /// Of `victim`.
    pub fn of(victim: Victim) -> Self {
        Self { victim, before: None }
    }
}

impl Fault for Terminate {
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
        if does_nothing() { Ok(()) } else { self.victim.signal(Signal::TERM) }
    }

    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding {
        let Some(before) = &self.before else { return gone::never_looked(&self.victim) };
        // etcd cleans up, then ends itself with the same signal.
        let by_itself = |exit| matches!(exit, Exit::Code(_) | Exit::Signal(15) | Exit::Unseen);
        gone::verify(&self.victim, before, by_itself, witness, deadline)
    }

    fn heal(&mut self, restarter: &dyn Restarter) -> Result<Healed, Error> {
        gone::heal(&self.victim, restarter)
    }
}
