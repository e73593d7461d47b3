//! `raftbench check`: what it prints, what it draws, and with which code it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use history::{Consistency, Kind, Operation, Outcome, write};
use tempfile::TempDir;

fn check(path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
    command.arg("check").arg(path).args(arguments).output().expect("started")
}

#[track_caller]
fn text(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    // Quiet in a pipe.
    assert!(error.is_empty(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn operation(op: Kind, value: &str, ms: i64) -> Operation {
    Operation {
        process: 1,
        op,
        key: "run/k".to_owned(),
        value: Some(value.to_owned()),
        expected: None,
        invoke_ns: ms * 1_000_000,
        complete_ns: Some(ms * 1_000_000 + 500_000),
        outcome: Outcome::Ok,
        consistency: Consistency::Linearizable,
        revision: None,
        node: Some("n1".to_owned()),
        error: None,
    }
}

/// Two writes, and a read that ought to see the second.
fn history(seen: &str) -> Vec<Operation> {
    vec![
        operation(Kind::Put, "a", 0),
        operation(Kind::Put, "b", 1),
        operation(Kind::Get, seen, 2),
        Operation { consistency: Consistency::Serializable, ..operation(Kind::Get, "a", 3) },
        operation(Kind::Get, "b", 4),
    ]
}

fn written(folder: &TempDir, name: &str, operations: &[Operation]) -> PathBuf {
    let path = folder.path().join(name);
    write(&path, operations).expect("written");
    path
}

#[test]
fn a_linearizable_history_passes_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written(&folder, "history.jsonl.zst", &history("b"));
    let text = text(&check(&path, &[]), 0);
    assert!(text.starts_with("PASS: the history is linearizable\n"), "{text}");
    assert!(text.contains("operations: 4 (0 unknown writes); keys: 1; read in 0.0"), "{text}");
    assert!(
        text.contains("left out: 0 that failed, 1 serializable gets, 0 unknown gets"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
}

#[test]
fn a_stale_read_fails_and_is_drawn_beside_the_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written(&folder, "mine.jsonl", &history("a"));
    let told = text(&check(&path, &[]), 1);
    let first = "FAIL: the history is not linearizable: key `run/k`: get (line 3) returned `a`";
    assert!(told.starts_with(first), "{told}");
    assert!(told.contains("get: a <<"), "{told}");
    let drawing = folder.path().join("mine.jsonl.violation.svg");
    assert!(told.contains(&format!("drawn in {}", drawing.display())), "{told}");
    let drawn = std::fs::read_to_string(&drawing).expect("a drawing");
    for part in ["Stale read on key run/k", "put k=a", "put k=b", "get k → a", "line 3"] {
        assert!(drawn.contains(part), "{part} is not in {drawn}");
    }
    let elsewhere = folder.path().join("elsewhere.svg");
    let there = elsewhere.to_str().expect("text");
    text(&check(&path, &["--svg", there]), 1);
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("a drawing"), drawn);
}

#[test]
fn a_run_folder_is_checked_by_its_history() {
    let folder = tempfile::tempdir().expect("a folder");
    written(&folder, "history.jsonl.zst", &history("a"));
    let told = text(&check(folder.path(), &["--format", "json"]), 1);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["verdict"], "fail");
    assert_eq!(told["violations"][0]["kind"], "stale_read");
    assert_eq!(told["violations"][0]["operations"][0]["operation"]["value"], "a");
    assert_eq!(told["left_out"]["serializable_gets"], 1);
    assert!(folder.path().join("violation.svg").is_file());
    let empty = tempfile::tempdir().expect("a folder");
    let output = check(empty.path(), &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("holds no history: no history.jsonl.zst and no history.jsonl"),
        "{error}"
    );
}

#[test]
fn a_bad_line_is_an_error_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written(&folder, "bad.jsonl", &history("b"));
    let mut lines = std::fs::read_to_string(&path).expect("read");
    lines.push_str("{\"process\": 1, \"op\": \"swap\"}\n");
    std::fs::write(&path, lines).expect("written");
    let output = check(&path, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("bad.jsonl:6: `op` must be \"put\", \"get\""), "{error}");
    let output = check(&folder.path().join("nowhere"), &[]);
    assert_eq!(output.status.code(), Some(2));
}

/// To walk each edge of a complete graph once, and end elsewhere than where it began: impossible,
/// and only by trying all walks is it seen.
#[test]
fn what_is_not_decided_in_time_is_undecided_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut operations = vec![operation(Kind::Put, "v0", 0)];
    for from in 0..10 {
        for to in (0..10).filter(|to| *to != from) {
            operations.push(Operation {
                expected: Some(format!("v{from}")),
                complete_ns: Some(50_000_000),
                ..operation(Kind::Cas, &format!("v{to}"), 2)
            });
        }
    }
    operations.push(operation(Kind::Get, "v1", 60));
    let path = written(&folder, "hard.jsonl", &operations);
    let told = text(&check(&path, &["--time-limit-s", "0.01"]), 3);
    let first = "UNDECIDED: key `run/k` (92 operations) ran into the time limit";
    assert!(told.starts_with(first), "{told}");
    let refused = check(&path, &["--time-limit-s", "0"]);
    assert_eq!(refused.status.code(), Some(2));
}
