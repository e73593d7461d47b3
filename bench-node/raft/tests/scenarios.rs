//! Runs the scenario files of `tests/scenarios/`: each opens with its claim in prose, then gives
//! commands (lines that begin with `> `) and what comes of them. The commands are in `stage.rs`.
//! Safety is checked after every command, whatever a file expects.
//!
//! `RAFT_SCENARIOS=rewrite cargo test --release -p raft --test scenarios` puts what came of the
//! commands into the files: for a new file, and to be read before it is believed.

mod harness;
#[path = "scenarios/stage.rs"]
mod stage;
#[path = "scenarios/wording.rs"]
mod wording;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::{env, fs};

use stage::{Bug, Stage};

#[test]
fn every_scenario_goes_as_written() {
    let rewrite = env::var("RAFT_SCENARIOS").is_ok_and(|value| value == "rewrite");
    let mut wrong = String::new();
    for path in files() {
        let expected = fs::read_to_string(&path).expect("a scenario can be read");
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let actual = play(&name, &expected, None);
        let blunders = actual.lines().filter(|line| line.starts_with("! "));
        blunders.for_each(|line| _ = writeln!(wrong, "{name}: {line}"));
        if actual != expected && rewrite {
            fs::write(&path, actual).expect("a scenario can be written");
        } else if actual != expected {
            _ = writeln!(wrong, "{}", difference(&name, &expected, &actual));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The file that claims a bug's contrary must notice it, or it claims less than it seems to.
#[cfg(feature = "seeded-bugs")]
#[test]
fn every_planted_bug_changes_its_scenario() {
    use raft::SeededBug::*;
    for (bug, name) in [
        (VoteNotPersisted, "vote_waits_for_the_disk"),
        (VoteNotPersisted, "campaign_waits_for_the_disk"),
        (ReadWithoutMajority, "read_index"),
        (ReadWithoutMajority, "stale_leader_reads"),
        (CommitEarlierTermByCounting, "commit_of_earlier_terms"),
        (AcknowledgeBeforePersist, "acknowledgement_waits_for_the_disk"),
        (AcknowledgeBeforePersist, "restart_loses_what_was_not_durable"),
        (TermNotPersisted, "acknowledgement_waits_for_the_disk"),
        (ChangeWithoutJoint, "joint_change"),
        (ChangeWithoutJoint, "naive_swap"),
        (ChangeBeforeFirstCommit, "change_waits_for_the_first_commit"),
        (LearnerCounted, "learner"),
        (LeaseBeyondDrift, "lease_reads"),
        (PromiseForgottenOnRestart, "lease_reads"),
        (LeaseKeptThroughTransfer, "lease_given_up_at_transfer"),
        (TransferWithoutCatchingUp, "transfer"),
        (StaleLeaderStays, "isolated_leader_steps_down"),
        (SnapshotWithoutMembership, "snapshot_restores_the_membership"),
        (JointLeftEarly, "joint_change"),
    ] {
        let path = folder().join(name).with_extension("txt");
        let expected = fs::read_to_string(path).expect("a scenario can be read");
        let play = AssertUnwindSafe(|| play(name, &expected, Some(bug)));
        let noticed = catch_unwind(play).map_or(true, |actual| actual != expected);
        assert!(noticed, "{name} does not notice {bug:?}");
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn files() -> Vec<PathBuf> {
    let files = fs::read_dir(folder()).expect("the scenarios are there");
    let mut files: Vec<_> = files
        .map(|file| file.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are no scenarios");
    files
}

/// The text that the file would have if it expected what happens.
fn play(name: &str, text: &str, bug: Option<Bug>) -> String {
    let mut stage = Stage::new(bug);
    let mut actual = String::new();
    let mut commands = 0;
    for (position, line) in text.lines().enumerate() {
        let comment = line.is_empty() || line.starts_with('#');
        if let Some(command) = line.strip_prefix("> ") {
            commands += 1;
            _ = writeln!(actual, "{line}");
            let place = || format!("{name}:{}: {line}", position + 1);
            let outcome = catch_unwind(AssertUnwindSafe(|| stage.perform(command)));
            match outcome {
                Ok(Ok(lines)) => lines.iter().for_each(|line| _ = writeln!(actual, "{line}")),
                Ok(Err(why)) => _ = writeln!(actual, "! {why}"),
                Err(cause) => {
                    eprintln!("{}: a property does not hold", place());
                    std::panic::resume_unwind(cause);
                }
            }
        } else if commands == 0 || comment {
            _ = writeln!(actual, "{line}");
        }
    }
    let claim = text.lines().next().unwrap_or_default();
    assert!(commands > 0 && !claim.starts_with('>'), "{name}: a claim, then commands");
    actual
}

fn difference(name: &str, expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), actual.lines().collect());
    let same = expected.iter().zip(&actual).take_while(|(one, other)| one == other).count();
    let command = expected[..same].iter().rev().find(|line| line.starts_with("> "));
    let show = |lines: &[&str]| {
        let lines = lines.iter().skip(same).take(8);
        lines.map(|line| format!("    {line}\n")).collect::<String>()
    };
    format!(
        "{name}:{}, after {}\n  expected:\n{}  happened:\n{}",
        same + 1,
        command.unwrap_or(&"the claim"),
        show(&expected),
        show(&actual)
    )
}
