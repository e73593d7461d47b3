//! Snapshots: what takes the place of the beginning of a group's log.
//!
//! Invariant: a file bears a snapshot's name only once all of it is durable, and it does not change
//! from then on. So a crash at any point leaves the old snapshot or the new one. A snapshot that is
//! damaged is never used, and named; where the log was cut, a group without a usable one does not
//! start.
//!
//! # Files
//! All in one directory; numbers in names are decimal and padded to 20 digits.
//!
//! | name | |
//! |---|---|
//! | `snapshot-GROUP-INDEX` | a snapshot, up to the entry with that index |
//! | `snapshot-GROUP-INDEX.new` | one that is being written; removed at the next start |
//! | `incoming-GROUP-INDEX-TERM-BYTES-CRC-DURABLE` | one that is being received, and how many of its bytes are durable; kept over a start |
//!
//! # Bytes
//! Integers are little-endian. A snapshot is a header, blocks of records, and a footer. It may be
//! cut anywhere to be sent: a chunk has a checksum of its own.
//!
//! The header:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `RBSNAPSH` |
//! | 8 | 4 | CRC32C of all of the header that follows |
//! | 12 | 4 | format version, 1 |
//! | 16 | 4 | bytes of the header |
//! | 20 | 4 | 0 |
//! | 24 | 8 | group |
//! | 32 | 8 | index of the last entry that is included |
//! | 40 | 8 | its term |
//! | 48 | 8 | the store's revision |
//! | 56 | 8 | the revision of its last compaction; -1: none |
//! | 64 | | membership as of that entry: voters, outgoing, learners (each: a count (4), ids (8 each)), length (4), context |
//!
//! A block:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | magic `RBSB` |
//! | 4 | 4 | CRC32C of all of the block that follows |
//! | 8 | 4 | bytes of records |
//! | 12 | 4 | records |
//! | 16 | 8 | the block's number, from 1 |
//! | 24 | | records, in ascending order of keys: length of the key (4), length of the value (4), create revision (8), mod revision (8), version (8), key, value |
//!
//! The footer:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | magic `RBSE` |
//! | 4 | 4 | CRC32C of all of the footer that follows |
//! | 8 | 8 | blocks |
//! | 16 | 8 | records |
//! | 24 | 8 | bytes of the snapshot, footer included |
//! | 32 | 4 | CRC32C of all bytes before the footer |
//! | 36 | 4 | 0 |
//!
//! Equal states make equal bytes, on every member.
//!
//! # Left to others
//! When a snapshot is made, and that its base goes into the log only after it is durable. A
//! snapshot may be ahead of the log, as it holds what a majority has: after a crash in between, the
//! log is rebased ([`crate::wal::GroupLog::rebase`]), and the term is at least the snapshot's.

mod bugs;
mod encode;
mod error;
mod format;
mod read;
mod receive;
mod save;
mod send;
mod write;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft::{EntryId, Index, Membership};

use crate::GroupId;
use crate::disk::Disk;
use crate::kv::{Store, StoreHeader};
#[cfg(feature = "seeded-bugs")]
pub use bugs::SeededBug;
pub use error::SnapshotError;
use read::Reader;
pub use receive::{Incoming, Offer};
pub use save::{SavedStream, load_saved};
pub use send::{Chunk, Outgoing};
pub use write::WriteJob;

const SNAPSHOT: &str = "snapshot-";
const INCOMING: &str = "incoming-";
const TEMPORARY: &str = ".new";

/// Settings of snapshots.
#[derive(Clone, Debug)]
pub struct Options {
    /// A block of records has about this many bytes, more where one record has.
    pub block_bytes: usize,
    /// What is written or received is synced each time so many bytes have come together: one sync
    /// of gigabytes at the end would hold up the log's.
    pub sync_every_bytes: u64,
    /// How fast a snapshot is written at most, for the log's sake; `None`: as fast as it goes.
    pub max_bytes_per_second: Option<u64>,
    /// A planted bug, for the tests that prove the checkers.
    #[cfg(feature = "seeded-bugs")]
    pub bug: Option<SeededBug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_bytes: 64 << 10,
            sync_every_bytes: 4 << 20,
            max_bytes_per_second: Some(64 << 20),
            #[cfg(feature = "seeded-bugs")]
            bug: None,
        }
    }
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The group.
    pub group: GroupId,
    /// The last entry that was applied to the store before it was frozen.
    pub last_included: EntryId,
    /// The membership in force as of that entry.
    pub membership: Membership<Bytes>,
    /// What the store has besides its records.
    pub store: StoreHeader,
}

