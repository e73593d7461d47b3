//! What can go wrong with a fault, apart from its not biting (that is a [`crate::Finding`]).

use std::io;
use std::path::PathBuf;

/// Every variant names the node or the file that it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No handle on the process.
    #[error("{node} (pid {pid}): no pidfd: {source}; process faults need Linux 5.4 or later")]
    Pidfd {
        /// Victim.
        node: String,
        /// Its process.
        pid: i32,
        /// The kernel's word.
        source: io::Error,
    },
    /// It was not running when the fault was due.
    #[error("{node} (pid {pid}) was not running any more: {exit}")]
    NotRunning {
        /// Victim.
        node: String,
        /// Its process.
        pid: i32,
        /// How it ended.
        exit: String,
    },
    /// Another fault, or someone else, holds it stopped.
    #[error("{node} (pid {pid}) was already stopped")]
    AlreadyStopped {
        /// Victim.
        node: String,
        /// Its process.
        pid: i32,
    },
    /// The kernel refused to deliver the signal.
    #[error("{node} (pid {pid}): {signal} was refused: {source}")]
    Signal {
        /// Victim.
        node: String,
        /// Its process.
        pid: i32,
        /// Which.
        signal: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// Its state could not be read.
    #[error("{node} (pid {pid}): reading /proc: {reason}")]
    Proc {
        /// Victim.
        node: String,
        /// Its process.
        pid: i32,
        /// Why.
        reason: String,
    },
    /// The undo could not be written down, so nothing was done.
    #[error("undo journal {path}: {source}")]
    Journal {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the journal is not one of ours.
    #[error("undo journal {path}, line {line}: {reason}")]
    JournalLine {
        /// Where.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// It could not be started again.
    #[error("{node}: not started again: {reason}")]
    Restart {
        /// Victim.
        node: String,
        /// Why.
        reason: String,
    },
    /// It was told to go on and did not.
    #[error("{node} (pid {pid}) did not go on after SIGCONT: {seen}")]
    NotResumed {
        /// Victim.
        node: String,
        /// Its process.
        pid: i32,
        /// Its state.
        seen: String,
    },
}
