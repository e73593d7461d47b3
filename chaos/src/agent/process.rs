//! A process of the host's: killed, paused, restarted.
//!
//! Our mark is a process's start beside its id: with both it is named for good, also where its id is
//! another's by now. A pidfd is held before it is looked at again and struck.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use api::agent::Observation;
use procfs::process::Process;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::Strike;
use super::config::PidFile;
use super::observation::Seen;
use super::order::Deed;
use super::program::run;
use super::undo::Undo;
use crate::fault::does_nothing;
use crate::journal::Noted;
use crate::{Error, Victim, sockets};

/// How long something may take to run again.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A stopped process that ran at all would show a tick (10 ms) after so long.
const CPU_WINDOW: Duration = Duration::from_millis(100);

/// How a process is found, and started again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Named {
    /// The main process of a unit of systemd.
    Unit(String),
    /// Where there is no systemd.
    PidFile {
        name: String,
        pid_file: PathBuf,
        start: Vec<String>,
        /// The program that it runs; known once it was seen.
        program: Option<PathBuf>,
    },
}

/// A process that was stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NotedProcess {
    name: String,
    pid: i32,
    started_ticks: u64,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Unit(unit) => write!(f, "unit {unit}"),
            Named::PidFile { name, .. } => write!(f, "process {name}"),
        }
    }
}

impl Named {
    pub(super) fn by_pid_file(PidFile { name, pid_file, start }: &PidFile) -> Self {
        let (name, pid_file, start) = (name.clone(), pid_file.clone(), start.clone());
        Named::PidFile { name, pid_file, start, program: None }
    }

    pub(super) fn can_be_started(&self) -> bool {
        match self {
            Named::Unit(_) => true,
            Named::PidFile { start, .. } => !start.is_empty(),
        }
    }

    /// Its process id; `None`: it does not run.
    fn pid(&self) -> Result<Option<i32>, Error> {
        match self {
            Named::Unit(unit) => {
                let shown = run("systemctl", &["show", "--property=MainPID", "--value", unit], "")?;
                Ok(shown.trim().parse().ok().filter(|pid| *pid > 0))
            }
            Named::PidFile { pid_file, program, .. } => {
                let doing = || format!("read {}", pid_file.display());
                let text = match std::fs::read_to_string(pid_file) {
                    Ok(text) => text,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(problem) => return Err(Error::Host { doing: doing(), problem }),
                };
                let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
                // The file may be older than its process.
                let is_it = |pid: &i32| {
                    let runs = Process::new(*pid).and_then(|process| process.exe());
                    runs.is_ok_and(|exe| program.as_ref().is_none_or(|program| *program == exe))
                };
                Ok(pid.filter(is_it))
            }
        }
    }

    /// Takes hold of it.
    fn hold(&self) -> Result<Victim, Error> {
        let not_running =
            || Error::NotHere { what: self.to_string(), reason: "does not run".into() };
        let pid = self.pid()?.ok_or_else(not_running)?;
        let victim = Victim::of(self.to_string(), pid, Vec::new())?;
        // Asked again now that the handle is held: the id may have become another's.
        match self.pid()? == Some(pid) {
            true => Ok(victim),
            false => Err(not_running()),
        }
    }
}

/// Something done to one process.
pub(super) struct Struck {
    deed: Deed,
    named: Named,
    victim: Victim,
    noted: NotedProcess,
    /// CPU time of the stopped process, at the first look.
    stopped: Option<(Instant, u64)>,
    unread_before: u64,
}

impl Struck {
    /// Takes hold of it.
    pub(super) fn prepare(deed: Deed, mut named: Named) -> Result<Self, Error> {
        let victim = named.hold()?;
        if victim.state()?.letter == 'T' {
            return Err(Error::AlreadyStopped {
                node: victim.name().to_owned(),
                pid: victim.pid(),
            });
        }
        if let Named::PidFile { program, .. } = &mut named {
            *program = victim.proc()?.exe().ok();
        }
        let noted = NotedProcess {
            name: victim.name().to_owned(),
            pid: victim.pid(),
            started_ticks: victim.started_ticks()?,
        };
        let unread_before = sockets::unread_bytes(&victim).unwrap_or(0);
        Ok(Self { deed, named, victim, noted, stopped: None, unread_before })
    }

    fn observe_pause(&mut self, seen: &mut Seen) -> Result<(), Error> {
        if let Some(exit) = self.victim.exit() {
            seen.part(false, format!("{}: {exit}", self.named));
            return Ok(());
        }
        let state = self.victim.state()?;
        let unread = sockets::unread_bytes(&self.victim)?;
        let (since, ticks) = *self.stopped.get_or_insert((Instant::now(), state.cpu_ticks));
        let (stood, used) = (since.elapsed(), state.cpu_ticks - ticks);
        let right = state.is_stopped() && used == 0 && stood >= CPU_WINDOW;
        seen.part(
            right,
            format!(
                "{} (pid {}) is in state {}, {} threads; {used} ticks of CPU in {stood:.1?}; unread \
                 in its sockets {} -> {unread} bytes",
                self.named,
                self.victim.pid(),
                state.letter,
                state.threads.len(),
                self.unread_before
            ),
        );
        seen.figure("cpu_ticks", None, Some(used as f64));
        seen.figure("unread_bytes", Some(self.unread_before as f64), Some(unread as f64));
        Ok(())
    }

