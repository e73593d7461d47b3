//! What can be wrong with snapshots.

use std::path::{Path, PathBuf};

use raft::EntryId;

use crate::GroupId;
use crate::disk::DiskError;
use crate::kv::RestoreError;

/// Why a snapshot was not made, sent, received or used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes that were durable are not there any more, or make no sense; or what was received is
    /// not what was announced.
    #[error("{}: damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The start of what is damaged.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A snapshot in another version of the format.
    #[error(
        "{}: this snapshot is in format version {found}, and this program knows version {} only; \
         start this member with the program that wrote it, or a later one",
        path.display(),
        super::format::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version.
        found: u32,
    },
    /// No snapshot reaches as far as the log was cut.
    #[error(
        "{}: the log of group {group} was cut up to entry {} of term {}, and no snapshot here \
         reaches that entry{}. Nothing was changed. If snapshots were moved or their volume is not \
         mounted, put them back; otherwise remove the member from its cluster, empty its data \
         directory, and add it again",
        dir.display(),
        base.index,
        base.term,
        list(damaged)
    )]
    Missing {
        /// The snapshots' directory.
        dir: PathBuf,
        /// The group.
        group: GroupId,
        /// Up to where its log was cut.
        base: EntryId,
        /// Snapshots that would have reached, maybe.
        damaged: Vec<SnapshotError>,
    },
    /// Writing was cancelled.
    #[error("the snapshot was cancelled")]
    Cancelled,
    /// A chunk is not what its checksum says: it is to be sent again.
    #[error("the chunk at byte {offset} does not match its checksum")]
    Chunk {
        /// Where it belongs.
        offset: u64,
    },
    /// Bytes are missing still.
    #[error("{received} of {bytes} bytes are here")]
    Incomplete {
        /// How many are here.
        received: u64,
        /// How many belong to the snapshot.
        bytes: u64,
    },
    /// The system would not start a thread.
    #[error("cannot start the snapshot's thread: {reason}")]
    Thread {
        /// What the system said.
        reason: String,
    },
}

impl SnapshotError {
    pub(super) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, reason: reason.into() }
    }
}

fn list(damaged: &[SnapshotError]) -> String {
    damaged.iter().map(|error| format!("; {error}")).collect()
}

/// An error while a store is restored: of the file, or of what its records say.
pub(super) enum ReadError {
    Snapshot(SnapshotError),
    Restore(RestoreError),
}

impl ReadError {
    pub(super) fn at(self, path: &Path) -> SnapshotError {
        match self {
            Self::Snapshot(error) => error,
            Self::Restore(error) => SnapshotError::damaged(path, 0, error.to_string()),
        }
    }
}

impl From<RestoreError> for ReadError {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}
