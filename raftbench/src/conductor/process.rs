//! One node's process: started with its log and the run's mark, ended, reaped.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use chaos::{Exit, Victim};
use rustix::process::Signal;

use super::place::Place;
use super::targets::{Member, Role};
use crate::keeper::MARK;

/// The nodes share this machine's cores with the generator, which in earnest has a machine of its
/// own. It needs little, but that at once: with equal rights it waits behind three busy nodes for
/// milliseconds, and the run is about the scheduler. Measured with three etcd on two cores: p99 of
/// the send lag 1.7 ms at equal rights, 0.6 ms so, in single runs without real-time priority. The
/// price:
/// whatever else is busy here (a build, say) holds the nodes up.
const NICENESS: i32 = 5;

/// A started node.
pub(super) struct Node {
    pub(super) victim: Victim,
    /// Counts its starts, from 1.
    pub(super) start: u32,
    /// A fault, or the end of the run, takes it down.
    pub(super) down_is_meant: bool,
    /// What it is started as, also when it is started again.
    pub(super) role: Role,
    name: String,
    child: Child,
}

impl Node {
    /// Starts `member` with `command`; what it prints is appended to its log.
    pub(super) fn spawn(
        mut command: Command,
        member: &Member,
        place: &Place,
        mark: &str,
        start: u32,
        role: Role,
    ) -> anyhow::Result<Self> {
        let open = OpenOptions::new().create(true).append(true).open(&member.log);
        let log = open.with_context(|| format!("cannot open {}", member.log.display()))?;
        let errors = log.try_clone().context("cannot share a log")?;
        command.env(MARK, mark).process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = place.spawn(&member.name, &mut command)?;
        // Threads inherit it; so soon after its start a process has one. Where it fails the send lag
        // tells.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::setpriority_process(Some(pid), NICENESS).ok();
        let addresses = [&member.client, &member.peer, &member.metrics];
        let listens: Vec<SocketAddr> = addresses.iter().filter_map(|a| a.parse().ok()).collect();
        let ports = listens.iter().map(SocketAddr::port).collect();
        // Nobody but us reaps it, so its id is its own until then.
        let victim = place.victim(&member.name, child.id() as i32, ports)?;
        let name = member.name.clone();
        Ok(Self { victim, start, down_is_meant: false, role, name, child })
    }

    /// It accepts connections everywhere; or how it ended.
    pub(super) fn listens(&self) -> Result<bool, Exit> {
        let all = self.victim.answering().len() == self.victim.ports().len();
        // Looked at last: another program may answer on the port of a node that could not bind it.
        self.victim.exit().map_or(Ok(all), Err)
    }

    /// SIGTERM, also to one that is stopped.
    pub(super) fn ask_to_end(&mut self) {
        self.down_is_meant = true;
        if self.victim.exit().is_none() {
            self.victim.signal(Signal::TERM).ok();
            self.victim.signal(Signal::CONT).ok();
        }
    }

    /// Waits for its end until `deadline`, then kills it and says so.
    pub(super) fn end_by(&mut self, deadline: Instant) -> Option<String> {
        while self.victim.exit().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let late = self.victim.exit().is_none();
        self.kill();
        late.then(|| format!("{} did not end by itself after SIGTERM and was killed", self.name))
    }

    /// Kills and reaps it.
    pub(super) fn kill(&mut self) {
        self.victim.signal(Signal::KILL).ok();
        self.reap();
    }

    /// Collects its status; it has ended, or is about to.
    pub(super) fn reap(&mut self) {
        self.child.wait().ok();
    }
}

impl Drop for Node {
    /// Nothing outlives its owner, whatever way the run ends.
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub(super) fn log_tail(path: &Path) -> String {
    const BYTES: u64 = 2048;
    const LINES: usize = 8;
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let start = file.metadata()?.len().saturating_sub(BYTES);
        file.seek(SeekFrom::Start(start))?;
        file.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("(cannot read {}: {error})", path.display());
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    if lines.is_empty() {
        return "(it is empty)".to_owned();
    }
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
