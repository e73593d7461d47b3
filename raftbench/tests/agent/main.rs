//! The agent on a host, from outside: what it refuses, what its faults do, and that they always go
//! away, also after `kill -9`.
//!
//! This program runs itself again, in a network of its own, and among processes of its own, so
//! that the machine's are never touched; and once more in a user-mode Linux (`ci/uml`), which has netem and cgroup v2 where the
//! native kernel has not. What can be tried nowhere is said loudly, and fails where the variable `CI`
//! is set. With the feature `seeded-bugs` the suite is itself proven: with each planted bug in the
//! agent, a trial must fail.

mod deaths;
mod faults;
mod foreign;
mod pki;
mod refusals;
mod stage;
mod victim;
mod world;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use world::World;

/// Where this process is: `native` or `uml`. Unset: outside of both.
const PLACE: &str = "AGENT_TESTS_IN";

/// One trial, in a world of its own kernel and network.
type Body = fn(&World);

/// Planted bugs, each with a trial that must fail with it.
const PLANTED: [(&str, &str); 3] = [
    ("undo-is-not-noted", "deaths::with_a_fault_in_force_is_healed_by_the_next_agent"),
    ("agent-ignores-leases", "faults::a_lease_that_runs_out_heals"),
    ("agent-takes-any-qdisc", "foreign::a_qdisc_of_somebody_else_is_left_alone"),
];

fn main() -> ExitCode {
    if let Some(code) = victim::role() {
        return code;
    }
    match std::env::var(PLACE).as_deref() {
        Ok(place) => run_trials(place),
        Err(_) => run_everywhere(),
    }
}

fn run_everywhere() -> ExitCode {
    if Arguments::from_args().list {
        return run_trials("native");
    }
    if !nix::unistd::Uid::effective().is_root() {
        return ExitCode::from(u8::from(!not_tried("the agent: it needs root")));
    }
    let mut fine = run("in a network of its own", with_arguments(native()));
    let mut boots = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/uml"));
    boots.arg(format!("{PLACE}=uml"));
    if let Ok(which) = std::env::var("RAFTBENCH_TESTS") {
        boots.arg(format!("RAFTBENCH_TESTS={which}"));
    }
    boots.arg(world::own_program());
    boots.env("UML_TIMEOUT_S", "2400");
    fine &= run("in a user-mode Linux", with_arguments(boots));
    if cfg!(feature = "seeded-bugs") && arguments().next().is_none() {
        for (bug, trial) in PLANTED {
            fine &= is_caught(bug, trial);
        }
    }
    ExitCode::from(u8::from(!fine))
}

/// Among processes of its own, too: the doctor must find nothing of others. The shell buries those
/// whose parents have gone.
fn native() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", "\"$@\"; exit $?", "sh"]).arg(world::own_program());
    command.env(PLACE, "native");
    command
}

fn run(place: &str, mut command: Command) -> bool {
    println!("the agent, {place}");
    match command.stdin(Stdio::null()).status().expect("started").code() {
        Some(0) => true,
        Some(77) => not_tried(&format!("the agent, {place} (see above)")),
        _ => false,
    }
}

/// Whether that is fine.
fn not_tried(what: &str) -> bool {
    println!("\n*** NOT TRIED: {what} ***\n");
    std::env::var_os("CI").is_none()
}

fn is_caught(bug: &str, trial: &str) -> bool {
    let mut suite = native();
    suite.args(["--exact", trial]).env("RAFTBENCH_SEEDED_BUG", bug).stdin(Stdio::null());
    let output = suite.output().expect("started");
    let told = String::from_utf8_lossy(&output.stdout);
    let caught = told.contains("0 passed; 1 failed");
    match caught {
        true => println!("planted bug {bug}: caught by {trial}"),
        false => println!("planted bug {bug}: NOT caught by {trial}:\n{told}"),
    }
    caught
}

fn with_arguments(mut command: Command) -> Command {
    command.args(arguments());
    command
}

fn arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

fn run_trials(place: &str) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the host.
    arguments.test_threads = Some(1);
    arguments.color = Some(libtest_mimic::ColorSetting::Never);
    let world = match arguments.list {
        true => None,
        false => Some(Arc::new(World::make(place))),
    };
    let mut trials = Vec::new();
    for (name, body) in [refusals::ALL, faults::ALL, foreign::ALL, deaths::ALL].concat() {
        let world = world.clone();
        trials.push(Trial::test(name, move || {
            if let Some(world) = &world {
                body(world);
            }
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
