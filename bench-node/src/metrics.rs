//! What the node tells Prometheus.
//!
//! Invariant: the five names of the dashboard stand exactly as the dashboard has them, and no
//! metric is without its unit in its name. Counting on the way of a request is a few additions; what
//! can be asked for when scraped is not kept up to date in between.
//!
//! # The steps of a write
//! Each is counted once for each write that got so far, by the member that proposed it:
//!
//! ```text
//! arrival --queue--> proposal --+-- log: durable on the leader ---------+--> commit --apply--> store
//!                               +-- replicate: acknowledged by others --+             --answer--> transport
//! ```
//!
//! `log` and `replicate` run side by side, and `commit` is over when both are, or when followers
//! enough for a majority without the leader have it. Queue, commit, apply and answer follow each
//! other without a gap: together they are the time that a write spends in the leader.

use std::time::Duration;

use prometheus::local::LocalHistogram;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use raft::Role;

use crate::driver::Inspection;
use crate::wal::Appended;

/// Upper bounds in seconds: fine below, and with the dashboard's limits (0.05 and 0.1) among them.
const SECONDS: [f64; 20] = [
    0.00005, 0.0001, 0.0002, 0.0004, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01,
    0.015, 0.02, 0.035, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// Bounds below those of [`SECONDS`], for the steps of a write that wait for no disk and no network.
const SHORT_SECONDS: [f64; 3] = [0.000005, 0.00001, 0.00002];

/// All metrics of one node.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) leader_changes: IntCounter,
    sync_seconds: Histogram,
    queue_seconds: Histogram,
    log_seconds: Histogram,
    replicate_seconds: Histogram,
    commit_seconds: Histogram,
    apply_seconds: Histogram,
    answer_seconds: Histogram,
    follower_lag: IntGaugeVec,
    term: IntGauge,
    is_leader: IntGauge,
    commit_index: IntGauge,
    applied_index: IntGauge,
    pub(crate) proposals_failed: IntCounter,
    pending_proposals: IntGauge,
    log_bytes: IntCounter,
    log_batches: IntCounter,
    pub(crate) log_entries: IntCounter,
    log_disk: IntGaugeVec,
    pub(crate) snapshots_written: IntCounter,
    pub(crate) snapshots_sent: IntCounter,
    pub(crate) snapshots_received: IntCounter,
    pub(crate) peer_messages_sent: IntCounter,
    pub(crate) peer_messages_dropped: IntCounter,
    peer_connected: IntGaugeVec,
    resident_bytes: Gauge,
}

/// The steps of a write that the loop sees, for its thread alone: what it observes reaches `/metrics`
/// when it is flushed, and costs no atomic operation until then.
pub(crate) struct StepTimes {
    /// From the arrival of a command to its proposal.
    pub(crate) queue: LocalHistogram,
    /// From the proposal until it is durable here.
    pub(crate) log: LocalHistogram,
    /// From the proposal until so many followers acknowledged it that the leader's own disk decides.
    pub(crate) replicate: LocalHistogram,
    /// From the proposal to its commit.
    pub(crate) commit: LocalHistogram,
    /// From the commit until the store holds it.
    pub(crate) apply: LocalHistogram,
}

