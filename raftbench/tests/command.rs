//! The command line: what it prints where, and with which code it exits.

use std::process::{Command, Output};

fn raftbench(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
    let output = command.args(arguments).current_dir(dir.path()).output().expect("started");
    let left = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(left, 0, "{arguments:?} left something behind");
    output
}

#[track_caller]
fn refused(arguments: &[&str], expected: &[&str]) {
    let output = raftbench(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty(), "errors go to stderr");
    let error = String::from_utf8_lossy(&output.stderr);
    for part in expected {
        assert!(error.contains(part), "`{error}`\ndoes not say `{part}`");
    }
}

#[test]
fn a_plan_is_shown_and_touches_nothing() {
    let output = raftbench(&["plan", "quickstart", "--target", "etcd", "--seed", "3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("3 x etcd") && text.contains("seed       3"), "{text}");
    assert!(text.contains("8.000 s  f1: kill -9 leader"), "{text}");
}

#[test]
fn a_printed_profile_is_the_embedded_one() {
    let output = raftbench(&["profiles", "quickstart"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, raftbench::profile::embedded::text("quickstart").expect("embedded"));
    let list = raftbench(&["profiles"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("rolling-restart"));
}

#[test]
fn bad_input_is_refused_before_anything_starts() {
    refused(&["run", "quickstrat"], &["did you mean `quickstart`?"]);
    refused(
        &["run", "quickstart", "--set", "load.rate_per_second=0"],
        &["--set load.rate_per_second=0", "must be a number above 0"],
    );
    refused(&["run", "quickstart", "--endpoints", "127.0.0.1:1"], &["`faults`", "--set faults=[]"]);
    refused(&["run", "quickstart", "--target", "nats"], &["not available yet"]);
    refused(&["report", "nowhere"], &["nowhere is not a run folder"]);
    refused(&["run", "./none.toml"], &["error: cannot read the profile ./none.toml: No such file"]);
    refused(&["run"], &["PROFILE"]);
}

#[test]
fn a_cluster_that_does_not_answer_is_an_error_that_leaves_nothing() {
    // Port 1 of the loopback address is never listened on.
    let arguments = ["run", "steady", "--endpoints", "127.0.0.1:1", "--set", "phases.measure_s=1"];
    let output = raftbench_within_a_folder(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"));
}

/// On a full disk, say. Nobody reads the words then, but scripts read the code.
#[test]
fn a_refusal_that_cannot_be_written_is_one_all_the_same() {
    let full = std::fs::File::create("/dev/full").expect("Linux has it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
    let status = command.args(["run", "quickstrat"]).stderr(full).status().expect("started");
    assert_eq!(status.code(), Some(2));
}

/// Leaves at most the empty parents of the run folder.
fn raftbench_within_a_folder(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
    let output = command.args(arguments).arg("--out").arg(&out).output().expect("started");
    assert!(!out.exists(), "a run folder is left behind");
    output
}
