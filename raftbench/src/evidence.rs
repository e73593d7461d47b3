//! What a run observed besides its operations: faults, leadership events, metrics. One type for
//! each line format of the run folder; the conductor writes them, the judge reads them.
//!
//! Invariant: observations only. Nothing here is derived from another record; derivation is the
//! judge's. Times are ns on the run's clock.

use std::collections::BTreeMap;

use loadgen::audit::FinalState;
use loadgen::record::LoadResult;
use serde::{Deserialize, Serialize};

/// A line of `faults.jsonl`: what was done to whom, and how it was seen to bite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// As in the plan.
    pub id: String,
    /// As the profile has it: `kill`, `partition`, `disk_stall`, ...
    pub kind: String,
    /// As asked: `leader`, `n2`, ...
    pub target: String,
    /// The nodes it came to.
    pub victims: Vec<String>,
    /// Just before the first signal was sent, or the links were changed.
    pub injected_ns: i64,
    /// Term of the cluster then.
    pub term_at_injection: Option<u64>,
    /// Leader then.
    pub leader_at_injection: Option<String>,
    /// Seen from outside to have bitten.
    pub effective: bool,
    /// What was seen, with its numbers; where it did not bite, what was seen instead.
    pub proof: String,
    /// When it was undone (restarted, resumed, links opened); `None`: it held to the end of the run.
    pub healed_ns: Option<i64>,
    /// When every victim had caught up with the leader again; `None`: not before the deadline.
    pub recovered_ns: Option<i64>,
}

/// A line of `events.jsonl`: a server's own word about leadership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When, by the server's log.
    pub t_ns: i64,
    /// Who says so.
    pub node: String,
    /// What it became.
    pub role: EventRole,
    /// In which term.
    pub term: u64,
    /// The leader it names, where it does.
    pub leader: Option<String>,
    /// In the server's words.
    pub reason: String,
    /// How exact `t_ns` is.
    pub resolution_us: u64,
}

/// The roles that servers report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventRole {
    /// Follows.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A line of `metrics.jsonl`: one look at one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricSample {
    /// When its answer came.
    pub t_ns: i64,
    /// Whom.
    pub node: String,
    /// Counts this node's starts; counters begin anew with each.
    pub start: u32,
    /// From the Status call, where it answered.
    pub status: Option<NodeStatus>,
    /// From `/proc`, where the process is ours.
    pub process: Option<ProcessSample>,
    /// From the emulated disk under it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSample>,
    /// Counters and gauges from `/metrics` under the server's own names, labels in braces.
    pub values: BTreeMap<String, f64>,
    /// Histograms from `/metrics` under the server's own names.
    pub histograms: BTreeMap<String, HistogramSample>,
}

/// What Status said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// When it was asked.
    pub asked_ns: i64,
    /// When it answered.
    pub answered_ns: i64,
    /// Its term.
    pub term: u64,
    /// It leads.
    pub is_leader: bool,
    /// Its log's (etcd: committed) index.
    pub index: u64,
    /// What it has applied.
    pub applied_index: u64,
}

/// What the kernel said of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Its id.
    pub pid: i32,
    /// User and system time since its start.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Bytes that it sent to the block layer since its start.
    pub written_bytes: u64,
}

/// What an emulated disk counted, since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskSample {
    /// Syncs that were answered.
    pub syncs: u64,
    /// Bytes that they had to make durable.
    pub synced_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Reads that no cache answered.
    pub reads: u64,
    /// Requests that are being served or held.
    pub in_flight: u64,
    /// Requests that a stall holds.
    pub held: u64,
    /// Requests that were refused: the disk was full, or broken.
    pub refused: u64,
    /// Of the syncs since the last change of the disk's condition (a fault's start or end).
    pub sync_p50_ms: f64,
    /// Of the same.
    pub sync_p99_ms: f64,
    /// Of the same.
    pub sync_max_ms: f64,
    /// Requests that could still be served at the burst rate, where there is one.
    pub burst_credits: Option<f64>,
}

/// A cumulative histogram, as Prometheus text has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramSample {
    /// Upper bound (as written; `+Inf` is [`f64::MAX`]) and cumulative count, ascending.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of the observations, in the metric's unit.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

