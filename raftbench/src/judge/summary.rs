//! What a run came to: the fields of `summary.json`.
//!
//! Invariant: every number that a report shows about a run is one of these, with its unit in its
//! name or beside it. Fields may be added; none is renamed or taken away.

use history::linearizability::CheckReport;
use loadgen::summary::LoadSummary;
use serde::{Deserialize, Serialize};

use crate::evidence::{DiskRecord, NetworkRecord};

/// `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this layout.
    pub schema: u32,
    /// The profile's name.
    pub profile: String,
    /// The profile's own sentence.
    pub description: String,
    /// `bench-node`, `etcd`, `external`.
    pub target: String,
    /// The target's own word on its version.
    pub target_version: String,
    /// What the clients spoke.
    pub api: String,
    /// Members.
    pub nodes: usize,
    /// Seeds the run.
    pub seed: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, the most important first.
    pub reasons: Vec<String>,
    /// Settings in force that give up what Raft promises.
    pub unsafe_settings: Vec<String>,
    /// What a reader must know to weigh the numbers.
    pub warnings: Vec<String>,
    /// The dashboard, in both scopes.
    pub thresholds: Vec<Threshold>,
    /// Server metrics without a limit.
    pub observations: Vec<Observation>,
    /// The clients' side.
    pub load: Load,
    /// Where a write's time goes in the cluster; empty where the target does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write_steps: Vec<WriteStep>,
    /// Leadership and service.
    pub stability: Stability,
    /// What lay between the hosts of a lab; absent: loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRecord>,
    /// The emulated disks under the nodes; absent: the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRecord>,
    /// What was broken, and what came of it.
    pub faults: Vec<Fault>,
    /// The same of each fault that the profile repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fault_series: Vec<FaultSeries>,
    /// What was checked.
    pub checks: CheckResults,
    /// What each node used in the measured phase, where its process was ours.
    pub resources: Vec<Resources>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything asked for was shown.
    Pass,
    /// Something asked for was not.
    Fail,
    /// What was measured does not decide.
    Inconclusive,
    /// The measurement itself is not to be trusted.
    Invalid,
}

/// One line of the dashboard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// One of [`crate::plan::METRICS`].
    pub metric: String,
    /// Of the limit and of what was observed.
    pub unit: String,
    /// Above it fails.
    pub limit: f64,
    /// Over which time.
    pub scope: ScopeName,
    /// What was seen; absent: nothing.
    pub observed: Option<Reading>,
    /// Against the limit.
    pub verdict: ThresholdVerdict,
    /// How it was measured, and what it means where it is too high.
    pub meaning: String,
}

/// The two scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeName {
    /// The measured phase without the fault windows; the verdict rests on it.
    OutsideFaults,
    /// The measured phase.
    WholeRun,
}

/// A threshold's own verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdVerdict {
    /// At or below the limit.
    Pass,
    /// Above it.
    Fail,
    /// Nothing was seen, or the limit lies inside the interval that was.
    NoData,
}

/// A number, or the interval that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading {
    /// Known.
    Exact(f64),
    /// `[low, high]`; `null`: no upper bound is known.
    Between(f64, Option<f64>),
}

/// A server metric that has no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The server's own name for it, or ours.
    pub metric: String,
    /// Of what was observed.
    pub unit: String,
    /// Over which time.
    pub scope: ScopeName,
    /// What was seen.
    pub observed: Reading,
    /// What it is.
    pub meaning: String,
}

/// One step of a write inside the cluster, over the measured phase and all members that led in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteStep {
    /// `queue`, `log`, `replicate`, `commit`, `apply`, `answer`.
    pub step: String,
    /// The server's own name for its histogram.
    pub metric: String,
    /// From where to where.
    pub meaning: String,
    /// How many writes were timed.
    pub writes: u64,
    /// The interval that the histogram's buckets allow for the median.
    pub p50_ms: Reading,
    /// For the 99th percentile.
    pub p99_ms: Reading,
}

