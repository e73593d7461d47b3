//! SIGSTOP: the process stands still, its sockets stay open and its memory stays warm, as under a
//! long garbage collection or a frozen virtual machine. Undone by SIGCONT.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fault::{Fault, Finding, Healed, Restarter, Testimony, Witness, does_nothing};
use crate::journal::{Noted, Undo};
use crate::{Error, Victim, sockets};

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Ticks are 10 ms: over this long a process that runs at all shows at least one.
const CPU_WINDOW: Duration = Duration::from_millis(100);

/// How long a resumed process may take to be scheduled again.
const RESUME_DEADLINE: Duration = Duration::from_secs(5);

/// Stops one process, and lets it go on.
pub struct Pause {
    victim: Victim,
    stopped: Option<Stopped>,
}

/// The first look at which every thread stood still.
struct Stopped {
    since: Instant,
    cpu_ticks: u64,
    unread_bytes: u64,
}

impl Pause {
    /// Of `victim`.
    pub fn of(victim: Victim) -> Self {
        Self { victim, stopped: None }
    }

    fn look(&mut self, witness: &mut dyn Witness) -> Result<Finding, Error> {
        let victim = &self.victim;
        let name = format!("{} (pid {})", victim.name(), victim.pid());
        let not = |seen: String| Ok(Finding { effective: false, seen: format!("{name} {seen}") });
        if let Some(exit) = victim.exit() {
            return not(exit.to_string());
        }
        let state = victim.state()?;
        if !state.is_stopped() {
            self.stopped = None;
            let running = state.threads.iter().filter(|letter| **letter != 'T').count();
            let of = state.threads.len();
            let letter = state.letter;
            return not(format!("is in state {letter}, {running} of {of} threads not stopped"));
        }
        let unread = sockets::unread_bytes(victim)?;
        let stopped = self.stopped.get_or_insert_with(|| Stopped {
            since: Instant::now(),
            cpu_ticks: state.cpu_ticks,
            unread_bytes: unread,
        });
        let stood = stopped.since.elapsed();
        if state.cpu_ticks != stopped.cpu_ticks {
            let used = state.cpu_ticks - stopped.cpu_ticks;
            return not(format!("is in state T but used {used} ticks of CPU in {stood:.1?}"));
        }
        if stood < CPU_WINDOW {
            return not(format!("is in state T, for only {stood:.1?} so far"));
        }
        let (first, threads) = (stopped.unread_bytes, state.threads.len());
        let noticed = match witness.ask() {
            Testimony::Noticed(how) => how,
            // Nobody need elect anyone, but what the others sent must pile up unread.
            Testimony::NotAsked(_) if unread > first => "unanswered".to_owned(),
            Testimony::NotAsked(why) => {
                return not(format!("is in state T, but nobody sends to it ({why})"));
            }
            Testimony::NotYet(saw) => {
                return not(format!("is in state T, but its peers did not notice: {saw}"));
            }
        };
        let seen = format!(
            "{name} is in state T, all {threads} threads; 0 ticks of CPU in {stood:.1?}; unread in \
             its sockets {first} -> {unread} bytes; {noticed}"
        );
        Ok(Finding { effective: true, seen })
    }

    fn resumed(&self, before: u64) -> Result<String, Error> {
        let deadline = Instant::now() + RESUME_DEADLINE;
        loop {
            if let Some(exit) = self.victim.exit() {
                return self.not_resumed(exit.to_string());
            }
            let state = self.victim.state()?;
            let read = sockets::unread_bytes(&self.victim)?;
            if state.letter != 'T' && (state.cpu_ticks > before || read == 0) {
                let ticks = state.cpu_ticks - before;
                return Ok(format!("went on: state {}, {ticks} ticks of CPU since", state.letter));
            }
            if Instant::now() >= deadline {
                let seen = format!("state {}, {read} bytes unread", state.letter);
                return self.not_resumed(seen);
            }
            sleep(LOOK_EVERY);
        }
    }

    fn not_resumed(&self, seen: String) -> Result<String, Error> {
        let (node, pid) = (self.victim.name().to_owned(), self.victim.pid());
        Err(Error::NotResumed { node, pid, seen })
    }
}

impl Fault for Pause {
    fn victim(&self) -> &Victim {
        &self.victim
    }

    fn available(&mut self) -> Result<(), Error> {
        let (node, pid) = (self.victim.name().to_owned(), self.victim.pid());
        if let Some(exit) = self.victim.exit() {
            return Err(Error::NotRunning { node, pid, exit: exit.to_string() });
        }
        if self.victim.state()?.letter == 'T' {
            return Err(Error::AlreadyStopped { node, pid });
        }
        Ok(())
    }

    fn undo(&self) -> Undo {
        Undo::Resume
    }

    fn inject(&mut self, _noted: &Noted) -> Result<(), Error> {
        if does_nothing() { Ok(()) } else { self.victim.signal(Signal::STOP) }
    }

    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding {
        loop {
            let finding = self
                .look(witness)
                .unwrap_or_else(|error| Finding { effective: false, seen: error.to_string() });
            if finding.effective || Instant::now() >= deadline {
                return finding;
            }
            sleep(LOOK_EVERY);
        }
    }

    fn heal(&mut self, _restarter: &dyn Restarter) -> Result<Healed, Error> {
        let state = self.victim.state();
        // Also where nothing could be seen: a process that stands still is the worse end.
        self.victim.signal(Signal::CONT)?;
        let state = state?;
        let held = match &self.stopped {
            Some(stopped) => state.is_stopped() && state.cpu_ticks == stopped.cpu_ticks,
            None => false,
        };
        let resumed = self.resumed(state.cpu_ticks)?;
        let until =
            if held { "stood still until resumed" } else { "did not stand still until resumed" };
        Ok(Healed { victim: self.victim.clone(), held, seen: format!("{until}; {resumed}") })
    }
}
