//! The plan: a profile and the flags of one run, resolved into a value that can be printed,
//! tested, and walked.
//!
//! Invariant: parsed once and checked whole. The conductor only walks it, and never looks at the
//! profile's text again.

mod disk;
mod link_fault;
mod network;
mod resolved;
mod timeline;

use std::fmt;
use std::time::Duration;

use loadgen::preload::Preload;
use loadgen::spec::LoadSpec;
use loadgen::target::Api;
use toml::Table;

pub use disk::{DiskFaultKind, DiskFaultPlan, DiskPlan};
pub(crate) use link_fault::check_over;
pub use link_fault::{LinkPlan, PartitionPlan, Shape};
pub use network::NetworkPlan;

/// The dashboard's five metrics, as `[expect] required` and the thresholds name them.
pub const METRICS: [&str; 5] = [
    "leader_changes_total",
    "wal_fsync_duration_seconds",
    "commit_latency_seconds",
    "follower_lag_entries",
    "raft_term",
];

/// Everything one run will do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The profile's name: an embedded one's, or the file's stem.
    pub profile: String,
    /// The profile's own sentence.
    pub description: String,
    /// Seeds everything random in the run.
    pub seed: u64,
    /// What is loaded.
    pub cluster: ClusterPlan,
    /// What it holds before that.
    pub preload: Option<Preload>,
    /// How it is loaded.
    pub load: LoadSpec,
    /// By which of its interfaces.
    pub api: Api,
    /// What breaks, by time.
    pub faults: Vec<FaultPlan>,
    /// What is checked besides the thresholds.
    pub checks: Checks,
    /// The dashboard's limits.
    pub limits: Limits,
    /// What the run must show while faults hold.
    pub expect: Expect,
}

/// What is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPlan {
    /// Which system.
    pub target: Target,
    /// Members; 0 for an external cluster until its member list was read.
    pub nodes: usize,
    /// How often an idle leader is heard from.
    pub heartbeat_ms: u64,
    /// The lower bound of the election timeout.
    pub election_timeout_ms: u64,
    /// Between the nodes, each then on a host of its own; `None`: loopback.
    pub network: Option<NetworkPlan>,
    /// Under each node's data; `None`: the host's own.
    pub disk: Option<DiskPlan>,
    /// `[cluster.bench_node]`: handed to the node's config as it stands, which checks it.
    pub bench_node: Table,
    /// `[cluster.etcd] flags`: appended to etcd's command line.
    pub etcd_flags: Vec<String>,
}

/// The systems a run can load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The reference node, started by the run.
    BenchNode,
    /// etcd as found on the PATH, started by the run.
    Etcd,
    /// A cluster that already runs and speaks etcd's API (`--endpoints`).
    External {
        /// `host:port`, without a scheme.
        endpoints: Vec<String>,
    },
}

/// One fault on the timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// `f1`, `f2`, ... in the order of the profile; `f1.1`, `f1.2`, ... where `f1` repeats.
    pub id: String,
    /// What is done.
    pub kind: FaultKind,
    /// Onto whom; chosen when it starts.
    pub target: FaultTarget,
    /// From time zero.
    pub at: Duration,
}

/// What is done, to a process, its disk or its links, or with the cluster's own means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// SIGKILL; started again after `restart_after`, or left down until the end of the run.
    Kill {
        /// From the injection.
        restart_after: Option<Duration>,
    },
    /// SIGTERM, and the process must end by itself.
    Terminate {
        /// From the injection.
        restart_after: Option<Duration>,
    },
    /// SIGSTOP, then SIGCONT.
    Pause {
        /// From the injection.
        resume_after: Duration,
    },
    /// The leader is asked to hand leadership to the target (etcd's MoveLeader).
    Transfer,
    /// SIGKILL, and the node never comes back: it is removed from the cluster, its data directory
    /// goes, and a new member takes its place with an empty one.
    Replace {
        /// From the injection to the new member's start.
        rejoin_after: Duration,
    },
    /// A fault of its disk.
    Disk(DiskFaultPlan),
    /// Links are cut.
    Partition(PartitionPlan),
    /// Links get worse.
    Link(LinkPlan),
}

/// Whom a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultTarget {
    /// The present leader.
    Leader,
    /// One follower, by the seed.
    Follower,
    /// All followers.
    Followers,
    /// Any one node, by the seed.
    One,
    /// As many as leave a quorum, by the seed.
    Minority,
    /// The fewest that break the quorum, by the seed.
    Majority,
    /// All.
    All,
    /// These.
    Names(Vec<String>),
}

