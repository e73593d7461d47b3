//! Whole runs with faults, on etcd and on bench-node: a fault that bit is seen on all sides, and
//! one that did nothing makes the run invalid.

mod harness;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use harness::{Bench, Running, needs_etcd, profile, raftbench};

const LEADER_KILL: &str = r#"
[[faults]]
kind = "kill"
target = "leader"
at_s = 2
restart_after_s = 3
"#;

#[test]
fn a_leader_kill_on_etcd_is_seen_by_clients_and_servers() {
    needs_etcd();
    let summary = a_leader_kill_is_seen_by_clients_and_servers("etcd");
    assert_eq!(summary["api"], "etcd v3 gRPC");
}

#[test]
fn a_leader_kill_on_bench_node_is_seen_by_clients_and_servers() {
    a_leader_kill_is_seen_by_clients_and_servers("bench-node");
}

/// Many operations over one stream, which breaks with its leader.
#[test]
fn a_leader_kill_is_seen_by_sessions_too() {
    let summary = a_leader_kill_is_seen_by_clients_and_servers("bench-node-session");
    assert_eq!(summary["target"], "bench-node");
    assert_eq!(summary["api"], "bench-node session");
}

fn a_leader_kill_is_seen_by_clients_and_servers(target: &str) -> serde_json::Value {
    let bench = Bench::with(&profile(LEADER_KILL));
    let output = bench.command("run", target).output().expect("started");
    let summary = bench.summary();
    let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit_code(&summary)), "{told}");

    let fault = &summary["faults"][0];
    assert_eq!(fault["effective"], true, "{told}");
    let proof = fault["proof"].as_str().expect("a proof");
    for part in ["signal 9", "refuse", "connections left", "ms after"] {
        assert!(proof.contains(part), "{part:?} is not in: {proof}");
    }
    for key in ["outage_ms", "first_success_ms", "election_ms", "healed_s", "recovered_s"] {
        assert!(fault[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {told}");
    }
    assert!(summary["stability"]["leader_changes"].as_f64() >= Some(1.0), "{told}");
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
    assert!(summary["checks"]["acked_writes"].as_u64() > Some(100), "{told}");
    assert_eq!(summary["checks"]["lost_writes"], 0, "{told}");
    let undone = chaos::journal::not_undone(&bench.out().join("undo.jsonl")).expect("a journal");
    assert_eq!(undone, []);
    summary
}

fn exit_code(summary: &serde_json::Value) -> i32 {
    match summary["verdict"].as_str() {
        Some("pass") => 0,
        Some("fail") => 1,
        Some("inconclusive") => 3,
        _ => 4,
    }
}

#[test]
fn terminate_and_pause_bite_too() {
    let faults = r#"
[[faults]]
kind = "terminate"
target = "follower"
at_s = 0.5
restart_after_s = 1.5
[[faults]]
kind = "pause"
target = "leader"
at_s = 4
resume_after_s = 1
"#;
    let bench = Bench::with(&profile(faults));
    let output = bench.command("run", "bench-node").output().expect("started");
    let summary = bench.summary();
    let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
    for (index, part) in ["exited with status 0", "0 ticks of CPU"].into_iter().enumerate() {
        let fault = &summary["faults"][index];
        assert_eq!(fault["effective"], true, "{told}");
        assert!(fault["proof"].as_str().expect("a proof").contains(part), "{told}");
    }
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
}

#[test]
fn a_restart_bites_and_is_recovered_from() {
    let faults = r#"
[[faults]]
kind = "restart"
target = "follower"
at_s = 2
"#;
    let bench = Bench::with(&profile(faults));
    let output = bench.command("run", "bench-node").output().expect("started");
    let summary = bench.summary();
    let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
    let fault = &summary["faults"][0];
    assert_eq!(fault["effective"], true, "{told}");
    for part in ["exited with status 0", "started again as pid"] {
        assert!(fault["proof"].as_str().expect("a proof").contains(part), "{told}");
    }
    for key in ["healed_s", "recovered_s"] {
        assert!(fault[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {told}");
    }
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
}

const TRANSFERS: &str = r#"
[[faults]]
kind = "transfer"
target = "follower"
at_s = 0.5
every_s = 2
times = 2
"#;

#[test]
fn leadership_is_handed_over_on_etcd() {
    needs_etcd();
    leadership_is_handed_over("etcd");
}

#[test]
fn leadership_is_handed_over_on_bench_node() {
    leadership_is_handed_over("bench-node");
}

fn leadership_is_handed_over(target: &str) {
    let bench = Bench::with(&profile(TRANSFERS));
    let output = bench.command("run", target).output().expect("started");
    let summary = bench.summary();
    let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
    for fault in summary["faults"].as_array().expect("a list") {
        assert_eq!(fault["effective"], true, "{told}");
        assert!(fault["proof"].as_str().expect("a proof").contains("led in term"), "{told}");
        assert!(fault["election_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{told}");
        assert!(fault["longest_gap_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{told}");
    }
    let series = &summary["fault_series"][0];
    assert_eq!((&series["times"], &series["effective"]), (&2.into(), &2.into()), "{told}");
    assert_eq!(series["longest_gap_ms"]["count"], 2, "{told}");
    assert!(summary["stability"]["quiet_gap_ms"]["p50"].as_f64() > Some(0.0), "{told}");
    assert!(summary["stability"]["leader_changes"].as_u64() >= Some(2), "{told}");
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
}

const REPLACE: &str = r#"
[[faults]]
kind = "replace"
target = "follower"
at_s = 0.5
rejoin_after_s = 1
"#;

#[test]
fn a_member_is_replaced_on_etcd() {
    needs_etcd();
    a_member_is_replaced("etcd");
}

#[test]
fn a_member_is_replaced_on_bench_node() {
    a_member_is_replaced("bench-node");
}

fn a_member_is_replaced(target: &str) {
    let bench = Bench::with(&profile(REPLACE));
    let mut command = bench.command("run", target);
    // Longer, for etcd wants its members connected for 5 s before it takes another one.
    let command = command.args(["--set", "phases.measure_s=12"]);
    let output = command.args(["--set", "load.preload={keys=50,bytes=1000}"]).output();
    let output = output.expect("started");
    let summary = bench.summary();
    let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
    let fault = &summary["faults"][0];
    assert_eq!(fault["effective"], true, "{told}");
    for part in ["signal 9", "removed", "bytes deleted", "added", "started as pid"] {
        assert!(fault["proof"].as_str().expect("a proof").contains(part), "{part}: {told}");
    }
    assert!(fault["recovered_s"].as_f64() >= fault["healed_s"].as_f64(), "{told}");
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
    assert_eq!(summary["checks"]["lost_writes"], 0, "{told}");
    let undone = chaos::journal::not_undone(&bench.out().join("undo.jsonl")).expect("a journal");
    assert_eq!(undone, []);
}

#[test]
fn a_bench_node_cluster_that_others_started_is_loaded_but_never_broken() {
    a_cluster_that_others_started_is_loaded_but_never_broken("bench-node");
}

#[test]
fn an_etcd_cluster_that_others_started_is_loaded_but_never_broken() {
    needs_etcd();
    a_cluster_that_others_started_is_loaded_but_never_broken("etcd");
}

fn a_cluster_that_others_started_is_loaded_but_never_broken(target: &str) {
    let theirs = Bench::with(&profile(""));
    let mut up = theirs.command("up", target);
    let mut up = Running::start(up.arg("--json").stdout(Stdio::piped()));
    let mut line = String::new();
    let stdout = up.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let cluster: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let addresses = cluster["endpoints"].as_array().expect("a list").iter();
    let endpoints: Vec<_> = addresses.map(|address| address.as_str().expect("text")).collect();
    let before = theirs.nodes(up.pid());

    let ours = Bench::with(&profile(LEADER_KILL));
    let command = || {
        let mut command = raftbench();
        command.arg("run").arg(ours.path().join("short.toml")).arg("--out").arg(ours.out());
        command.args(["--endpoints", &endpoints.join(",")]);
        command
    };
    let output = command().output().expect("started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("`faults` strike processes that the run started"), "{error}");
    assert!(!ours.out().exists(), "refused before anything was made");

    let output = command().args(["--set", "faults=[]"]).output().expect("started");
    let summary = ours.summary();
    let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit_code(&summary)), "{told}");
    assert_eq!(summary["target"], "external", "{told}");
    assert!(summary["target_version"].as_str().is_some_and(|v| v.contains("3.")), "{told}");
    // The servers are watched too: all that the target offers is in the dashboard.
    for threshold in summary["thresholds"].as_array().expect("a list") {
        assert!(!threshold["observed"].is_null(), "{}: {told}", threshold["metric"]);
    }
    assert_eq!(summary["write_steps"].is_array(), target == "bench-node", "{told}");
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
    assert!(summary["load"]["ok"].as_u64() > Some(100), "{told}");
    assert_eq!(theirs.nodes(up.pid()), before, "and it runs on");
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn a_fault_that_does_nothing_makes_the_run_invalid() {
    let bench = Bench::with(&profile(LEADER_KILL));
    let mut command = bench.command("run", "bench-node");
    let command = command.env("RAFTBENCH_SEEDED_BUG", "fault-does-nothing");
    let output = command.output().expect("started");
    let summary = bench.summary();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(summary["verdict"], "invalid");
    assert_eq!(summary["faults"][0]["effective"], false);
    let proof = summary["faults"][0]["proof"].as_str().expect("what was seen instead");
    assert!(proof.contains("still runs"), "{proof}");
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn a_transfer_that_nobody_asked_for_makes_the_run_invalid() {
    let bench = Bench::with(&profile(TRANSFERS));
    let mut command = bench.command("run", "bench-node");
    let command = command.env("RAFTBENCH_SEEDED_BUG", "fault-does-nothing");
    let output = command.output().expect("started");
    let summary = bench.summary();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(summary["faults"][0]["effective"], false);
    let proof = summary["faults"][0]["proof"].as_str().expect("what was seen instead");
    assert!(proof.contains("ms after, not n"), "{proof}");
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn a_write_lost_after_its_acknowledgement_fails_the_run() {
    let bench = Bench::with(&profile(""));
    let mut command = bench.command("run", "bench-node");
    let command =
        command.args(["--set", "cluster.bench_node.seeded_bug=\"lose-acknowledged-write\""]);
    let output = command.output().expect("started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let summary = bench.summary();
    assert_eq!(summary["verdict"], "fail", "{told}");
    assert_eq!(summary["checks"]["audit"], "fail", "{told}");
    assert!(summary["checks"]["lost_writes"].as_u64() > Some(0), "{summary:#}");
}