impl Metrics {
    /// Registers them all, at zero.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("registered once");
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("registered once");
            gauge
        };
        let by_peer = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["peer"]).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("registered once");
            gauge
        };
        let histogram_over = |bounds: Vec<f64>, name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(bounds);
            let histogram = Histogram::with_opts(options).expect("ascending buckets");
            registry.register(Box::new(histogram.clone())).expect("registered once");
            histogram
        };
        let histogram = |name: &str, help: &str| histogram_over(SECONDS.to_vec(), name, help);
        let step = |name: &str, help: &str| {
            histogram_over([&SHORT_SECONDS[..], &SECONDS].concat(), name, help)
        };
        let resident_bytes =
            Gauge::new("process_resident_memory_bytes", "Resident memory of the process, in bytes")
                .expect("a valid name");
        registry.register(Box::new(resident_bytes.clone())).expect("registered once");
        Self {
            leader_changes: counter(
                "leader_changes_total",
                "Leaders that this member has seen take over",
            ),
            sync_seconds: histogram(
                "wal_fsync_duration_seconds",
                "Time until one batch of the log was durable, as its writer saw it: of its sync, or \
                 with io_uring of write and sync",
            ),
            queue_seconds: step(
                "write_queue_seconds",
                "From the arrival of a write in the API to its proposal, on the leader",
            ),
            log_seconds: step(
                "write_log_seconds",
                "From the proposal of a write until it is durable in the leader's own log",
            ),
            replicate_seconds: step(
                "write_replicate_seconds",
                "From the proposal of a write until as many followers hold it durably as a majority \
                 needs beside the leader",
            ),
            commit_seconds: histogram(
                "commit_latency_seconds",
                "From the proposal to its commit, on the leader",
            ),
            apply_seconds: step(
                "write_apply_seconds",
                "From the commit of a write until the leader's store holds it",
            ),
            answer_seconds: step(
                "write_answer_seconds",
                "From the moment that the leader's store holds a write until its answer is handed \
                 to the transport",
            ),
            follower_lag: by_peer(
                "follower_lag_entries",
                "Entries of the leader's log that the follower is not known to hold; on the leader",
            ),
            term: gauge("raft_term", "The current term"),
            is_leader: gauge("raft_is_leader", "1 where this member leads"),
            commit_index: gauge("raft_commit_index", "The last index known committed"),
            applied_index: gauge("raft_applied_index", "The last index applied to the store"),
            proposals_failed: counter(
                "proposals_failed_total",
                "Proposals of clients that were not answered with a result: the leader changed, \
                 or they timed out",
            ),
            pending_proposals: gauge("pending_proposals", "Proposals that wait for their commit"),
            log_bytes: counter("wal_bytes_written_total", "Bytes written to the log"),
            log_batches: counter("wal_batches_total", "Batches written to the log, one sync each"),
            snapshots_written: counter("snapshots_written_total", "Snapshots of the own state"),
            snapshots_sent: counter("snapshots_sent_total", "Snapshots that a member took"),
            snapshots_received: counter("snapshots_received_total", "Snapshots of a leader"),
            log_entries: counter("wal_entries_total", "Entries written to the log"),
            peer_messages_sent: counter(
                "peer_messages_sent_total",
                "Messages handed to the streams to the other members",
            ),
            peer_messages_dropped: counter(
                "peer_messages_dropped_total",
                "Messages dropped because the stream was down or full",
            ),
            peer_connected: by_peer("peer_connected", "1 where the stream to this member is up"),
            log_disk: {
                let help = "1 for how the log is written: io_uring, blocking or simulated";
                let gauge = IntGaugeVec::new(Opts::new("wal_disk_info", help), &["disk"]);
                let gauge = gauge.expect("a valid name");
                registry.register(Box::new(gauge.clone())).expect("registered once");
                gauge
            },
            resident_bytes,
            registry,
        }
    }

    /// How the log is written, from now on.
    pub(crate) fn set_log_disk(&self, name: &str) {
        self.log_disk.with_label_values(&[name]).set(1);
    }

    /// The stream to a peer came up or went down.
    pub(crate) fn set_peer_connected(&self, peer: &str, connected: bool) {
        self.peer_connected.with_label_values(&[peer]).set(connected.into());
    }

    /// There is no such peer any more.
    pub(crate) fn forget_peer(&self, peer: &str) {
        // One that never connected has no sample yet.
        let _ = self.peer_connected.remove_label_values(&[peer]);
    }

    /// The Prometheus text, with what `inspection` knows filled in.
    pub(crate) fn render(&self, inspection: &Inspection) -> String {
        let status = &inspection.status;
        self.term.set(status.term as i64);
        self.is_leader.set((status.role == Role::Leader).into());
        self.commit_index.set(status.commit_index as i64);
        self.applied_index.set(inspection.applied_index as i64);
        self.pending_proposals.set(inspection.pending_proposals as i64);
        // A member that leads no more has no say on lag.
        self.follower_lag.reset();
        for (peer, lag) in &inspection.follower_lag {
            self.follower_lag.with_label_values(&[peer.as_str()]).set(*lag as i64);
        }
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes as f64);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            // Cannot happen with valid names; a scrape must not end the node all the same.
            format!("# {error}\n")
        })
    }

    /// One batch went down to the log.
    pub(crate) fn observe_append(&self, appended: &Appended) {
        if appended.bytes == 0 {
            return;
        }
        self.log_batches.inc();
        self.log_bytes.inc_by(appended.bytes);
        self.sync_seconds.observe(appended.sync.as_secs_f64());
    }

    /// For the loop.
    pub(crate) fn step_times(&self) -> StepTimes {
        StepTimes {
            queue: self.queue_seconds.local(),
            log: self.log_seconds.local(),
            replicate: self.replicate_seconds.local(),
            commit: self.commit_seconds.local(),
            apply: self.apply_seconds.local(),
        }
    }

    /// From the store to the transport.
    pub(crate) fn observe_answer(&self, took: Duration) {
        self.answer_seconds.observe(took.as_secs_f64());
    }
}

impl StepTimes {
    /// That nobody looks at.
    pub(crate) fn unseen() -> Self {
        let times = || {
            let options = HistogramOpts::new("unseen", "Not registered").buckets(vec![1.0]);
            Histogram::with_opts(options).expect("ascending buckets").local()
        };
        let [queue, log, replicate, commit, apply] = std::array::from_fn(|_| times());
        Self { queue, log, replicate, commit, apply }
    }

    /// Shows what was observed so far.
    pub(crate) fn flush(&self) {
        for times in [&self.queue, &self.log, &self.replicate, &self.commit, &self.apply] {
            times.flush();
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page_bytes as u64)
}
