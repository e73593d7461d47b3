//! What the agent is told by whoever owns the host. Read from a file by the command; here are its
//! values, and what each may be.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who it is, and whom it lets in. Only on a loopback address can there be none.
    pub tls: Option<Tls>,
    /// Belongs to this agent alone; holds its undo journal.
    pub state_dir: PathBuf,
    /// No lease is longer.
    pub longest_lease: Duration,
    /// What it may touch.
    pub allowed: Allowed,
}

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The agent's certificate, with those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA whose certificates clients must have.
    pub client_ca: PathBuf,
}

/// What faults may be done to. Each must be named; there is no pattern.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Network interfaces.
    pub interfaces: Vec<String>,
    /// Whole disks, by their device nodes.
    pub block_devices: Vec<PathBuf>,
    /// Control groups, by their path below where their hierarchy is mounted.
    pub cgroups: Vec<String>,
    /// Units of systemd.
    pub units: Vec<String>,
    /// Processes, where there is no systemd.
    pub processes: Vec<PidFile>,
}

/// A process that writes its id to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    /// What it is called.
    pub name: String,
    /// Where its id is.
    pub pid_file: PathBuf,
    /// The command that starts it, and returns. Without it, it cannot be killed.
    pub start: Vec<String>,
}

/// Refuses what no interface is called.
pub fn check_interface(name: &str) -> Result<(), &'static str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    match !name.is_empty() && name.len() < 16 && !name.starts_with('-') && name.chars().all(fine) {
        true => Ok(()),
        false => Err("is no name of an interface; `ip -br link` shows those that there are"),
    }
}

/// Refuses what is no control group of its own: the root, and what leads out of it.
pub fn check_cgroup(path: &str) -> Result<(), &'static str> {
    let parts = Path::new(path).components();
    let mut parts = parts.map(|part| matches!(part, std::path::Component::Normal(_)));
    match !path.is_empty() && parts.all(|normal| normal) {
        true => Ok(()),
        false => Err("is no path of a control group below its mount, such as \
                      system.slice/etcd.service"),
    }
}

/// Refuses what no unit is called.
pub fn check_unit(name: &str) -> Result<(), &'static str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    match name.ends_with(".service") && !name.starts_with('-') && name.chars().all(fine) {
        true => Ok(()),
        false => Err("is no service unit's full name, such as etcd.service"),
    }
}
