//! `raftbench doctor`: what it says of this host, and what it removes. It runs among processes of
//! its own (a pid namespace), so that it finds nothing of others.

mod harness;

use std::process::{Command, Output, Stdio};

use harness::{Bench, profile};
use nix::unistd::Uid;

/// `sh -c SCRIPT raftbench`, as the first process of a namespace.
fn sh_alone(bench: &Bench, script: &str) -> Output {
    let mut command = Command::new("unshare");
    if !Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["timeout", "--foreground", "120", "sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_raftbench"));
    command.current_dir(bench.path()).stdin(Stdio::null()).output().expect("unshare (util-linux)")
}

#[test]
fn everything_is_tried_and_each_answer_says_what_it_is_for() {
    let bench = Bench::with("");
    let output = sh_alone(&bench, "\"$1\" doctor --json");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let abilities = told["abilities"].as_array().expect("a list");
    let names: Vec<&str> = abilities.iter().map(|a| a["name"].as_str().expect("text")).collect();
    for name in ["pidfd", "namespaces", "netem", "TUN", "sock_diag", "FUSE", "io_uring"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for ability in abilities {
        for key in ["seen", "serves"] {
            assert!(!ability[key].as_str().expect("text").is_empty(), "{ability}");
        }
    }
    // The tests themselves need it.
    let pidfd = abilities.iter().find(|ability| ability["name"] == "pidfd").expect("there");
    assert_eq!(pidfd["works"], true);
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    // What was tried is gone again.
    let table =
        sh_alone(&bench, "\"$1\" doctor; ls /sys/fs/cgroup /sys/fs/cgroup/blkio; ip -br link");
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.contains("nothing was left behind") && text.contains("│ netem"), "{text}");
    for trace in ["raftbench-doctor", "probe@", "bridge"] {
        assert!(!text.contains(trace), "{trace}: {text}");
    }
}

#[test]
fn a_run_that_nobody_watches_any_more_is_found_and_ended_and_one_that_goes_on_is_not() {
    let bench = Bench::with(&profile(""));
    let script = r#"
        "$1" up short.toml --out out --json > ready &
        up=$!
        until [ -s ready ]; do sleep 0.1; done
        "$1" doctor > /dev/null; echo "goes on: $?"
        for process in /proc/[0-9]*; do
            if tr '\0' ' ' < $process/cmdline | grep -q "keeper --program $up "; then
                kill -9 ${process#/proc/}
            fi
        done
        kill -9 $up; wait $up
        "$1" doctor; echo "over: $?"
        "$1" doctor --heal; echo "healed: $?"
        "$1" doctor > /dev/null; echo "after: $?"
    "#;
    let output = sh_alone(&bench, script);
    let text = String::from_utf8_lossy(&output.stdout);
    let told = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in
        ["goes on: 0", "left behind: process ", "over: 1", "(killed)", "healed: 0", "after: 0"]
    {
        assert!(text.contains(part), "`{part}` is not in {told}");
    }
    assert_eq!(text.matches("healed: process").count(), 3, "{told}");
}

#[test]
fn a_process_that_a_fault_stopped_goes_on() {
    let bench = Bench::with("");
    // Not ours by any mark, but named by a journal with its start.
    let script = r#"
        sleep 100 &
        pid=$!
        kill -STOP $pid
        until grep -q '^State:.T' /proc/$pid/status; do sleep 0.05; done
        ticks=$(sed 's/.*) //' /proc/$pid/stat | cut -d' ' -f20)
        mkdir -p results/local/run
        echo "{\"entry\":1,\"fault\":\"f1\",\"node\":\"n2\",\"pid\":$pid,\"started_ticks\":$ticks,\"undo\":\"resume\"}" \
            > results/local/run/undo.jsonl
        "$1" doctor; echo "stopped: $?"
        "$1" doctor --heal; echo "healed: $?"
        grep '^State' /proc/$pid/status
        sed -i 's/"started_ticks":/"started_ticks":1/' results/local/run/undo.jsonl
        kill -STOP $pid
        "$1" doctor > /dev/null; echo "another's: $?"
    "#;
    let output = sh_alone(&bench, script);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "n2 (pid ",
        "still stopped by a fault",
        "stopped: 1",
        "(goes on)",
        "healed: 0",
        "another's: 0",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert!(text.contains("State:\t") && !text.contains("State:\tT"), "{text}");
}
