//! The sending side of a transfer.
//!
//! Invariant: what is sent is the snapshot that was announced, also after its file was replaced or
//! removed: the file stays open.

use bytes::Bytes;

use super::{Snapshot, SnapshotError, Snapshots, read};
use crate::GroupId;
use crate::disk::{Disk, DiskFile};

/// A snapshot that is open for sending; to as many as ask.
pub struct Outgoing<D: Disk> {
    snapshot: Snapshot,
    file: D::File,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it belongs.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their CRC32C.
    pub crc: u32,
    /// Whether nothing comes behind it.
    pub last: bool,
}

impl<D: Disk> Snapshots<D> {
    /// Opens a group's newest snapshot, if it has one. Header and footer are checked, and what is
    /// between is the receiver's to check: the whole was when it was written, or loaded.
    pub fn open_newest(&self, group: GroupId) -> Result<Option<Outgoing<D>>, SnapshotError> {
        let Some((_, path)) = self.files_of(group)?.pop() else { return Ok(None) };
        let file = self.disk.open(&path)?;
        Ok(Some(Outgoing { snapshot: read::read_ends(&file)?, file }))
    }
}

impl<D: Disk> Outgoing<D> {
    /// What is sent.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// At most `max_bytes` (at least 1) from `offset` on; nothing from the end on.
    pub fn read_chunk(&self, offset: u64, max_bytes: usize) -> Result<Chunk, SnapshotError> {
        let offset = offset.min(self.snapshot.id.bytes);
        let left = self.snapshot.id.bytes - offset;
        let mut bytes = vec![0; left.min(max_bytes.max(1) as u64) as usize];
        self.file.read_at(offset, &mut bytes)?;
        let crc = crc32c::crc32c(&bytes);
        let last = bytes.len() as u64 == left;
        Ok(Chunk { offset, bytes: bytes.into(), crc, last })
    }
}
