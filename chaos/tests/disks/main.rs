//! The conformance suite of emulated disks, from outside: files written, synced, read back and lost
//! through the kernel, and `fio` (which has io_uring and mappings).
//!
//! This program runs itself again: it enters a lab with disks, and there the trials run. With the
//! feature `seeded-bugs` it also plants each bug, and fails where no trial notices. What cannot be
//! tried is said loudly, and fails where the variable `CI` is set.

mod equal;
mod lost;
mod overhead;
mod stage;
mod timing;
mod trouble;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use chaos::lab::{Lab, Layout, enter_with_disks};
use libtest_mimic::{Arguments, Trial};
use stage::{Body, Stage};

/// Set in the process that is to enter the lab.
const INSIDE: &str = "DISKS_UNDER_TEST";
/// Set where a process is to hold a stalled sync until it is killed.
const HOLD: &str = "DISKS_HOLD";
/// See `chaos::lab::disks`.
const BUG: &str = "RAFTBENCH_SEEDED_BUG";

/// The exit code that says: not available here.
const MISSING: u8 = 77;

/// Trials that measure, by name. A busy machine can spoil a measurement, and no better disk can make
/// it: so one of three must be right.
const MEASURED: &[(&str, Body)] = &[
    ("a_sync_takes_what_the_model_says", timing::a_sync_takes_what_the_model_says),
    ("direct_writes_are_served_at_once_up_to_the_limit", timing::direct_writes_are_served_at_once),
    ("dsync_writes_are_syncs", timing::dsync_writes_are_syncs),
    ("requests_per_second_are_limited", timing::requests_per_second_are_limited),
    ("burst_credits_run_out", timing::burst_credits_run_out),
];

/// All others.
const TRIALS: &[(&str, Body)] = &[
    ("random_work_is_equal_to_the_hosts", equal::random_work_is_equal_to_the_hosts),
    ("fio_verifies_io_uring_and_mappings", equal::fio_verifies_io_uring_and_mappings),
    ("power_loss_takes_exactly_what_was_not_synced", lost::exactly_what_was_not_synced),
    ("names_are_lost_until_they_are_synced", lost::names_are_lost_until_they_are_synced),
    ("power_goes_on_all_disks_in_the_midst_of_a_sync", lost::power_goes_in_a_sync),
    ("torn_writes_are_torn_at_sectors", lost::torn_writes_are_torn_at_sectors),
    ("a_stall_holds_what_arrives", trouble::a_stall_holds_what_arrives),
    ("a_slow_disk_is_slower", trouble::a_slow_disk_is_slower),
    ("a_full_disk_and_a_broken_one_refuse", trouble::full_and_broken_refuse),
    ("a_disk_faster_than_the_host_is_refused", trouble::too_fast_is_refused),
];

/// Only when asked for (`--ignored`).
const BY_HAND: &[(&str, Body)] = &[("overhead", overhead::report)];

/// Which trial notices which bug.
const BUGS: &[(&str, &str)] = &[
    ("disk-sync-does-not-persist", "power_loss_takes_exactly_what_was_not_synced"),
    ("disk-latency-ignored", "a_sync_takes_what_the_model_says"),
    ("disk-credits-never-run-out", "burst_credits_run_out"),
];

fn main() -> ExitCode {
    if let Some(code) = chaos::lab::role() {
        return code;
    }
    match (std::env::var_os(INSIDE), Lab::inside()) {
        (Some(_), Some(lab)) if std::env::var_os(HOLD).is_some() => trouble::hold(&lab),
        (Some(_), Some(lab)) => run_trials(&lab),
        (Some(_), None) => enter_lab(),
        (None, _) => run_all(),
    }
}

fn run_all() -> ExitCode {
    let mut code = again(&[], std::env::args_os().skip(1)).status().expect("started").code();
    if code == Some(MISSING.into()) {
        println!("\n*** NOT TRIED: emulated disks ***\n");
        return ExitCode::from(u8::from(std::env::var_os("CI").is_some()));
    }
    let asks_for_some = std::env::args_os().len() > 1;
    if asks_for_some {
        return ExitCode::from(u8::from(code != Some(0)));
    }
    if cfg!(feature = "seeded-bugs") {
        for (bug, trial) in BUGS {
            let arguments = ["--exact", trial].map(OsString::from);
            let output = again(&[(BUG, bug)], arguments).output().expect("started");
            let said = String::from_utf8_lossy(&output.stdout);
            let noticed = said.contains(&format!("---- {trial} ----")) && said.contains("1 failed");
            println!("planted {bug}: {}", if noticed { "noticed" } else { "NOT NOTICED" });
            if !noticed {
                code = Some(1);
            }
        }
    }
    if !trouble::nothing_remains_after_a_kill_in_a_stalled_sync() {
        code = Some(1);
    }
    ExitCode::from(u8::from(code != Some(0)))
}

fn again(env: &[(&str, &str)], arguments: impl IntoIterator<Item = OsString>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program's file"));
    command.args(arguments).env(INSIDE, "1").envs(env.iter().copied());
    command
}

fn enter_lab() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let layout = Layout::new(1, 1).expect("fits");
    match enter_with_disks(&layout, &arguments, ("DISKS_TEST", "1")) {
        Ok(status) => ExitCode::from(status.code().and_then(|c| c.try_into().ok()).unwrap_or(1)),
        Err(error) => {
            println!("not available: {error}");
            match error {
                chaos::Error::NoNamespaces { .. } => ExitCode::from(MISSING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run_trials(lab: &Lab) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the machine's time.
    arguments.test_threads = Some(1);
    arguments.color = Some(libtest_mimic::ColorSetting::Never);
    let stage = match Stage::new(lab) {
        Ok(stage) => Arc::new(stage),
        Err(error @ chaos::Error::NoDisks { .. }) => {
            println!("not available: {error}");
            return ExitCode::from(MISSING);
        }
        Err(error) => panic!("no disk: {error}"),
    };
    take_precedence();
    let trial = |tries: usize| {
        let stage = stage.clone();
        move |(name, body): &(&'static str, Body)| {
            let (stage, body) = (stage.clone(), *body);
            Trial::test(*name, move || {
                one_of(tries, || body(&stage));
                Ok(())
            })
        }
    };
    let mut trials: Vec<Trial> = MEASURED.iter().map(trial(3)).collect();
    trials.extend(TRIALS.iter().map(trial(1)));
    trials.extend(BY_HAND.iter().map(trial(1)).map(|trial| trial.with_ignored_flag(true)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Passes where one of so many tries does.
fn one_of(tries: usize, body: impl Fn()) {
    for _ in 1..tries {
        if catch_unwind(AssertUnwindSafe(&body)).is_ok() {
            return;
        }
    }
    body();
}

/// What is measured is the disk, and not who else is busy here.
fn take_precedence() {
    use thread_priority::unix::{ScheduleParams, set_thread_priority_and_policy, thread_native_id};
    use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
    let lowest = ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 });
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    // An ordinary user may not.
    set_thread_priority_and_policy(thread_native_id(), lowest, fifo).ok();
}
