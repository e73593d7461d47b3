//! A run of 20 s at 1,000 puts/s on three nodes, sound in every way; tests break one thing.

use history::{Kind, Outcome};
use loadgen::audit::{FinalKey, FinalState};
use loadgen::record::{LoadResult, OpRecord, ReadValue};
use raftbench::evidence::{
    DataDirRecord, EventRecord, EventRole, FaultRecord, HistogramSample, MetricSample, NodeRecord,
    NodeStatus, Observed, ProcessSample,
};
use raftbench::plan::Plan;
use raftbench::profile::{Change, Profile};

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const S: i64 = 1_000 * MS;
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The steps of a write, beside its commit.
const STEPS: [&str; 5] = [
    "write_queue_seconds",
    "write_log_seconds",
    "write_replicate_seconds",
    "write_apply_seconds",
    "write_answer_seconds",
];

const PROFILE: &str = r#"
description = "Made by hand"
[load]
arrivals = "constant"
rate_per_second = 1000
mix = { put = 1 }
keys = { count = 1000 }
[phases]
warmup_s = 0
measure_s = 20
[[faults]]
kind = "kill"
target = "leader"
at_s = 8
restart_after_s = 2
[expect]
max_outage_ms = 2000
"#;

pub(crate) fn plan(flags: &[&str]) -> Plan {
    let changes: Vec<Change> = flags.iter().map(|flag| Change::set(flag).expect(flag)).collect();
    let profile = Profile::from_text("hand-made", "hand-made.toml", PROFILE);
    profile.plan(&changes, 7, "hand/").expect("a plan")
}

/// The leader n1 is killed at 8 s; n2 leads 1.1 s later; all is well from 9.2 s on.
pub(crate) fn observed() -> Observed {
    let ops = ops(|ms| if (8000..9200).contains(&ms) { None } else { Some(2) });
    Observed {
        final_state: Some(final_state(&ops)),
        load: LoadResult {
            ops,
            errors: vec!["no answer before the timeout".into()],
            cpu_seconds: 2.0,
            wall_seconds: 20.0,
            endpoints: NODES.map(endpoint).to_vec(),
        },
        faults: vec![FaultRecord {
            id: "f1".into(),
            kind: "kill".into(),
            target: "leader".into(),
            victims: vec!["n1".into()],
            injected_ns: 8 * S,
            term_at_injection: Some(2),
            leader_at_injection: Some("n1".into()),
            effective: true,
            proof: "n1 ended by signal 9; its ports refuse".into(),
            healed_ns: Some(10 * S),
            recovered_ns: Some(11 * S),
        }],
        events: vec![leads("n1", -4 * S, 2), leads("n2", 9100 * MS, 3)],
        samples: samples(),
        zero_unix_ns: 1_795_457_664_000_000_000,
        nodes: NODES.map(|node| NodeRecord { name: node.into(), client: endpoint(node) }).to_vec(),
        target_version: "bench-node 0.1.0".into(),
        network: None,
        disk: None,
        data_dir: Some(DataDirRecord { filesystem: "ext4".into(), tmpfs: false }),
        ..Observed::default()
    }
}

/// A put for each ms of 20 s: answered after so many ms, or `None`: never.
pub(crate) fn ops(took_ms: impl Fn(i64) -> Option<i64>) -> Vec<OpRecord> {
    let put = |ms: i64| {
        let intended_ns = ms * MS;
        let completed_ns = took_ms(ms).map(|took| intended_ns + took * MS);
        let outcome = if completed_ns.is_some() { Outcome::Ok } else { Outcome::Unknown };
        OpRecord {
            sequence: ms as u64,
            process: 0,
            kind: Kind::Put,
            linearizable: true,
            // One key each: every write is then its key's last.
            key: (ms % 1000) as u32,
            node: (ms % 3) as u16,
            intended_ns,
            sent_ns: Some(intended_ns + 20_000),
            completed_ns,
            outcome,
            read: None,
            revision: if outcome == Outcome::Ok { 10 + ms } else { 0 },
            error: (outcome != Outcome::Ok).then_some(0),
        }
    };
    (0..20_000).map(put).collect()
}

/// What the keys hold when every acknowledged put happened once and no other did.
pub(crate) fn final_state(ops: &[OpRecord]) -> FinalState {
    let mut state = FinalState::default();
    for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
        let key = state.keys.entry(op.key).or_insert(FinalKey {
            value: ReadValue::Absent,
            version: 0,
            create_revision: op.revision,
            mod_revision: 0,
        });
        key.value = ReadValue::Written(op.sequence);
        key.version += 1;
        key.mod_revision = op.revision;
    }
    state
}

fn endpoint(node: &str) -> String {
    format!("127.0.0.1:237{}", &node[1..])
}

fn leads(node: &str, t_ns: i64, term: u64) -> EventRecord {
    EventRecord {
        t_ns,
        node: node.into(),
        role: EventRole::Leader,
        term,
        leader: Some(node.into()),
        reason: "vote_won".into(),
        resolution_us: 1,
    }
}

/// Every node every 500 ms; n1 is gone from 8 s to 10 s and starts anew.
fn samples() -> Vec<MetricSample> {
    let mut samples = Vec::new();
    for step in -2..=42_i64 {
        let t_ns = step * 500 * MS;
        let killed = t_ns >= 8 * S;
        let leader = if t_ns < 8 * S { "n1" } else { "n2" };
        // The leader is read before and after its followers.
        let order = [leader].into_iter().chain(NODES.into_iter().filter(|n| *n != leader));
        for (turn, node) in order.chain([leader]).enumerate() {
            let gone = node == "n1" && (8 * S..10 * S).contains(&t_ns);
            let electing = (8 * S..9100 * MS).contains(&t_ns);
            if gone {
                continue;
            }
            let restarted = node == "n1" && t_ns >= 10 * S;
            let lived = if restarted { step - 20 } else { step + 2 } as u64;
            let asked_ns = t_ns + turn as i64 * 5 * MS;
            let answered_ns = asked_ns + MS;
            let term = if killed && !electing { 3 } else { 2 };
            samples.push(MetricSample {
                t_ns: answered_ns,
                node: node.into(),
                start: if restarted { 2 } else { 1 },
                status: Some(NodeStatus {
                    asked_ns,
                    answered_ns,
                    term,
                    is_leader: node == leader && !electing,
                    index: (1000 + asked_ns.max(0) / MS) as u64,
                    applied_index: 0,
                }),
                disk: None,
                process: Some(ProcessSample {
                    pid: 100,
                    cpu_seconds: lived as f64 * 0.1,
                    rss_bytes: 32 << 20,
                    written_bytes: lived * 8192,
                }),
                values: [("leader_changes_total".to_owned(), (term - 1) as f64)].into(),
                histograms: [
                    ("wal_fsync_duration_seconds".to_owned(), histogram(lived * 100)),
                    ("commit_latency_seconds".to_owned(), histogram(lived * 500)),
                ]
                .into_iter()
                .chain(STEPS.map(|step| (step.to_owned(), histogram(lived * 500))))
                .collect(),
            });
        }
    }
    samples
}

/// All in (1, 5] ms.
fn histogram(count: u64) -> HistogramSample {
    let buckets = vec![(0.001, 0), (0.005, count), (0.05, count), (0.1, count), (f64::MAX, count)];
    HistogramSample { buckets, sum: count as f64 * 0.002, count }
}
