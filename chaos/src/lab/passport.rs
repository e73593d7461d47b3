//! What a lab's processes, and those that join it, know of it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Where a lab is. As JSON it is handed to the processes in the lab, and kept in a run's folder for
/// those that join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passport {
    /// The lab's first process, as it is called outside.
    pub(super) init_pid: i32,
    /// When it started, in ticks since boot: with the pid it names one process for good.
    pub(super) init_started_ticks: u64,
    /// A file of the first process: the network namespace in which the hosts' links meet.
    pub(super) core_fd: i32,
    /// The hosts, nodes first.
    pub(super) hosts: Vec<HostEntry>,
    /// A file of the first process: the socket to the server of disks, where there is one.
    pub(super) disks_fd: Option<i32>,
}

/// A host, and the file of the first process that holds its network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostEntry {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) netns_fd: i32,
}

/// Inside, where the lab's processes find it.
pub(super) const VARIABLE: &str = "RAFTBENCH_LAB";

impl Passport {
    /// Keeps it in `path`.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::LabFile { path: path.to_owned(), problem: source };
        let text = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        std::fs::write(path, text + "\n").map_err(failed)
    }

    /// One that was kept, of a lab that still runs.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::LabFile { path: path.to_owned(), problem: source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let passport: Self = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
        match Process::new(passport.init_pid).and_then(|process| process.stat()) {
            // One that has ended is there until its parent looks.
            Ok(init) if init.starttime == passport.init_started_ticks && init.state != 'Z' => {
                Ok(passport)
            }
            _ => Err(Error::LabEnded { path: path.to_owned() }),
        }
    }

    /// A file of the first process, which is called `init` where we are.
    pub(super) fn file(init: i32, fd: i32) -> PathBuf {
        PathBuf::from(format!("/proc/{init}/fd/{fd}"))
    }
}
