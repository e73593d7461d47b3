//! A short soak, broken off with -9 and continued: the rounds add up, and nothing is lost.

mod harness;

use std::process::Stdio;
use std::time::Duration;

use harness::{Bench, Running, profile, wait_for};

#[test]
fn a_soak_goes_on_where_it_stopped_and_loses_nothing() {
    let bench = Bench::with(&profile(""));
    let soak = |rounds: &str| {
        let mut command = bench.command("soak", "bench-node");
        command.args(["--rounds", rounds, "--audit-every", "2", "--round-s", "2", "--seed", "11"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let rounds = || {
        let text = std::fs::read_to_string(bench.out().join("rounds.jsonl")).unwrap_or_default();
        let parse = |line| serde_json::from_str(line).expect("a round");
        text.lines().map(parse).collect::<Vec<serde_json::Value>>()
    };
    let mut broken_off = Running::start(&mut soak("1000"));
    let first_batch = || (rounds().len() >= 2).then_some(());
    wait_for("the first audited batch", Duration::from_secs(120), first_batch);
    broken_off.0.kill().expect("killed");
    broken_off.0.wait().expect("reaped");

    let status = soak("6").status().expect("started");
    let rounds = rounds();
    assert_eq!(status.code(), Some(0), "{rounds:#?}");
    let numbers: Vec<_> = rounds.iter().filter_map(|round| round["round"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() >= 6, "{numbers:?}");
    for round in &rounds {
        assert_eq!((&round["audit"], &round["lost_writes"]), (&"pass".into(), &0.into()));
        assert!(round["acked_writes"].as_u64() > Some(100), "{round:#}");
        assert_eq!(round["effective"], true, "{round:#}");
        assert!(round["recovery_ms"].as_f64().is_some(), "{round:#}");
    }
}

#[test]
fn what_never_began_leaves_no_folder() {
    let bench = Bench::with(&profile(""));
    for (name, arguments) in [("soak", &["--rounds", "1"][..]), ("up", &[])] {
        let mut command = bench.command(name, "etcd");
        // An empty folder: there is no etcd on this PATH.
        let nowhere = tempfile::tempdir().expect("a folder");
        let output = command.args(arguments).env("PATH", nowhere.path()).output().expect("started");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {error}");
        assert!(error.contains("no `etcd` on the PATH"), "{name}: {error}");
        assert!(!bench.out().exists(), "{name} left its folder behind");
    }
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn kills_that_do_nothing_make_a_soak_invalid() {
    let bench = Bench::with(&profile(""));
    let mut command = bench.command("soak", "bench-node");
    command.args(["--rounds", "2", "--audit-every", "1", "--round-s", "3"]);
    command.env("RAFTBENCH_SEEDED_BUG", "fault-does-nothing");
    let output = command.output().expect("started");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("round 1 did not bite") && told.contains("still runs"), "{told}");
    let rounds = std::fs::read_to_string(bench.out().join("rounds.jsonl")).expect("rounds");
    assert_eq!(rounds.lines().count(), 1, "it ends with the first that is not sound");
}

#[test]
fn runs_with_many_seeds_go_on_where_they_stopped() {
    let bench = Bench::with(&profile(""));
    let soak = |target: &str, seeds: &str| {
        let mut command = bench.command("soak", target);
        command.args(["--seeds", seeds, "--seed", "5", "--set", "phases.measure_s=2"]);
        let output = command.output().expect("started");
        let told = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        (output.status.code(), told.concat())
    };
    let summary =
        |seed: u64| std::fs::read_to_string(bench.out().join(format!("{seed}/summary.json"))).ok();
    // A run that was broken off before it was judged.
    std::fs::create_dir_all(bench.out().join("6/logs")).expect("a folder");
    std::fs::write(bench.out().join("6/logs/n1.log"), "began").expect("written");
    let (_, told) = soak("bench-node", "1");
    let first = summary(5).unwrap_or_else(|| panic!("no run of seed 5: {told}"));
    assert!(summary(6).is_none(), "{told}");
    let (_, told) = soak("bench-node", "2");
    assert_eq!(summary(5), Some(first), "seed 5 was made again: {told}");
    let second: serde_json::Value =
        serde_json::from_str(&summary(6).unwrap_or_else(|| panic!("{told}"))).expect("JSON");
    assert_eq!((&second["seed"], &second["checks"]["audit"]), (&6.into(), &"pass".into()));
    assert!(told.contains("2 runs: ") && told.contains(" 0 known to be lost"), "{told}");

    let (code, told) = soak("etcd", "2");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("is a run of short on bench-node with seed 5"), "{told}");
}
