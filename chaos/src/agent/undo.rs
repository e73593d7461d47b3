//! What undoes a fault, as it is kept on disk: enough to do it without the agent that applied it.
//!
//! Invariant: an undo may be done at any time, also when the fault was never applied or is undone
//! already, and touches nothing that does not carry its mark.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::process::{Named, NotedProcess};
use super::{cgroup, netem, partition, process};
use crate::Error;

/// A line of the agent's journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The fault's id.
    pub(super) fault: String,
    /// In words.
    pub(super) told: String,
    /// Of the kernel under which it was applied.
    pub(super) boot_id: String,
    /// What undoes it.
    pub(super) undo: Undo,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Undo {
    /// Our netem leaves the interface.
    Qdisc { interface: String },
    /// Our table of nftables goes.
    Table { name: String },
    /// A control group gets back what it had.
    Settings(Vec<Setting>),
    /// A process goes on.
    Resume(NotedProcess),
    /// It runs again.
    Start(Named),
}

/// One setting of a control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) file: PathBuf,
    /// Which line of the file, by the device's numbers; absent: the file has one value.
    pub(super) device: Option<String>,
    /// What a missing line says.
    pub(super) unset: String,
    pub(super) before: String,
    /// What the fault makes it.
    pub(super) ours: String,
}

impl Entry {
    /// Undoes it; says what was done.
    pub(super) fn undo(&self) -> Result<String, Error> {
        let is_same_boot = self.boot_id == boot_id()?;
        match &self.undo {
            Undo::Qdisc { interface } => netem::take_away(interface),
            Undo::Table { name } => partition::take_away(name),
            Undo::Settings(_) | Undo::Resume(_) if !is_same_boot => {
                Ok("went with the kernel that it was applied under".into())
            }
            Undo::Settings(settings) => cgroup::give_back(settings),
            Undo::Resume(noted) => process::resume(noted),
            Undo::Start(named) => process::start(named),
        }
    }
}

/// Of the running kernel.
pub(super) fn boot_id() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    let read = std::fs::read_to_string(path);
    let read = read.map_err(|problem| Error::Host { doing: format!("read {path}"), problem })?;
    Ok(read.trim().to_owned())
}