    /// A process that is about to end looks as if it ran.
    fn wait_for_its_end(&self) -> Result<(), Error> {
        let deadline = Instant::now() + START_DEADLINE;
        while self.victim.exit().is_none() {
            if Instant::now() >= deadline {
                let problem = std::io::Error::other("it has not ended by now (a stalled disk?)");
                return Err(Error::Host { doing: format!("kill {}", self.named), problem });
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn observe_end(&self, seen: &mut Seen) -> Result<(), Error> {
        let pid = self.victim.pid();
        let exit = self.victim.exit();
        let reads = match exit {
            Some(exit) => format!("{} (pid {pid}): {exit}", self.named),
            None => format!("{} (pid {pid}) still runs", self.named),
        };
        seen.part(exit.is_some(), reads);
        let now = self.named.pid()?.filter(|now| *now != pid);
        match (self.deed, now) {
            (Deed::Restart, now) => {
                let reads = now.map_or("it does not run again".into(), |now| {
                    format!("it runs again as pid {now}")
                });
                seen.part(now.is_some(), reads);
            }
            // Such as systemd, by its Restart=.
            (_, Some(now)) => seen.part(true, format!("something started it again as pid {now}")),
            (_, None) => {}
        }
        Ok(())
    }
}

impl Strike for Struck {
    fn undo(&self) -> Undo {
        match self.deed {
            Deed::Pause => Undo::Resume(self.noted.clone()),
            Deed::Kill | Deed::Restart => Undo::Start(self.named.clone()),
        }
    }

    fn apply(&mut self, _noted: &Noted) -> Result<(), Error> {
        match (self.deed, &self.named) {
            _ if does_nothing() => Ok(()),
            (Deed::Pause, _) => self.victim.signal(Signal::STOP),
            (Deed::Restart, Named::Unit(unit)) => {
                run("systemctl", &["restart", unit], "").map(drop)
            }
            (Deed::Restart | Deed::Kill, _) => {
                self.victim.signal(Signal::KILL)?;
                self.wait_for_its_end()
            }
        }
    }

    fn observe(&mut self) -> Result<Observation, Error> {
        let mut seen = Seen::default();
        match self.deed {
            Deed::Pause => self.observe_pause(&mut seen)?,
            Deed::Kill | Deed::Restart => self.observe_end(&mut seen)?,
        }
        Ok(seen.told())
    }
}

/// Lets a process go on, if it is still the one that was stopped.
pub(super) fn resume(noted: &NotedProcess) -> Result<String, Error> {
    let NotedProcess { name, pid, started_ticks } = noted;
    let Ok(victim) = Victim::of(name, *pid, Vec::new()) else {
        return Ok(format!("{name} (pid {pid}) is gone"));
    };
    if victim.started_ticks().ok() != Some(*started_ticks) {
        return Ok(format!("{name} (pid {pid}) is gone"));
    }
    let was_stopped = victim.state()?.threads.contains(&'T');
    if was_stopped {
        victim.signal(Signal::CONT)?;
        let deadline = Instant::now() + START_DEADLINE;
        while victim.exit().is_none() && victim.state()?.letter == 'T' {
            if Instant::now() >= deadline {
                let (node, pid) = (name.clone(), *pid);
                return Err(Error::NotResumed { node, pid, seen: "state T".into() });
            }
            sleep(LOOK_EVERY);
        }
        return Ok(format!("{name} (pid {pid}) goes on"));
    }
    Ok(format!("{name} (pid {pid}) was not stopped"))
}

/// Starts it, if it does not run.
pub(super) fn start(named: &Named) -> Result<String, Error> {
    if let Some(pid) = named.pid()? {
        return Ok(format!("{named} runs, as pid {pid}"));
    }
    let mut starting = None;
    match named {
        Named::Unit(unit) => {
            run("systemctl", &["start", unit], "")?;
        }
        Named::PidFile { start, .. } => {
            let failed =
                |problem| Error::Host { doing: format!("run `{}`", start.join(" ")), problem };
            let [program, arguments @ ..] = &start[..] else {
                return Err(failed(std::io::Error::other("it is empty")));
            };
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
            starting = Some(command.stderr(Stdio::null()).spawn().map_err(failed)?);
        }
    }
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let ended = starting.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(pid) = named.pid()?
            && (starting.is_none() || ended.is_some())
        {
            return Ok(format!("{named} was started again, as pid {pid}"));
        }
        if ended.is_some_and(|status| !status.success()) || Instant::now() >= deadline {
            let reason = match ended {
                Some(status) => format!("its start command ended ({status}) and it does not run"),
                None => format!("it did not run after {START_DEADLINE:.0?}"),
            };
            return Err(Error::Restart { node: named.to_string(), reason });
        }
        sleep(LOOK_EVERY);
    }
}