/// Names a snapshot among all members: equal ids, equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// The group.
    pub group: GroupId,
    /// The last entry that it includes.
    pub last_included: EntryId,
    /// Its length.
    pub bytes: u64,
    /// CRC32C of all bytes before the footer.
    pub crc: u32,
}

/// A snapshot's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name among all members.
    pub id: SnapshotId,
    /// What it is of.
    pub meta: SnapshotMeta,
    /// How many records it has.
    pub records: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// What a group's snapshots come to.
#[derive(Debug)]
pub struct Found<T> {
    /// The newest one that is whole, if there is one.
    pub latest: Option<T>,
    /// Newer ones that are not; each names its file.
    pub damaged: Vec<SnapshotError>,
}

/// The directory of a node's snapshots.
#[derive(Clone)]
pub struct Snapshots<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
}

impl<D: Disk> Snapshots<D> {
    /// Opens the directory, which is made where it is missing, and removes what a crash left half
    /// written. What was half received stays, unless it is older than a snapshot of its group.
    ///
    /// That nobody else uses the directory is the caller's to know.
    pub fn open(disk: D, dir: &Path, options: Options) -> Result<Self, SnapshotError> {
        disk.create_dir_all(dir)?;
        let snapshots = Self { disk, dir: dir.to_owned(), options };
        for name in snapshots.names()? {
            let written = name.strip_suffix(TEMPORARY).and_then(snapshot_of);
            let received = incoming_of(&name);
            let newest = match received {
                Some((id, _)) => snapshots.newest_index(id.group)?,
                None => 0,
            };
            let outdated = received.is_some_and(|(id, _)| id.last_included.index <= newest);
            if written.is_some() || outdated {
                snapshots.disk.remove(&snapshots.dir.join(&name))?;
            }
        }
        // After a process crash, names may be here that the disk does not have.
        snapshots.disk.sync_dir(dir)?;
        Ok(snapshots)
    }

    /// Its settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The groups that have snapshots, in ascending order.
    pub fn groups(&self) -> Result<Vec<GroupId>, SnapshotError> {
        let mut groups: Vec<_> =
            self.names()?.iter().filter_map(|name| Some(snapshot_of(name)?.0)).collect();
        groups.dedup();
        Ok(groups)
    }

    /// The newest snapshot of a group that is whole; it is read from end to end.
    pub fn latest(&self, group: GroupId) -> Result<Found<Snapshot>, SnapshotError> {
        let Found { latest, damaged } = self.newest_whole(group, |reader| reader.read_through())?;
        Ok(Found { latest: latest.map(|(snapshot, ())| snapshot), damaged })
    }

    /// A group's store, from its newest snapshot that is whole. `base` is that of the group's log:
    /// where it was cut, the snapshot must reach to the cut, or else the group must not start.
    ///
    /// A snapshot that is newer than `base` belongs to a log that is to be rebased. There is none
    /// only where the log was never cut.
    pub fn load(
        &self,
        group: GroupId,
        base: EntryId,
    ) -> Result<Found<(Snapshot, Store)>, SnapshotError> {
        let found = self.newest_whole(group, |reader| {
            let header = reader.meta().store;
            let path = reader.path().to_owned();
            Store::restore(header, reader.records()).map_err(|error| error.at(&path))
        })?;
        let reaches = found.latest.as_ref().is_some_and(|(snapshot, _)| {
            let last = snapshot.id.last_included;
            last.index > base.index || last == base
        });
        if !reaches && base != EntryId::default() {
            let dir = self.dir.clone();
            return Err(SnapshotError::Missing { dir, group, base, damaged: found.damaged });
        }
        Ok(found)
    }

