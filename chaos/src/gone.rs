//! The proof that a process is gone: shared by the faults that end one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fault::{Finding, Healed, Restarter, Testimony, Witness};
use crate::{Error, Exit, Victim, sockets};

/// How often the outside is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a victim looked before it was struck.
pub(crate) struct Before {
    connections: HashSet<(SocketAddr, SocketAddr)>,
}

impl Before {
    /// Refuses a victim that has already ended.
    pub(crate) fn look(victim: &Victim) -> Result<Self, Error> {
        if let Some(exit) = victim.exit() {
            let (node, pid) = (victim.name().to_owned(), victim.pid());
            return Err(Error::NotRunning { node, pid, exit: exit.to_string() });
        }
        Ok(Self { connections: sockets::connections_of(victim)? })
    }
}

/// Waits until `victim` ended in a way that `as_meant` accepts, its ports refuse, its connections
/// are gone, and its peers noticed.
pub(crate) fn verify(
    victim: &Victim,
    before: &Before,
    as_meant: fn(Exit) -> bool,
    witness: &mut dyn Witness,
    deadline: Instant,
) -> Finding {
    loop {
        let finding = look(victim, before, as_meant, witness);
        if finding.effective || Instant::now() >= deadline {
            return finding;
        }
        sleep(LOOK_EVERY);
    }
}

fn look(
    victim: &Victim,
    before: &Before,
    as_meant: fn(Exit) -> bool,
    witness: &mut dyn Witness,
) -> Finding {
    let name = format!("{} (pid {})", victim.name(), victim.pid());
    let not = |seen: String| Finding { effective: false, seen: format!("{name} {seen}") };
    let exit = match victim.exit() {
        None => {
            let state = victim.state().map_or('?', |state| state.letter);
            return not(format!("still runs (state {state})"));
        }
        Some(exit) if !as_meant(exit) => {
            return not(format!("{exit}, which this fault does not do"));
        }
        Some(exit) => exit,
    };
    let answering = victim.answering();
    if !answering.is_empty() {
        return not(format!("{exit}, but its ports {answering:?} still answer"));
    }
    let held = sockets::still_established(victim, &before.connections);
    let had = before.connections.len();
    if held > 0 {
        return not(format!("{exit}, but {held} of its {had} connections are still established"));
    }
    let noticed = match witness.ask() {
        Testimony::Noticed(how) => how,
        Testimony::NotAsked(why) => format!("peers not asked: {why}"),
        Testimony::NotYet(saw) => {
            return not(format!("{exit}, but its peers did not notice: {saw}"));
        }
    };
    let ports = victim.ports();
    let seen = format!(
        "{name} {exit}; its ports {ports:?} refuse; 0 of its {had} connections left; {noticed}"
    );
    Finding { effective: true, seen }
}

/// The answer to `verify` before `available`.
pub(crate) fn never_looked(victim: &Victim) -> Finding {
    let seen = format!("{} was never looked at before the fault", victim.name());
    Finding { effective: false, seen }
}

/// Starts `victim` again, unless it never ended: then there is nothing to undo.
pub(crate) fn heal(victim: &Victim, restarter: &dyn Restarter) -> Result<Healed, Error> {
    match victim.exit() {
        None => {
            let seen = format!("{} (pid {}) still ran at the end", victim.name(), victim.pid());
            Ok(Healed { victim: victim.clone(), held: false, seen })
        }
        Some(_) => {
            let victim = restarter.restart(victim.name())?;
            let seen = format!("{} started again as pid {}", victim.name(), victim.pid());
            Ok(Healed { victim, held: true, seen })
        }
    }
}
