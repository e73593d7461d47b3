//! The outer side of a lab: makes the namespaces that a process can only make for itself, starts
//! the lab's first process, passes the user's signals on, and waits for the end.
//!
//! Invariant: when this process dies, by whatever death, the first process gets SIGKILL from the
//! kernel, and the end of its control pipe besides.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ExitStatus};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use procfs::process::Process;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use super::disks::server;
use super::layout::{HostAddress, Layout};
use super::{DISKS, INIT, permission, this_program};
use crate::Error;

/// What the first process is told over its control pipe, in one line.
#[derive(Serialize, Deserialize)]
pub(super) struct Orders {
    /// What the reader is called outside.
    pub(super) init_pid: i32,
    pub(super) init_started_ticks: u64,
    pub(super) hosts: Vec<HostAddress>,
    /// A socket that the reader inherits: to the server of disks.
    pub(super) disks_fd: Option<i32>,
}

/// Runs this program again with `arguments` in a lab of `layout`, on the host `c1`, and waits for
/// its end; all processes in the lab have then ended. `mark` is a variable that every process of
/// the lab gets. This process must have one thread, and may have changed its user namespace
/// afterwards.
pub fn enter(
    layout: &Layout,
    arguments: &[OsString],
    mark: (&str, &str),
) -> Result<ExitStatus, Error> {
    enter_as(layout, arguments, mark, false)
}

/// As [`enter`], and [`super::disks`] can be had inside.
pub fn enter_with_disks(
    layout: &Layout,
    arguments: &[OsString],
    mark: (&str, &str),
) -> Result<ExitStatus, Error> {
    enter_as(layout, arguments, mark, true)
}

fn enter_as(
    layout: &Layout,
    arguments: &[OsString],
    mark: (&str, &str),
    with_disks: bool,
) -> Result<ExitStatus, Error> {
    let doing = |what| move |source: std::io::Error| Error::Lab { what, problem: source };
    // From here on the user's signals are for the program inside, which knows how to end well.
    let signals = take_signals().map_err(doing("take signals"))?;
    take_the_right()?;
    // Before the pid namespace: the server is not to be in it.
    let disks = with_disks.then(DiskServer::start).transpose();
    let mut disks = disks.map_err(doing("start the server of its disks"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| refused(errno.into()))?;
    let (orders_end, mut control) = pipe_with(PipeFlags::CLOEXEC)
        .map(|(read, write)| (read, fs::File::from(write)))
        .map_err(|errno| doing("make a pipe")(errno.into()))?;
    // The one file that the first process inherits.
    fcntl_setfd(&orders_end, FdFlags::empty())
        .map_err(|errno| doing("hand on a pipe")(errno.into()))?;
    let mut init = this_program();
    init.arg(INIT).arg(orders_end.as_raw_fd().to_string()).args(arguments).env(mark.0, mark.1);
    let mut init = init.spawn().map_err(doing("start its first process"))?;
    drop(orders_end);
    let disks_fd = disks.as_mut().and_then(DiskServer::hand_over);
    let orders = orders(&init, layout, disks_fd).map_err(doing("look at its first process"))?;
    // One that has ended already says why by itself.
    control.write_all(orders.as_bytes()).ok();
    let status = wait(&mut init, &signals).map_err(doing("wait for its end"))?;
    drop(control);
    Ok(status)
}

/// The process that serves the disks; it ends with this value.
struct DiskServer {
    process: Child,
    /// The other end of its socket, until the first process has it.
    socket: Option<OwnedFd>,
}

impl DiskServer {
    fn start() -> std::io::Result<Self> {
        let (own, others) = server::socket_pair()?;
        let mut command = this_program();
        let process = command.arg(DISKS).stdin(own).spawn()?;
        // Inherited by the first process.
        fcntl_setfd(&others, FdFlags::empty())?;
        Ok(Self { process, socket: Some(others) })
    }

    /// What the socket is called in the first process, which has inherited it; here it is closed.
    fn hand_over(&mut self) -> Option<i32> {
        self.socket.take().map(|socket| socket.as_raw_fd())
    }
}

impl Drop for DiskServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A user namespace, where this process may not make the other kinds as it is.
pub(crate) fn take_the_right() -> Result<(), Error> {
    if permission::is_privileged() {
        return Ok(());
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refused(errno.into()))?;
    let map =
        |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text).map_err(refused);
    map("setgroups", "deny".into())?;
    map("uid_map", format!("0 {uid} 1"))?;
    map("gid_map", format!("0 {gid} 1"))
}

fn refused(source: std::io::Error) -> Error {
    Error::NoNamespaces { problem: source, hint: permission::why_refused() }
}

fn orders(init: &Child, layout: &Layout, disks_fd: Option<i32>) -> std::io::Result<String> {
    let init_pid = init.id() as i32;
    let stat = Process::new(init_pid).and_then(|process| process.stat());
    let stat = stat.map_err(|error| std::io::Error::other(error.to_string()))?;
    let (init_started_ticks, hosts) = (stat.starttime, layout.hosts());
    let orders = Orders { init_pid, init_started_ticks, hosts, disks_fd };
    Ok(serde_json::to_string(&orders)? + "\n")
}

/// The signals that a user ends programs with, and the news of children.
pub(super) fn take_signals() -> std::io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in ENDING {
        signals.add(*signal);
    }
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    Ok(SignalFd::new(&signals)?)
}

const ENDING: &[Signal] = &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Waits for the end of `child`, and passes on what `kill` sent us. What the terminal sent, it sent
/// to the child as well.
pub(super) fn wait(child: &mut Child, signals: &SignalFd) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let Some(news) = signals.read_signal()? else { continue };
        pass_on(&news, child.id() as i32);
    }
}

/// Passes a signal on to process `pid`, unless the kernel itself sent it.
pub(super) fn pass_on(news: &nix::sys::signalfd::siginfo, pid: i32) {
    const SENT_BY_A_PROCESS: i32 = 0;
    let Ok(signal) = Signal::try_from(news.ssi_signo as i32) else { return };
    if signal != Signal::SIGCHLD && news.ssi_code == SENT_BY_A_PROCESS {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).ok();
    }
}
