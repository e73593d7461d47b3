//! Faults of disks: their keys, and what each means.

use std::time::Duration;

use super::ProfileError;
use super::faults::Keys;
use super::section::{Numbers, Section};
use crate::plan::{ClusterPlan, DiskFaultKind, DiskFaultPlan};

/// The kinds, each with the keys that it has beside every fault's.
pub(super) const KINDS: [(&str, Keys); 5] = [
    ("disk_stall", &["heal_after_s"]),
    ("disk_slow", &["factor", "added_ms", "heal_after_s"]),
    ("disk_full", &["heal_after_s"]),
    ("disk_error", &["at", "heal_after_s"]),
    ("power_loss", &["torn", "in_sync", "restart_after_s"]),
];

/// What a table of such a kind asks for; `None`: it is of another.
pub(super) fn fault(
    section: &Section<'_>,
    cluster: &ClusterPlan,
) -> Result<Option<DiskFaultPlan>, ProfileError> {
    let kind = match section.text("kind")?.unwrap_or_default() {
        "disk_stall" => DiskFaultKind::Stall,
        "disk_slow" => slow(section)?,
        "disk_full" => DiskFaultKind::Full,
        "disk_error" => {
            let places =
                [("write", (true, false)), ("sync", (false, true)), ("both", (true, true))];
            let (writes, syncs) = section.choice("at", &places)?.unwrap_or((false, true));
            DiskFaultKind::Error { writes, syncs }
        }
        "power_loss" => DiskFaultKind::PowerLoss {
            torn: section.boolean("torn")?.unwrap_or(false),
            in_sync: section.boolean("in_sync")?.unwrap_or(false),
        },
        _ => return Ok(None),
    };
    if cluster.disk.is_none() {
        let message = "is only for a cluster on emulated disks: give cluster.disk, as in \
                       disk = \"gp3\" (raftbench profiles lists them)";
        return Err(section.error_at("kind", message.into()));
    }
    let holds = match kind {
        DiskFaultKind::PowerLoss { .. } => section.seconds("restart_after_s", true)?,
        _ => Some(held(section)?),
    };
    Ok(Some(DiskFaultPlan { kind, holds }))
}

fn held(section: &Section<'_>) -> Result<Duration, ProfileError> {
    let held = section.seconds("heal_after_s", false)?;
    held.ok_or_else(|| section.missing("heal_after_s", "how long it holds, in seconds"))
}

fn slow(section: &Section<'_>) -> Result<DiskFaultKind, ProfileError> {
    let factor = section.number("factor", Numbers::Within(1.0, 10_000.0))?;
    let added_ms = section.number("added_ms", Numbers::Within(0.0, 60_000.0))?;
    if factor.unwrap_or(1.0) == 1.0 && added_ms.unwrap_or(0.0) == 0.0 {
        let message = "makes nothing slower: give `factor` (times as long), `added_ms`, or both";
        return Err(section.error(message.into()));
    }
    let (factor, added_ms) = (factor.unwrap_or(1.0), added_ms.unwrap_or(0.0));
    Ok(DiskFaultKind::Slow { factor, added_ms })
}