/// What is checked besides the thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Read back every key after the run and account for every acknowledged write.
    pub audit: bool,
    /// Check the history for linearizability.
    pub linearizable: bool,
}

/// The dashboard's limits; a metric above its limit fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Leader changes in any 60 s.
    pub leader_changes_per_minute: f64,
    /// p99 of the log's sync.
    pub wal_fsync_p99_ms: f64,
    /// p99 from proposal to commit.
    pub commit_p99_ms: f64,
    /// Entries that a follower is behind.
    pub follower_lag_entries: u64,
    /// Growth of the term in any 60 s.
    pub term_growth_per_minute: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            leader_changes_per_minute: 1.0,
            wal_fsync_p99_ms: 50.0,
            commit_p99_ms: 100.0,
            follower_lag_entries: 1000,
            term_growth_per_minute: 2.0,
        }
    }
}

/// What the run must show while faults hold, and which metrics it cannot do without.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// No fault's outage may be longer.
    pub max_outage_ms: Option<f64>,
    /// Without data for one of these the run is inconclusive; `None`: all that the target offers.
    pub required: Option<Vec<String>>,
    /// An operation that takes longer is late; `None`: the larger of 100 ms and 10 x the
    /// baseline's p99.
    pub late_after_ms: Option<f64>,
}

impl Target {
    /// As `--target` and the profile have it.
    pub fn name(&self) -> &'static str {
        match self {
            Target::BenchNode => "bench-node",
            Target::Etcd => "etcd",
            Target::External { .. } => "external",
        }
    }
}

impl ClusterPlan {
    /// `n1` to `nN`.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("n{number}")).collect()
    }

    /// Settings in force that give up what Raft promises; the first line of every report.
    pub fn unsafe_settings(&self) -> Vec<String> {
        match self.target {
            Target::BenchNode => self
                .bench_node
                .iter()
                .filter(|(key, value)| key.starts_with("unsafe_") && value.as_bool() != Some(false))
                .map(|(key, value)| format!("{key} = {value}"))
                .collect(),
            Target::Etcd => {
                self.etcd_flags.iter().filter(|flag| flag.contains("unsafe-")).cloned().collect()
            }
            Target::External { .. } => Vec::new(),
        }
    }
}

impl FaultKind {
    /// As the profile and `faults.jsonl` have it.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Kill { .. } => "kill",
            FaultKind::Terminate { .. } => "terminate",
            FaultKind::Pause { .. } => "pause",
            FaultKind::Transfer => "transfer",
            FaultKind::Replace { .. } => "replace",
            FaultKind::Disk(fault) => fault.kind.name(),
            FaultKind::Partition(_) => "partition",
            FaultKind::Link(_) => "link",
        }
    }

    /// How long it holds; `None`: to the end of the run.
    pub fn holds(&self) -> Option<Duration> {
        match *self {
            FaultKind::Kill { restart_after } | FaultKind::Terminate { restart_after } => {
                restart_after
            }
            FaultKind::Pause { resume_after } => Some(resume_after),
            FaultKind::Transfer => Some(Duration::ZERO),
            FaultKind::Replace { rejoin_after } => Some(rejoin_after),
            FaultKind::Disk(fault) => fault.holds,
            FaultKind::Partition(partition) => Some(partition.heal_after),
            FaultKind::Link(link) => Some(link.heal_after),
        }
    }

    /// Its victims are no part of the quorum while it holds.
    pub fn takes_out(&self) -> bool {
        match self {
            FaultKind::Partition(partition) => partition.takes_out(),
            FaultKind::Link(_) | FaultKind::Transfer => false,
            FaultKind::Disk(fault) => !matches!(fault.kind, DiskFaultKind::Slow { .. }),
            _ => true,
        }
    }

    /// It ends its victims' processes.
    pub fn ends(&self) -> bool {
        match self {
            FaultKind::Kill { .. } | FaultKind::Terminate { .. } => true,
            FaultKind::Disk(fault) => fault.kind.may_end(),
            _ => false,
        }
    }
}

impl fmt::Display for FaultTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultTarget::Leader => "leader",
            FaultTarget::Follower => "follower",
            FaultTarget::Followers => "followers",
            FaultTarget::One => "one",
            FaultTarget::Minority => "minority",
            FaultTarget::Majority => "majority",
            FaultTarget::All => "all",
            FaultTarget::Names(names) => return f.write_str(&names.join(",")),
        })
    }
}
