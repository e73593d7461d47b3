//! The disks under the nodes, and what is done to them.

use std::time::Duration;

use chaos::lab::disks::{Backing, DiskSpec};

/// What lies under each node's data directory.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskPlan {
    /// `gp3`, the file's stem, or its own `name`.
    pub name: String,
    /// Its own sentence.
    pub description: String,
    /// As the profile has it: the name of an embedded one, or the whole.
    pub given: toml::Value,
    /// What it is like.
    pub spec: DiskSpec,
    /// Seeds its dice.
    pub seed: u64,
}

/// A fault of a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskFaultPlan {
    /// Which.
    pub kind: DiskFaultKind,
    /// From the injection; `None`: a node without power stays down.
    pub holds: Option<Duration>,
}

/// What is done to a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DiskFaultKind {
    /// It answers nothing.
    Stall,
    /// Every time is longer.
    Slow {
        /// So many times as long,
        factor: f64,
        /// and by this besides.
        added_ms: f64,
    },
    /// Nothing can be written: ENOSPC.
    Full,
    /// EIO.
    Error {
        /// At writes.
        writes: bool,
        /// At syncs.
        syncs: bool,
    },
    /// The nodes are killed at the same moment, and what their disks had not synced is lost.
    PowerLoss {
        /// Some of it, by the seed, instead of all.
        torn: bool,
        /// In the midst of a sync, at a point that the seed chooses.
        in_sync: bool,
    },
}

impl DiskPlan {
    /// As the profile has it.
    pub fn backing(&self) -> &'static str {
        match self.spec.backing {
            Backing::Disk => "disk",
            Backing::Memory => "memory",
        }
    }
}

impl DiskFaultKind {
    /// As the profile and `faults.jsonl` have it.
    pub fn name(&self) -> &'static str {
        match self {
            DiskFaultKind::Stall => "disk_stall",
            DiskFaultKind::Slow { .. } => "disk_slow",
            DiskFaultKind::Full => "disk_full",
            DiskFaultKind::Error { .. } => "disk_error",
            DiskFaultKind::PowerLoss { .. } => "power_loss",
        }
    }

    /// May end its victim.
    pub fn may_end(&self) -> bool {
        !matches!(self, DiskFaultKind::Stall | DiskFaultKind::Slow { .. })
    }

    /// The key that says how long it holds.
    pub(crate) fn undo_key(&self) -> &'static str {
        match self {
            DiskFaultKind::PowerLoss { .. } => "restart_after_s",
            _ => "heal_after_s",
        }
    }

    /// Its own keys in a profile.
    pub(super) fn keys(&self) -> Vec<(&'static str, toml::Value)> {
        match *self {
            DiskFaultKind::Stall | DiskFaultKind::Full => Vec::new(),
            DiskFaultKind::Slow { factor, added_ms } => {
                vec![("factor", factor.into()), ("added_ms", added_ms.into())]
            }
            DiskFaultKind::Error { writes, syncs } => {
                let at = match (writes, syncs) {
                    (true, true) => "both",
                    (true, false) => "write",
                    _ => "sync",
                };
                vec![("at", at.into())]
            }
            DiskFaultKind::PowerLoss { torn, in_sync } => {
                vec![("torn", torn.into()), ("in_sync", in_sync.into())]
            }
        }
    }

    /// What a plan says is done, and undone.
    pub(super) fn in_words(&self) -> (&'static str, &'static str) {
        match self {
            DiskFaultKind::Stall => ("stall the disk of", "let the disk serve again"),
            DiskFaultKind::Slow { .. } => ("slow down the disk of", "give the disk its speed back"),
            DiskFaultKind::Full => ("fill the disk of", "give the disk room again"),
            DiskFaultKind::Error { .. } => ("break the disk of", "mend the disk"),
            DiskFaultKind::PowerLoss { .. } => {
                ("cut the power of", "start again what lost its power")
            }
        }
    }
}
