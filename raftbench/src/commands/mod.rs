//! The command line: one file for each command, which reads its arguments, calls the rooms, and
//! prints.
//!
//! Invariant: commands hold no rule of their own; what they print comes from another room.
//! Exit codes: 0 pass, 1 fail, 2 usage or environment, 3 inconclusive, 4 invalid.

mod chaos;
mod check;
mod compare;
mod doctor;
mod lab;
mod load;
mod members;
mod node;
mod plan;
mod profiles;
mod progress;
mod report;
mod resolve;
mod run;
mod seeds;
mod soak;
mod up;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::keeper;

/// Usage, or something in the environment that kept the command from its work.
pub const EXIT_USAGE: u8 = 2;

/// How much load a Raft deployment carries inside its alert thresholds, and what it does when it
/// breaks.
#[derive(Debug, Parser)]
#[command(name = "raftbench", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, load it, break it on schedule, and judge what clients saw
    Run(run::Args),
    /// Show what a run of the profile would do, by time; starts and touches nothing
    Plan(plan::Args),
    /// What watches a run, to end what the run started if it dies
    #[command(hide = true)]
    Keeper(keeper::Args),
    /// Start the profile's cluster, and keep it until Ctrl-C
    Up(up::Args),
    /// Run a command on a private host, with the profile's network to the others
    Lab(lab::Args),
    /// Load endpoints, or the null target, and nothing else
    Load(load::Args),
    /// Run one member of a bench-node cluster, until SIGTERM or a failure
    Node(node::Args),
    /// Show the members of a bench-node cluster, or change several of them at once
    Members(members::Args),
    /// Kill random nodes with -9 under load, round after round, and lose nothing; or run one profile with
    /// many seeds
    Soak(soak::Args),
    /// Show a run again, from its folder
    Report(report::Args),
    /// Check a recorded history for linearizability
    Check(check::Args),
    /// Show two runs side by side
    Compare(compare::Args),
    /// Break a real host, through the agent that runs there
    Chaos(chaos::Args),
    /// Say what works on this host, what each missing thing costs, and what runs left behind
    Doctor(doctor::Args),
    /// List the embedded profiles, or print one
    Profiles(profiles::Args),
}

/// Runs one command; an error is the user's or the environment's.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Keeper(args) => keeper::run(args),
        Command::Up(args) => up::run(args),
        Command::Lab(args) => lab::run(args),
        Command::Load(args) => load::run(args),
        Command::Node(args) => node::run(args),
        Command::Members(args) => members::run(args),
        Command::Soak(args) => soak::run(args),
        Command::Report(args) => report::run(args),
        Command::Check(args) => check::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Chaos(args) => chaos::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Profiles(args) => profiles::run(args),
    }
}

/// An error with its causes, each told once: many have their cause in their own text.
pub fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match &*told {
        "" => cause,
        told if told.contains(&cause) => told.to_owned(),
        told => format!("{told}: {cause}"),
    })
}

/// Says something beside what is printed. That stderr cannot take it (its disk is full, say) must not
/// change how the program ends.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Prints a whole text. A reader that has read enough (`| head`) is no error.
fn show(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_told_once() {
        let told = |error: anyhow::Error| in_full(&error);
        assert_eq!(
            told(anyhow!("it is full").context("cannot write x")),
            "cannot write x: it is full"
        );
        let within = anyhow!("it is full").context("cannot write x: it is full").context("no run");
        assert_eq!(told(within), "no run: cannot write x: it is full");
    }
}
