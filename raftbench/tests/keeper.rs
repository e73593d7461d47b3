//! Whatever a run started ends with it: the program is killed with -9 at several moments, and a
//! second later nothing of it is left.

mod harness;

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use harness::{Bench, Running, keeper_of, needs_etcd, profile, state_of, wait_for};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The promise is a second.
const A_SECOND: Duration = Duration::from_secs(1);

/// A cluster may take this long to start where many tests share two cores.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: &str = r#"
[[faults]]
kind = "pause"
target = "leader"
at_s = 1
resume_after_s = 5
"#;

const KILL: &str = r#"
[[faults]]
kind = "kill"
target = "leader"
at_s = 1
restart_after_s = 5
"#;

#[derive(Clone, Copy, Debug)]
enum Moment {
    Start,
    Load,
    Fault,
    Pause,
}

#[test]
fn nothing_of_bench_node_outlives_the_program() {
    for (seed, moment) in
        [Moment::Start, Moment::Load, Moment::Fault, Moment::Pause].into_iter().enumerate()
    {
        kill_the_program("bench-node", moment, seed as u64);
    }
}

#[test]
fn nothing_of_etcd_outlives_the_program() {
    needs_etcd();
    for (seed, moment) in [Moment::Start, Moment::Start, Moment::Pause].into_iter().enumerate() {
        kill_the_program("etcd", moment, seed as u64);
    }
}

fn kill_the_program(target: &str, moment: Moment, seed: u64) {
    println!("{target}, {moment:?}, seed {seed}");
    let fault = if matches!(moment, Moment::Pause) { PAUSE } else { KILL };
    let bench = Bench::with(&profile(fault));
    let mut program = Running::start(bench.command("run", target).stderr(Stdio::null()));
    let pid = program.pid();
    let nodes = || bench.nodes(pid);
    match moment {
        Moment::Start => {
            wait_for("a node", PATIENCE, || (!nodes().is_empty()).then_some(()));
            // Anywhere in the start of the others.
            let at_most_ms = 400;
            sleep(Duration::from_millis(StdRng::seed_from_u64(seed).random_range(0..at_most_ms)));
        }
        Moment::Load => {
            let begun = || bench.out().join("undo.jsonl").exists().then_some(());
            wait_for("the walk", PATIENCE, begun);
            let random_ms = StdRng::seed_from_u64(seed).random_range(0..900);
            sleep(Duration::from_millis(random_ms));
        }
        Moment::Fault => {
            wait_for("a fault", PATIENCE, || bench.a_fault_was_noted().then_some(()));
        }
        Moment::Pause => {
            let stopped =
                || nodes().into_iter().any(|pid| state_of(pid) == Some('T')).then_some(());
            wait_for("a stopped node", PATIENCE, stopped);
        }
    }
    let keeper = keeper_of(pid).expect("a keeper watches");
    program.0.kill().expect("killed");
    program.0.wait().expect("reaped");
    wait_for("no node left", A_SECOND, || nodes().is_empty().then_some(()));
    let is_gone = || state_of(keeper).is_none_or(|state| state == 'Z').then_some(());
    wait_for("the keeper's own end", PATIENCE, is_gone);
    assert!(nodes().is_empty(), "a node appeared after the keeper had gone");
}

#[test]
fn ctrl_c_stops_the_cluster_and_leaves_the_folder() {
    let bench = Bench::with(&profile(KILL));
    // Its own group, as a shell gives it one: Ctrl-C goes to all of it, the keeper too.
    let mut command = bench.command("run", "bench-node");
    let mut program = Running::start(command.process_group(0).stderr(Stdio::null()));
    let pid = program.pid();
    wait_for("a fault", PATIENCE, || bench.a_fault_was_noted().then_some(()));
    killpg(Pid::from_raw(pid as i32), Signal::SIGINT).expect("delivered");
    let status = wait_for("its end", PATIENCE, || program.0.try_wait().expect("ours"));
    assert_eq!(status.code(), Some(2));
    assert_eq!(bench.nodes(pid), [] as [i32; 0]);
    assert_eq!(keeper_of(pid), None);
    assert!(bench.out().join("logs/n1.log").exists());
}

#[test]
fn two_runs_at_once_leave_each_other_alone() {
    let (doomed, other) = (Bench::with(&profile(KILL)), Bench::with(&profile("")));
    let mut first = Running::start(doomed.command("up", "bench-node").stdout(Stdio::null()));
    let second = Running::start(other.command("up", "bench-node").stdout(Stdio::null()));
    for (bench, program) in [(&doomed, first.pid()), (&other, second.pid())] {
        wait_for("three nodes", PATIENCE, || (bench.nodes(program).len() == 3).then_some(()));
    }
    let before = other.nodes(second.pid());
    let keeper = keeper_of(first.pid()).expect("a keeper watches");
    first.0.kill().expect("killed");
    first.0.wait().expect("reaped");
    let is_gone = || state_of(keeper).is_none_or(|state| state == 'Z').then_some(());
    wait_for("the first keeper's end", PATIENCE, is_gone);
    assert_eq!(doomed.nodes(0), [] as [i32; 0]);
    assert_eq!(other.nodes(second.pid()), before);
}