/// All that a run observed. The conductor fills it, the judge reads it, the folder keeps it.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The clients' side.
    pub load: LoadResult,
    /// In order of injection.
    pub faults: Vec<FaultRecord>,
    /// In order of time, as far as the servers' clocks agree.
    pub events: Vec<EventRecord>,
    /// In order of time.
    pub samples: Vec<MetricSample>,
    /// Where the run's zero lies on the wall clock, in ns since the Unix epoch.
    pub zero_unix_ns: i128,
    /// The members, by name.
    pub nodes: Vec<NodeRecord>,
    /// What lay between the hosts of a lab; `None`: loopback.
    pub network: Option<NetworkRecord>,
    /// The emulated disks under the nodes; `None`: the host's own.
    pub disk: Option<DiskRecord>,
    /// The target's own word on its version, as in `etcd 3.4.23`.
    pub target_version: String,
    /// Where the data directories lie; `None` for a cluster that was not ours to start.
    pub data_dir: Option<DataDirRecord>,
    /// What the run's keys held after it, read back linearizably; `None`: no audit was planned, or
    /// they could not be read.
    pub final_state: Option<FinalState>,
    /// Share of this machine's CPU time that the hypervisor gave to others while the load ran, 0 to 1;
    /// `None` where the kernel does not say.
    pub stolen_cpu_share: Option<f64>,
    /// What went wrong though the plan did not ask for it, such as a node that ended by itself.
    /// With any of these a run cannot pass.
    pub problems: Vec<String>,
}

impl Observed {
    /// The endpoints' nodes, in the endpoints' order; an endpoint without a node is its own name.
    pub fn endpoint_names(&self) -> Vec<String> {
        let name = |endpoint: &String| {
            let node = self.nodes.iter().find(|node| node.client == *endpoint);
            node.map_or_else(|| endpoint.clone(), |node| node.name.clone())
        };
        self.load.endpoints.iter().map(name).collect()
    }
}

/// A member of the cluster under test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// `n1`, `n2`, ...; an external member's own.
    pub name: String,
    /// Where clients reach it, `host:port`.
    pub client: String,
}

/// The links between the hosts of a lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// As the profile has it: `cross-az`.
    pub name: String,
    /// Who carried the packets: `netem` or `switch`.
    pub links: String,
    /// What that said of itself when the load had ended, such as its own speed.
    pub about: String,
    /// Before the load.
    pub round_trips: Vec<RoundTrip>,
}

/// How long from one host to another and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// `c1`, `n1`, ...
    pub from: String,
    /// `n1`, ...
    pub to: String,
    /// By the profile.
    pub asked_ms: f64,
    /// The median of what setting up a TCP connection took.
    pub measured_ms: f64,
}

impl RoundTrip {
    /// Within 2 % or 0.3 ms, whichever is more.
    pub fn is_as_asked(&self) -> bool {
        (self.measured_ms - self.asked_ms).abs() <= (0.02 * self.asked_ms).max(0.3)
    }
}

/// The emulated disks of a lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// As the profile has it: `gp3`.
    pub name: String,
    /// What held the bytes: `disk` or `memory`.
    pub backing: String,
    /// Of a sync, by the profile.
    pub asked: AskedTimes,
    /// One for each node.
    pub hosts: Vec<HostDisk>,
}

/// A model's times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AskedTimes {
    /// Mean.
    pub mean_ms: f64,
    /// Quartile.
    pub p25_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// Quartile.
    pub p75_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
}

/// The disk of one node, and its syncs in the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostDisk {
    /// Whose.
    pub node: String,
    /// From a call to the emulation and back, before the run; it is within the times below, and
    /// taken off what the emulation waits.
    pub transit_ms: f64,
    /// A write of 4 KiB and its sync before the run, through the emulation without any time of its
    /// own: what the host cannot go below.
    pub floor_sync_ms: f64,
    /// Syncs.
    pub syncs: u64,
    /// Bytes that they had to make durable.
    pub synced_bytes: u64,
    /// Of the syncs, those under no fault of the disk; from here on they alone count, from their
    /// turn to their answer.
    pub timed_syncs: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Quartile.
    pub p25_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// Quartile.
    pub p75_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// The file system under the data directories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataDirRecord {
    /// Its type, as in `ext4`.
    pub filesystem: String,
    /// In memory: a sync there is not one.
    pub tmpfs: bool,
}
