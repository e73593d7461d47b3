//! What runs left behind on this machine: processes that carry a run's mark although nobody watches
//! that run any more, and faults that were noted and never undone.
//!
//! Invariant: a process is only touched if it carries a mark of ours and neither its keeper nor the
//! program that started it lives, or if an undo journal names it by its id and its start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chaos::journal::{Undo, not_undone};
use procfs::process::{Process, all_processes};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::keeper::{self, MARK};

/// Something that a run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A process of a run that is over.
    Process {
        /// Its id.
        pid: i32,
        /// What it carries.
        mark: String,
        /// Its command line.
        command: String,
    },
    /// A process that a fault stopped, and nobody let go on.
    Stopped {
        /// Its id.
        pid: i32,
        /// When it started, in ticks since boot.
        started_ticks: u64,
        /// The node that it is.
        node: String,
        /// Where the fault was noted.
        journal: PathBuf,
    },
}

impl Leftover {
    /// What it is, in words.
    pub fn told(&self) -> String {
        match self {
            Leftover::Process { pid, mark, command } => {
                format!("process {pid} of run {mark}: {command}")
            }
            Leftover::Stopped { pid, node, journal, .. } => {
                format!("{node} (pid {pid}) is still stopped by a fault of {}", journal.display())
            }
        }
    }

    /// Removes it; says what was done.
    pub fn heal(&self) -> Result<&'static str, String> {
        let signal = match self {
            Leftover::Process { .. } => Signal::KILL,
            Leftover::Stopped { .. } => Signal::CONT,
        };
        let (Leftover::Process { pid, .. } | Leftover::Stopped { pid, .. }) = self;
        let id = Pid::from_raw(*pid).ok_or("it has no process id")?;
        let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { return Ok("is gone") };
        // Asked again now that the handle is held: the pid may have become another process.
        let is_still_it = match self {
            Leftover::Process { pid, mark, .. } => mark_of(*pid).as_ref() == Some(mark),
            Leftover::Stopped { pid, started_ticks, .. } => is_stopped(*pid, *started_ticks),
        };
        if !is_still_it {
            return Ok("is gone");
        }
        pidfd_send_signal(&pidfd, signal).map_err(|errno| errno.to_string())?;
        Ok(match self {
            Leftover::Process { .. } => "killed",
            Leftover::Stopped { .. } => "goes on",
        })
    }
}

/// What is left of any run, and what the undo journals in the folders of `runs` say.
pub fn find(runs: &[PathBuf]) -> anyhow::Result<Vec<Leftover>> {
    let watched = watched_marks();
    let mut found: Vec<Leftover> = all_processes()?
        .flatten()
        .filter_map(|process| {
            let mark = mark_of(process.pid())?;
            let is_over = !watched.contains(&mark) && !has_a_program(&process, &mark);
            is_over.then(|| Leftover::Process {
                pid: process.pid(),
                command: process.cmdline().unwrap_or_default().join(" "),
                mark,
            })
        })
        .collect();
    for run in runs {
        for journal in journals(run) {
            for entry in not_undone(&journal)? {
                let known = |left: &Leftover| matches!(left, Leftover::Process { pid, .. } if *pid == entry.pid);
                let stands =
                    entry.undo == Undo::Resume && is_stopped(entry.pid, entry.started_ticks);
                let lives = mark_of(entry.pid).is_some_and(|mark| watched.contains(&mark));
                if stands && !lives && !found.iter().any(known) {
                    found.push(Leftover::Stopped {
                        pid: entry.pid,
                        started_ticks: entry.started_ticks,
                        node: entry.node,
                        journal: journal.clone(),
                    });
                }
            }
        }
    }
    Ok(found)
}

/// The run folders that are in `folder`, which may be one itself.
pub fn run_folders(folder: &Path) -> Vec<PathBuf> {
    if !journals(folder).is_empty() {
        return vec![folder.to_owned()];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

/// A soak has one for each batch.
fn journals(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("undo") && name.ends_with(".jsonl")
    };
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

/// The runs that a keeper watches now.
fn watched_marks() -> BTreeSet<String> {
    let Ok(processes) = all_processes() else { return BTreeSet::new() };
    processes.flatten().filter_map(|process| keeper::watches(&process.cmdline().ok()?)).collect()
}

/// Whether one of its ancestors is a program of ours that is not itself of that run.
fn has_a_program(process: &Process, mark: &str) -> bool {
    let mut parent = process.stat().map(|stat| stat.ppid).unwrap_or(0);
    while parent > 1 {
        let Ok(ancestor) = Process::new(parent) else { return false };
        let is_ours = ancestor
            .cmdline()
            .is_ok_and(|words| words.first().is_some_and(|word| word.ends_with("raftbench")));
        if is_ours && mark_of(parent).as_deref() != Some(mark) {
            return true;
        }
        parent = ancestor.stat().map(|stat| stat.ppid).unwrap_or(0);
    }
    false
}

/// The mark that process `pid` carries.
fn mark_of(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mark = environment.split(|byte| *byte == 0).find_map(|variable| {
        variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    })?;
    String::from_utf8(mark.to_vec()).ok().filter(|mark| !mark.is_empty())
}

fn is_stopped(pid: i32, started_ticks: u64) -> bool {
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.starttime == started_ticks && stat.state == 'T')
}
