//! A lab, seen by a process that is in it.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::disks::server::file_of;
use super::passport::{Passport, VARIABLE};
use crate::Error;

/// The lab that this process is in.
#[derive(Clone, Debug)]
pub struct Lab {
    passport: Passport,
    hosts: Vec<Host>,
    core: PathBuf,
}

/// One of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    network: PathBuf,
}

/// What the lab's first process is called in it.
const INIT_PID: i32 = 1;

impl Lab {
    /// The lab around this process, if there is one.
    pub fn inside() -> Option<Self> {
        let passport = serde_json::from_str(&std::env::var(VARIABLE).ok()?).ok()?;
        let lab = Self::of(passport);
        // The variable may have come along to where the lab is not.
        let network = std::fs::read_link(&lab.core).ok()?;
        network.to_string_lossy().starts_with("net:").then_some(lab)
    }

    fn of(passport: Passport) -> Self {
        let host = |host: &super::passport::HostEntry| Host {
            name: host.name.clone(),
            address: host.address,
            network: Passport::file(INIT_PID, host.netns_fd),
        };
        let hosts = passport.hosts.iter().map(host).collect();
        let core = Passport::file(INIT_PID, passport.core_fd);
        Self { passport, hosts, core }
    }

    /// What lets others join it.
    pub fn passport(&self) -> &Passport {
        &self.passport
    }

    /// All hosts, nodes first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Result<&Host, Error> {
        self.hosts.iter().find(|host| host.name == name).ok_or_else(|| Error::UnknownHost {
            name: name.to_owned(),
            known: names(self.hosts.iter().map(|host| host.name.as_str())),
        })
    }

    /// The socket to the server of disks.
    pub(super) fn disks_socket(&self) -> Result<OwnedFd, Error> {
        let failed = |problem| Error::Lab { what: "reach the server of its disks", problem };
        let number =
            self.passport.disks_fd.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        file_of(INIT_PID, number).map_err(failed)
    }

    /// Does `work` in the network in which the links meet.
    pub(super) fn in_core<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        within(&self.core, work)
    }
}

/// "n1, n2, c1".
pub(super) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

impl Host {
    /// `n1`, `c1`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// On its `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The file that stands for its network.
    pub(super) fn network(&self) -> &PathBuf {
        &self.network
    }

    /// Does `work` on a thread of its own that is in this host's network: a socket made there
    /// belongs to this host, whoever uses it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        within(&self.network, work)
    }

    /// Starts `command` on this host, as a child of this process.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        command.env_remove(VARIABLE);
        self.within(|| command.spawn())?.map_err(|source| Error::Command {
            program: command.get_program().to_string_lossy().into_owned(),
            problem: source,
        })
    }
}

pub(super) fn within<T: Send>(
    network: &PathBuf,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    let inside = || {
        let entered = File::open(network)
            .and_then(|network| setns(network, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        entered.map_err(|source| Error::Lab { what: "enter a host's network", problem: source })?;
        Ok(work())
    };
    thread::scope(|scope| {
        let done = thread::Builder::new().spawn_scoped(scope, inside);
        let done = done.map_err(|source| Error::Lab { what: "start a thread", problem: source })?;
        done.join().unwrap_or_else(|panicked| resume_unwind(panicked))
    })
}