/// Leadership and service over the measured phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// New leaders; absent where no server told.
    pub leader_changes: Option<u64>,
    /// By how much the term grew; absent where no server told.
    pub term_growth: Option<u64>,
    /// The longest outage.
    pub longest_outage_ms: f64,
    /// All outages together, overlaps counted once.
    pub unavailable_ms: f64,
    /// An operation is late when it is not ok or takes longer than this.
    pub late_after_ms: f64,
    /// The fault windows together.
    pub fault_windows_s: f64,
    /// The longest time without a success in each half second that no fault reaches into: what the
    /// faults' own gaps are to be held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_gap_ms: Option<Spread>,
}

/// How values spread (nearest rank).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// A fault that the profile repeats, over all its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultSeries {
    /// As in the profile: `f1` for `f1.1`, `f1.2`, ...
    pub id: String,
    /// As in the plan.
    pub kind: String,
    /// As asked.
    pub target: String,
    /// How often it came.
    pub times: u64,
    /// How often it was seen from outside to bite.
    pub effective: u64,
    /// Of [`Fault::outage_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage_ms: Option<Spread>,
    /// Of [`Fault::first_success_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_success_ms: Option<Spread>,
    /// Of [`Fault::election_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election_ms: Option<Spread>,
    /// Of [`Fault::longest_gap_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_gap_ms: Option<Spread>,
    /// Elections that took more than one term, which is what split votes cost; absent where no
    /// server told.
    pub split_votes: Option<u64>,
    /// Of all times.
    pub operations_lost: u64,
}

/// What was broken, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// As in the plan.
    pub id: String,
    /// As in the plan.
    pub kind: String,
    /// As asked, and whom it came to, as in `leader (n2)`.
    pub target: String,
    /// On the run's clock.
    pub injected_s: f64,
    /// When it was undone; absent: it held to the end.
    pub healed_s: Option<f64>,
    /// When its victims had caught up; absent: not in time.
    pub recovered_s: Option<f64>,
    /// Seen from outside to have bitten.
    pub effective: bool,
    /// What was seen.
    pub proof: String,
    /// The longest outage in its window; 0 where no operation was late.
    pub outage_ms: f64,
    /// The load ended before the outage did: it lasted at least that long.
    pub outage_at_least: bool,
    /// From injection to the first success of an operation sent after it.
    pub first_success_ms: Option<f64>,
    /// From injection to the first leader of a higher term, by the servers' own events.
    pub election_ms: Option<f64>,
    /// How exact `election_ms` is.
    pub election_resolution_ms: Option<f64>,
    /// Linearizable operations that it found open, or that were due in its window, the half second
    /// after its injection or its outages, but before the next injection, and did not end ok.
    pub operations_lost: u64,
    /// The longest time without a success that reaches into its window, or into the half second
    /// after its injection if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_gap_ms: Option<f64>,
    /// By how much that leader's term was higher than the one at the injection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election_terms: Option<u64>,
}

/// What was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResults {
    /// Every acknowledged write accounted for.
    pub audit: CheckVerdict,
    /// Writes that were acknowledged.
    pub acked_writes: u64,
    /// Of these, not found again; `None` where the audit could not look, or was not asked to.
    pub lost_writes: Option<u64>,
    /// Writes whose outcome the client does not know.
    pub unknown_writes: u64,
    /// What the audit has to say, one line each.
    pub findings: Vec<String>,
    /// Every key's operations can be ordered.
    pub linearizable: CheckVerdict,
    /// What that rests on; absent where the profile does not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linearizability: Option<CheckReport>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It could not be decided.
    Undecided,
    /// It was not asked for.
    Skipped,
}

/// What one node used in the measured phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Whose.
    pub node: String,
    /// User and system time.
    pub cpu_seconds: f64,
    /// The highest resident memory seen.
    pub rss_bytes: u64,
    /// To the block layer.
    pub written_bytes: u64,
    /// Of the log; absent where the server does not count them.
    pub syncs: Option<u64>,
}

/// The clients' side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// `constant`, `poisson`, `closed`.
    pub arrivals: String,
    /// Closed loop: a stall stops the clients too, and the latencies do not show it.
    pub hides_stalls: bool,
    /// The generator's CPU time, as a share of one core.
    pub generator_cpu_share: f64,
    /// The numbers.
    #[serde(flatten)]
    pub figures: LoadSummary,
    /// The most frequent errors of the measured phase.
    pub errors: Vec<ErrorCount>,
}

/// An error and how often it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// Its text.
    pub text: String,
    /// How often.
    pub count: u64,
}
