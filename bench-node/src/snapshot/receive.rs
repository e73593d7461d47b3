//! The receiving side of a transfer.
//!
//! Invariant: a snapshot gets its name only after all of it was read back and found whole, and to
//! be the one that was announced. Of what an interrupted transfer left, that counts which a sync
//! covered: the file's name says how much that is, and is changed after each sync. Neither the
//! file's length nor what can be read of it says as much: after a sync that failed, the page cache
//! holds bytes that the disk does not have, and no later sync writes them.

use std::path::PathBuf;

use super::read::Reader;
use super::{Snapshot, SnapshotError, SnapshotId, Snapshots, incoming_name, incoming_of};
use crate::disk::{Disk, DiskFile};

/// What becomes of a snapshot that another member offers.
pub enum Offer<D: Disk> {
    /// It is here already, durably.
    Held(Snapshot),
    /// It is to be sent, from [`Incoming::received_up_to`] on.
    Wanted(Incoming<D>),
}

/// A snapshot that is being received. Dropping it keeps what was received: the transfer can be
/// resumed, over a restart too, as long as the same snapshot is offered.
pub struct Incoming<D: Disk> {
    snapshots: Snapshots<D>,
    id: SnapshotId,
    path: PathBuf,
    file: D::File,
    received: u64,
    unsynced: u64,
}

impl<D: Disk> Snapshots<D> {
    /// Takes up the transfer of the snapshot `id`, where an earlier one left it or from the
    /// beginning. What was received of any other snapshot of that group is removed. One that is
    /// here and damaged is sent again, and takes its place.
    pub fn receive(&self, id: SnapshotId) -> Result<Offer<D>, SnapshotError> {
        if let Some(held) = self.held(&id)? {
            return Ok(Offer::Held(held));
        }
        let mut left = None;
        for name in self.names()? {
            match incoming_of(&name) {
                Some((other, durable)) if other == id => {
                    left = Some((self.dir.join(name), durable))
                }
                Some((other, _)) if other.group == id.group => {
                    self.disk.remove(&self.dir.join(name))?;
                }
                _ => {}
            }
        }
        let (path, file, received) = match left {
            Some((path, durable)) => {
                let file = self.disk.open(&path)?;
                let trusted = self.options.resumes_unchecked();
                let received = if trusted { file.len()? } else { durable };
                (path, file, received)
            }
            None => {
                let path = self.dir.join(incoming_name(&id, 0));
                let file = self.disk.create(&path)?;
                (path, file, 0)
            }
        };
        let snapshots = self.clone();
        Ok(Offer::Wanted(Incoming { snapshots, id, path, file, received, unsynced: 0 }))
    }

    /// The snapshot `id`, if it is here and whole; it is read from end to end.
    fn held(&self, id: &SnapshotId) -> Result<Option<Snapshot>, SnapshotError> {
        let file = match self.disk.open(&self.path(id.group, id.last_included.index)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let whole = Reader::open(&file).and_then(|mut reader| {
            reader.read_through()?;
            reader.finish()
        });
        match whole {
            Ok(held) if held.id == *id => {
                // An earlier attempt may have failed right after it gave the name.
                self.disk.sync_dir(&self.dir)?;
                Ok(Some(held))
            }
            Ok(_) | Err(SnapshotError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<D: Disk> Incoming<D> {
    /// Which snapshot it is.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }

    /// The next byte that is wanted.
    pub fn received_up_to(&self) -> u64 {
        self.received
    }

    /// Takes a chunk, and says which byte is wanted next. A chunk that begins behind that byte, or
    /// holds nothing from it on, changes nothing: transfers may repeat themselves and lose chunks.
    /// One that does not match its checksum is [`SnapshotError::Chunk`]; after that, as after a
    /// change of nothing, the transfer goes on from the byte that is wanted.
    pub fn write_chunk(
        &mut self,
        offset: u64,
        bytes: &[u8],
        crc: u32,
    ) -> Result<u64, SnapshotError> {
        if crc32c::crc32c(bytes) != crc || offset + bytes.len() as u64 > self.id.bytes {
            return Err(SnapshotError::Chunk { offset });
        }
        let known = self.received.checked_sub(offset).and_then(|known| usize::try_from(known).ok());
        let Some(new) = known.and_then(|known| bytes.get(known..)).filter(|new| !new.is_empty())
        else {
            return Ok(self.received);
        };
        self.file.write_at(self.received, new)?;
        self.received += new.len() as u64;
        self.unsynced += new.len() as u64;
        if self.unsynced >= self.snapshots.options.sync_every_bytes {
            self.file.sync()?;
            self.unsynced = 0;
            let path = self.snapshots.dir.join(incoming_name(&self.id, self.received));
            self.snapshots.disk.rename(&self.path, &path)?;
            self.path = path;
        }
        Ok(self.received)
    }

    /// Checks the whole, makes it durable, and gives it its name. What turns out not to be the
    /// snapshot that was announced is removed.
    pub fn finish(self) -> Result<Snapshot, SnapshotError> {
        let Self { snapshots, id, path, file, received, .. } = self;
        if received < id.bytes {
            return Err(SnapshotError::Incomplete { received, bytes: id.bytes });
        }
        file.sync()?;
        let checked = Reader::open(&file).and_then(|mut reader| {
            reader.read_through()?;
            let snapshot = reader.finish()?;
            if snapshot.id != id {
                let reason = "it is not the snapshot that was announced";
                return Err(SnapshotError::damaged(&path, 0, reason));
            }
            Ok(snapshot)
        });
        match checked {
            Ok(snapshot) => Ok(Snapshot { path: snapshots.give_name(&path, &id)?, ..snapshot }),
            Err(SnapshotError::Disk(error)) => Err(error.into()),
            Err(error) => {
                snapshots.disk.remove(&path)?;
                Err(error)
            }
        }
    }

    /// Removes what was received.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        Ok(self.snapshots.disk.remove(&self.path)?)
    }
}
