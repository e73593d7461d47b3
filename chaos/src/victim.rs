//! A process that faults are done to, held by its pidfd so that a reused pid is never struck.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::lab::Lab;
use crate::{Error, sockets};

/// A node's process and where it listens.
#[derive(Clone, Debug)]
pub struct Victim {
    name: String,
    pid: i32,
    ports: Vec<u16>,
    lab: Option<Lab>,
    pidfd: Arc<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone, and not a child of ours, so its status went to another.
    Unseen,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with status {code}"),
            Exit::Signal(signal) => write!(f, "ended by signal {signal}"),
            Exit::Unseen => write!(f, "gone, its exit status unseen"),
        }
    }
}

impl Victim {
    /// Takes hold of the running process `pid`, which listens on `ports` of the loopback.
    pub fn of(name: impl Into<String>, pid: i32, ports: Vec<u16>) -> Result<Self, Error> {
        let name = name.into();
        let opened = Pid::from_raw(pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|id| pidfd_open(id, PidfdFlags::empty()));
        match opened {
            Ok(pidfd) => Ok(Self { name, pid, ports, lab: None, pidfd: Arc::new(pidfd) }),
            Err(errno) => Err(Error::Pidfd { node: name, pid, source: errno.into() }),
        }
    }

    /// It runs on the host of `lab` that has its name, and listens on that host's address.
    pub fn in_lab(self, lab: Lab) -> Self {
        Self { lab: Some(lab), ..self }
    }

    /// The ports that accept connections now. In a lab they are asked on the victim's own host, so
    /// that no link is in the way.
    pub fn answering(&self) -> Vec<u16> {
        match self.lab.as_ref().map(|lab| lab.host(&self.name)) {
            None => sockets::answering(Ipv4Addr::LOCALHOST, &self.ports),
            Some(Ok(host)) => {
                let asked = host.within(|| sockets::answering(host.address(), &self.ports));
                asked.unwrap_or_default()
            }
            Some(Err(_)) => Vec::new(),
        }
    }

    /// Where it runs, if that is a lab.
    pub(crate) fn lab(&self) -> Option<&Lab> {
        self.lab.as_ref()
    }

    /// Its node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Where it listens.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// How it ended, once it did. Does not reap it: that is its parent's.
    pub fn exit(&self) -> Option<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => status
                .exit_status()
                .map(Exit::Code)
                .or(status.terminating_signal().map(Exit::Signal))
                .or(Some(Exit::Unseen)),
            Ok(None) => None,
            // Not our child, or reaped already: the pidfd still tells whether it is gone.
            Err(_) => self.is_gone().then_some(Exit::Unseen),
        }
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        pidfd_send_signal(&*self.pidfd, signal).map_err(|errno| Error::Signal {
            node: self.name.clone(),
            pid: self.pid,
            signal: signal_name(signal),
            source: errno.into(),
        })
    }

    /// The state letter of `/proc/PID/stat` of each thread, and the CPU time of all in ticks.
    pub(crate) fn state(&self) -> Result<State, Error> {
        let process = self.proc()?;
        let stat = process.stat().map_err(|error| self.proc_error(error))?;
        let threads = process
            .tasks()
            .map_err(|error| self.proc_error(error))?
            // A thread may end between listing and reading.
            .filter_map(|task| Some(task.ok()?.stat().ok()?.state))
            .collect();
        Ok(State { letter: stat.state, threads, cpu_ticks: stat.utime + stat.stime })
    }

    /// When it started, in ticks since boot: with its pid this names it for good.
    pub(crate) fn started_ticks(&self) -> Result<u64, Error> {
        let stat = self.proc()?.stat().map_err(|error| self.proc_error(error))?;
        Ok(stat.starttime)
    }

    /// How many of its threads sleep in that function of the kernel, as far as we may know.
    pub(crate) fn threads_waiting_in(&self, function: &str) -> usize {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return 0 };
        let waits = |task: &std::fs::DirEntry| {
            let place = std::fs::read_to_string(task.path().join("wchan"));
            place.is_ok_and(|place| place.starts_with(function))
        };
        tasks.flatten().filter(waits).count()
    }

    pub(crate) fn proc(&self) -> Result<Process, Error> {
        Process::new(self.pid).map_err(|error| self.proc_error(error))
    }

    pub(crate) fn proc_error(&self, error: procfs::ProcError) -> Error {
        Error::Proc { node: self.name.clone(), pid: self.pid, reason: error.to_string() }
    }

    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// What the scheduler says of a process.
pub(crate) struct State {
    pub(crate) letter: char,
    pub(crate) threads: Vec<char>,
    pub(crate) cpu_ticks: u64,
}

impl State {
    /// Every thread is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.letter == 'T' && self.threads.iter().all(|state| *state == 'T')
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::KILL => "SIGKILL",
        Signal::TERM => "SIGTERM",
        Signal::STOP => "SIGSTOP",
        Signal::CONT => "SIGCONT",
        _ => "the signal",
    }
}
