//! From what the disk holds of a group to what the group starts from.
//!
//! Invariant: log and snapshot together hold all that was acknowledged, or the group does not start.
//! A snapshot may be newer than the log's base, for the member may have stopped in between: then the
//! log begins after the snapshot.

use bytes::Bytes;
use raft::Recovered;

use crate::GroupId;
use crate::disk::Disk;
use crate::kv::Store;
use crate::snapshot::{SnapshotError, Snapshots};
use crate::wal::GroupLog;

/// What a group starts from.
#[derive(Debug)]
pub struct RecoveredGroup {
    /// For the core.
    pub recovered: Recovered<Bytes>,
    /// The state at [`Recovered::snapshot`].
    pub kv: Store,
    /// Snapshots that were not used; each names its file.
    pub damaged: Vec<SnapshotError>,
}

/// Joins a group's log with its newest snapshot; `founding` is what it begins with where there is
/// none.
///
/// # Errors
/// The log was cut, and no snapshot that is whole reaches the cut; or the disk failed.
pub fn recover<D: Disk>(
    group: GroupId,
    mut log: GroupLog,
    snapshots: &Snapshots<D>,
    founding: raft::Snapshot<Bytes>,
) -> Result<RecoveredGroup, SnapshotError> {
    let found = snapshots.load(group, log.base)?;
    let (snapshot, kv) = match found.latest {
        Some((snapshot, kv)) => {
            let membership = snapshot.meta.membership;
            let forgets = snapshots.options().forgets_to_rebase();
            let last = if forgets { log.base } else { snapshot.id.last_included };
            log.rebase(last);
            (raft::Snapshot { last, membership }, kv)
        }
        None => (founding, Store::default()),
    };
    let GroupLog { hard_state, entries, .. } = log;
    let recovered = Recovered { hard_state, snapshot, entries };
    Ok(RecoveredGroup { recovered, kv, damaged: found.damaged })
}
