//! The end of a process, by force (SIGKILL) or by itself when asked (SIGTERM). Either way what it
//! wrote to the page cache survives, and what it held in memory does not. Undone by starting it
//! again.

use std::time::Instant;

use rustix::process::Signal;

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_nothing};
use crate::gone::{self, Before};
use crate::journal::{Noted, Undo};
use crate::{Error, Exit, Victim};

/// Ends one process.
pub struct End {
    victim: Victim,
    signal: Signal,
    /// Whether this exit is what the signal brings about, and not something else's doing.
    is_ours: fn(Exit) -> bool,
    before: Option<Before>,
}

impl End {
    /// A crash of `victim`, with -9.
    pub fn kill(victim: Victim) -> Self {
        let is_ours = |exit| matches!(exit, Exit::Signal(9) | Exit::Unseen);
        Self { victim, signal: Signal::KILL, is_ours, before: None }
    }

    /// `victim` is asked to end, and must do so by itself.
    pub fn terminate(victim: Victim) -> Self {
        // etcd cleans up, then ends itself with the same signal.
        let is_ours = |exit| matches!(exit, Exit::Code(_) | Exit::Signal(15) | Exit::Unseen);
        Self { victim, signal: Signal::TERM, is_ours, before: None }
    }
}

impl Fault for End {
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
        if does_nothing() { Ok(()) } else { self.victim.signal(self.signal) }
    }

    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding {
        let Some(before) = &self.before else { return gone::never_looked(&self.victim) };
        gone::verify(&self.victim, before, self.is_ours, witness, deadline)
    }

    fn heal(&mut self, restarter: &dyn Restarter) -> Result<Healed, Error> {
        gone::heal(&self.victim, restarter)
    }
}
