//! The first process of a lab: makes what only the lab has (its view of processes, its `/etc/hosts`,
//! a network for each host), starts the program again on host `c1`, buries the dead, and ends with
//! the program, or when the outer side is gone.
//!
//! Invariant: the hosts' networks live as long as this process, which holds them as open files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};

use super::disks::server::file_of;
use super::enter::{Orders, pass_on, take_signals};
use super::iproute::Tool;
use super::layout::HostAddress;
use super::passport::{HostEntry, Passport, VARIABLE};
use super::this_program;
use crate::Error;

/// `lab-init PIPE ARGUMENT...`
pub(super) fn work(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, Error> {
    let doing = |what| move |source: std::io::Error| Error::Lab { what, problem: source };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| doing("bind its first process to the program")(errno.into()))?;
    let pipe = arguments.next().unwrap_or_default();
    let control = File::open(format!("/proc/self/fd/{}", pipe.to_string_lossy()))
        .map_err(doing("open its control pipe"))?;
    let mut control = BufReader::new(control);
    let mut orders = String::new();
    control.read_line(&mut orders).map_err(doing("read its orders"))?;
    let Ok(orders) = serde_json::from_str::<Orders>(&orders) else {
        // The outer side died before it gave any; and so does this.
        return Ok(ExitCode::FAILURE);
    };
    let signals = take_signals().map_err(doing("take signals"))?;
    own_view(&orders.hosts).map_err(|(what, source)| Error::Lab { what, problem: source })?;
    let networks = Networks::make(&orders.hosts)?;
    let disks = orders.disks_fd.map(keep_to_itself).transpose();
    let disks = disks.map_err(doing("hold the socket of its disks"))?;
    let passport = networks.passport(&orders, disks.as_ref());
    let passport = serde_json::to_string(&passport)
        .map_err(|error| doing("tell where it is")(error.into()))?;
    networks.enter_client().map_err(doing("enter the network of a client"))?;
    let mut program = this_program();
    program.args(arguments).env(VARIABLE, passport);
    let program = spawn_unblocked(&mut program).map_err(doing("start the program inside"))?;
    let status = wait(program, &signals, control.get_ref()).map_err(doing("wait inside"))?;
    Ok(ExitCode::from(code(status)))
}

/// The code that a shell would tell.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A socket that was inherited and that no child shall inherit again.
fn keep_to_itself(number: i32) -> std::io::Result<OwnedFd> {
    let kept = file_of(std::process::id() as i32, number)?;
    nix::unistd::close(number)?;
    Ok(kept)
}

type Failed = (&'static str, std::io::Error);

/// Mounts of this process and its descendants alone.
fn own_view(hosts: &[HostAddress]) -> Result<(), Failed> {
    let doing = |what| move |errno: Errno| (what, std::io::Error::from(errno));
    unshare(CloneFlags::CLONE_NEWNS).map_err(doing("make a mount namespace"))?;
    mount_simply(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)
        .map_err(doing("keep its mounts to itself"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_simply(Some("proc"), "/proc", Some("proc"), flags)
        .map_err(doing("mount /proc (in a container that hides parts of it, this is forbidden)"))?;
    name_hosts(hosts).map_err(|source| ("give its hosts names in /etc/hosts", source))
}

fn mount_simply(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
) -> nix::Result<()> {
    mount(source, target, kind, flags, None::<&str>)
}

/// Lays a file with the hosts' names over `/etc/hosts`.
fn name_hosts(hosts: &[HostAddress]) -> std::io::Result<()> {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    for host in hosts {
        text += &format!("{} {}\n", host.address, host.name);
    }
    // Its name is gone once it is mounted: nothing is left behind.
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    let path = file.path().to_string_lossy().into_owned();
    Ok(mount_simply(Some(&path), "/etc/hosts", None, MsFlags::MS_BIND)?)
}

/// The network namespaces of a lab.
struct Networks {
    /// Where links meet.
    core: File,
    hosts: Vec<(HostAddress, File)>,
}

impl Networks {
    fn make(hosts: &[HostAddress]) -> Result<Self, Error> {
        let core = network()?;
        let hosts = hosts
            .iter()
            .map(|host| Ok((host.clone(), network()?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self { core, hosts })
    }

    fn passport(&self, orders: &Orders, disks: Option<&OwnedFd>) -> Passport {
        let entry = |(host, file): &(HostAddress, File)| HostEntry {
            name: host.name.clone(),
            address: host.address,
            netns_fd: file.as_raw_fd(),
        };
        Passport {
            init_pid: orders.init_pid,
            init_started_ticks: orders.init_started_ticks,
            core_fd: self.core.as_raw_fd(),
            hosts: self.hosts.iter().map(entry).collect(),
            disks_fd: disks.map(AsRawFd::as_raw_fd),
        }
    }

    fn enter_client(&self) -> std::io::Result<()> {
        let client = self.hosts.iter().find(|(host, _)| host.name == "c1");
        let (_, network) = client.ok_or_else(|| std::io::Error::other("there is no c1"))?;
        Ok(setns(network, CloneFlags::CLONE_NEWNET)?)
    }
}

/// A new network with a loopback, which this thread is then in.
fn network() -> Result<File, Error> {
    let doing = |source| Error::Lab { what: "make a network namespace", problem: source };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| doing(errno.into()))?;
    Tool::Ip.batch(&["link set lo up".into()])?;
    File::open("/proc/self/ns/net").map_err(doing)
}

/// A child inherits the mask, and must be able to get signals.
pub(super) fn spawn_unblocked(command: &mut Command) -> std::io::Result<Child> {
    let mask = SigSet::thread_get_mask()?;
    SigSet::empty().thread_set_mask()?;
    let child = command.spawn();
    mask.thread_set_mask()?;
    child
}

/// Waits for the program's end, burying whoever else dies.
fn wait(mut program: Child, signals: &SignalFd, control: &File) -> std::io::Result<ExitStatus> {
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Nothing more is ever said over the pipe: the outer side is gone.
        if fds[1].any().unwrap_or(false) {
            return Ok(ExitStatus::from_raw(nix::libc::SIGKILL));
        }
        if fds[0].any().unwrap_or(false)
            && let Some(news) = signals.read_signal()?
        {
            pass_on(&news, program.id() as i32);
        }
        if let Some(status) = program.try_wait()? {
            return Ok(status);
        }
        bury(program.id() as i32)?;
    }
}

/// Reaps all dead children but the program.
fn bury(program: i32) -> std::io::Result<()> {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, look) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(status) => match status.pid() {
                Some(pid) if pid.as_raw() != program => drop(waitpid(pid, None)),
                _ => return Ok(()),
            },
            Err(errno) => return Err(errno.into()),
        }
    }
}