    /// Removes a group's snapshots with a lower index than this one. One that is being sent can be
    /// read on by who has it open.
    pub fn remove_older(&self, group: GroupId, index: Index) -> Result<(), SnapshotError> {
        for (older, path) in self.files_of(group)? {
            if older < index {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    fn newest_whole<T>(
        &self,
        group: GroupId,
        read: impl Fn(&mut Reader<'_, D::File>) -> Result<T, SnapshotError>,
    ) -> Result<Found<(Snapshot, T)>, SnapshotError> {
        let mut damaged = Vec::new();
        for (index, path) in self.files_of(group)?.into_iter().rev() {
            let file = self.disk.open(&path)?;
            let whole = Reader::open(&file).and_then(|mut reader| {
                let value = read(&mut reader)?;
                let snapshot = reader.finish()?;
                if (snapshot.id.group, snapshot.id.last_included.index) != (group, index) {
                    return Err(SnapshotError::damaged(&path, 0, "it is another one's file"));
                }
                Ok((snapshot, value))
            });
            match whole {
                Ok(latest) => return Ok(Found { latest: Some(latest), damaged }),
                Err(error @ SnapshotError::Damaged { .. }) => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(Found { latest: None, damaged })
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        Ok(self.disk.list(&self.dir)?.unwrap_or_default())
    }

    /// A group's snapshots, by index.
    fn files_of(&self, group: GroupId) -> Result<Vec<(Index, PathBuf)>, SnapshotError> {
        let names = self.names()?.into_iter();
        let of_group = names.filter_map(|name| match snapshot_of(&name) {
            Some((of, index)) if of == group => Some((index, self.dir.join(name))),
            _ => None,
        });
        Ok(of_group.collect())
    }

    fn newest_index(&self, group: GroupId) -> Result<Index, SnapshotError> {
        Ok(self.files_of(group)?.last().map_or(0, |(index, _)| *index))
    }

    fn path(&self, group: GroupId, index: Index) -> PathBuf {
        self.dir.join(format!("{SNAPSHOT}{group:020}-{index:020}"))
    }

    /// Gives a file that is whole and durable the name of a snapshot, durably.
    fn give_name(&self, from: &Path, id: &SnapshotId) -> Result<PathBuf, SnapshotError> {
        let path = self.path(id.group, id.last_included.index);
        self.disk.rename(from, &path)?;
        if !self.options.skips_directory_sync() {
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(path)
    }
}

/// The group and the index in a snapshot's file name.
fn snapshot_of(name: &str) -> Option<(GroupId, Index)> {
    let (group, index) = name.strip_prefix(SNAPSHOT)?.split_once('-')?;
    let (group, index) = (group.parse().ok()?, index.parse().ok()?);
    (format!("{SNAPSHOT}{group:020}-{index:020}") == name).then_some((group, index))
}

fn incoming_name(id: &SnapshotId, durable: u64) -> String {
    let SnapshotId { group, last_included: EntryId { index, term }, bytes, crc } = id;
    format!("{INCOMING}{group:020}-{index:020}-{term:020}-{bytes:020}-{crc:08x}-{durable:020}")
}

/// The id in the name of a file that is being received, and how much of it is durable.
fn incoming_of(name: &str) -> Option<(SnapshotId, u64)> {
    let parts: Vec<_> = name.strip_prefix(INCOMING)?.split('-').collect();
    let [group, index, term, bytes, crc, durable] = parts[..] else { return None };
    let id = SnapshotId {
        group: group.parse().ok()?,
        last_included: EntryId { index: index.parse().ok()?, term: term.parse().ok()? },
        bytes: bytes.parse().ok()?,
        crc: u32::from_str_radix(crc, 16).ok()?,
    };
    let durable = durable.parse().ok()?;
    (incoming_name(&id, durable) == name && durable <= id.bytes).then_some((id, durable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let last_included = EntryId { index: 7, term: u64::MAX };
        let id = SnapshotId { group: 1 << 50, last_included, bytes: 9, crc: 0xab };
        assert_eq!(incoming_of(&incoming_name(&id, 8)), Some((id, 8)));
        assert_eq!(snapshot_of(&incoming_name(&id, 8)), None);
        assert_eq!(snapshot_of("snapshot-00000000000000000001-00000000000000000002"), Some((1, 2)));
        for foreign in [
            "snapshot-1-2",
            "snapshot-00000000000000000001-00000000000000000002.new",
            "snapshot-00000000000000000001",
            "incoming-1-2-3-4-5-6",
        ] {
            assert_eq!((snapshot_of(foreign), incoming_of(foreign)), (None, None), "{foreign}");
        }
    }
}
