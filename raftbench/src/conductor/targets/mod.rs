//! The systems that a run can start, and what of each is its own: how a member is launched, and
//! how its log tells of leadership.

pub(super) mod bench_node;
pub(super) mod etcd;
pub(super) mod external;

use std::path::PathBuf;
use std::process::Command;

use super::events::LogLine;

/// A member as it is launched. Addresses are `host:port`.
#[derive(Clone, Debug)]
pub struct Member {
    /// `n1`, `n2`, ...
    pub name: String,
    /// For clients.
    pub client: String,
    /// For its peers.
    pub peer: String,
    /// Serves `/metrics`.
    pub metrics: String,
    /// Its own.
    pub data_dir: PathBuf,
    /// Where all that it prints is appended, over all its starts.
    pub log: PathBuf,
}

/// How a member came into its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// With it.
    Founder,
    /// Later, through the others.
    Added,
}

/// How one target is started.
pub(super) trait Launcher: Send + Sync {
    /// Its name and version, as in `etcd 3.4.23`.
    fn version(&self) -> &str;

    /// The command line of `member` in a cluster of `all`, as one of its founders or as one that was
    /// added to it.
    fn command(&self, member: &Member, all: &[Member], role: Role) -> anyhow::Result<Command>;

    /// What a line of its log says about leadership, if anything.
    fn read_log_line(&self, line: &str) -> Option<LogLine>;
}
