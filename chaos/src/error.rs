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
    /// No namespaces, so no lab.
    #[error("a lab needs namespaces, and the kernel refused them: {problem}; {hint}")]
    NoNamespaces {
        /// The kernel's word.
        problem: io::Error,
        /// Which setting stands in the way.
        hint: String,
    },
    /// A step of making or entering a lab.
    #[error("the lab cannot {what}: {problem}")]
    Lab {
        /// What it cannot do.
        what: &'static str,
        /// Why.
        problem: io::Error,
    },
    /// More or fewer hosts than a lab can have.
    #[error(
        "a lab of {nodes} nodes and {clients} clients cannot be: it has at least one of each, and \
         at most {most} hosts"
    )]
    LabSize {
        /// Asked for.
        nodes: usize,
        /// Asked for.
        clients: usize,
        /// Together.
        most: usize,
    },
    /// What tells where a lab is cannot be kept, or read.
    #[error("{path}: {problem}; a run that has a lab keeps this file while it runs")]
    LabFile {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// A lab that is over.
    #[error("{path} tells of a lab that has ended")]
    LabEnded {
        /// The file.
        path: PathBuf,
    },
    /// No host has that name.
    #[error("no host is called `{name}`; the lab has {known}")]
    UnknownHost {
        /// As asked.
        name: String,
        /// All.
        known: String,
    },
    /// A command of the user's.
    #[error("cannot start `{program}`: {problem}")]
    Command {
        /// Its program.
        program: String,
        /// Why.
        problem: io::Error,
    },
    /// One of iproute2's programs.
    #[error("`{program}` failed: {reason}")]
    Iproute {
        /// `ip` or `tc`.
        program: &'static str,
        /// Its own words.
        reason: String,
    },
    /// A value that no link can have.
    #[error("{what} is {value}; it must be {wanted}")]
    Condition {
        /// Which.
        what: &'static str,
        /// As given.
        value: String,
        /// What it can be.
        wanted: &'static str,
    },
    /// This kernel or this user cannot have such links.
    #[error("links by {implementation} are not available: {reason}")]
    NoLinks {
        /// Which.
        implementation: &'static str,
        /// Why.
        reason: String,
    },
    /// The switch ended, or said what it should not.
    #[error("the switch {0}")]
    Switch(String),
    /// This kernel or this user cannot have emulated disks.
    #[error("emulated disks are not available: /dev/fuse: {problem}; {hint}")]
    NoDisks {
        /// The kernel's word.
        problem: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The host is slower than the disk that it is to emulate.
    #[error(
        "the disk is too fast for this host: half of its syncs take {wanted_ms:.3} ms or less, and \
         here one takes {floor_ms:.3} ms before any time of the disk's own; {remedy}"
    )]
    DiskTooFast {
        /// The disk's median.
        wanted_ms: f64,
        /// Measured here.
        floor_ms: f64,
        /// What to do.
        remedy: &'static str,
    },
    /// An emulated disk does not do what it shall.
    #[error("the disk of {host} {what}: {reason}")]
    Disk {
        /// Whose.
        host: String,
        /// What it does not do.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The agent was asked for something that its configuration does not name.
    #[error(
        "{what} `{asked}` is not on the agent's list, which has {allowed}; to allow it, add it under \
         [allow] in the agent's configuration and start the agent again"
    )]
    NotAllowed {
        /// Which list.
        what: &'static str,
        /// As asked.
        asked: String,
        /// The list.
        allowed: String,
    },
    /// A fault that cannot be as it was asked for.
    #[error("{what}: {reason}")]
    Order {
        /// Which part of it.
        what: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// One fault at a time.
    #[error("{what} is under fault {fault} already; heal that first, or wait for its end")]
    Held {
        /// What is.
        what: String,
        /// The one that holds.
        fault: String,
    },
    /// It is another's, so it is left alone.
    #[error("{what} {reason}")]
    NotOurs {
        /// What is.
        what: String,
        /// Whose it is, as far as can be told, and what to do.
        reason: String,
    },
    /// This host has no such thing.
    #[error("{what}: {reason}")]
    NotHere {
        /// What was needed.
        what: String,
        /// What was seen, and what to do.
        reason: String,
    },
    /// Something of the host's could not be read or changed.
    #[error("cannot {doing}: {problem}")]
    Host {
        /// What, with its path.
        doing: String,
        /// The kernel's word.
        problem: io::Error,
    },
    /// One of the host's programs failed.
    #[error("`{program}` failed: {reason}")]
    Program {
        /// With its arguments.
        program: String,
        /// Its own words.
        reason: String,
    },
    /// No fault of the agent's has that name.
    #[error("no fault is called `{fault}`; `raftbench chaos list` shows those that there are")]
    UnknownFault {
        /// As asked.
        fault: String,
    },
    /// Its lease ran out, so it is undone.
    #[error(
        "the lease of fault {fault} ran out {ago_ms} ms ago, so it is undone; inject it again, and \
         renew it in time"
    )]
    LeaseOver {
        /// Which.
        fault: String,
        /// Since then.
        ago_ms: u128,
    },
    /// It has ended.
    #[error("fault {fault} has ended: {how}")]
    FaultOver {
        /// Which.
        fault: String,
        /// Why, and what was done.
        how: String,
    },
    /// The agent's state directory cannot be used.
    #[error("state directory {path}: {reason}")]
    StateDir {
        /// Where.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The agent does not listen.
    #[error("the agent does not listen on {address}: {reason}")]
    NotListening {
        /// Where it should.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// An agent does not do what it was asked.
    #[error("agent {address}: {reason}")]
    Agent {
        /// Which.
        address: String,
        /// Its own words, or why there are none.
        reason: String,
    },
}
