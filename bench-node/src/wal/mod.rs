//! The log: what a member must not forget, in segment files over a [`Disk`].
//!
//! Invariant: no block that holds an acknowledged byte is ever rewritten; nothing is acknowledged
//! before its sync returned; and after a failed write or sync nothing is acknowledged at all, by
//! this process or by what it left in the page cache.
//!
//! # Bytes
//! A log is a directory of files `segment-NNNNNNNNNNNNNNNN` (a decimal number that only grows). All
//! integers are little-endian; a block is 4096 bytes. Bytes that no row names are zero.
//!
//! The first block of a segment is durable before the file gets its name:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `RBLOGSEG` |
//! | 8 | 4 | CRC32C of bytes 12 to 4096 |
//! | 12 | 4 | format version, 1 |
//! | 16 | 8 | the segment's number |
//! | 24 | 8 | generation: drawn anew for each use of a file as a segment |
//!
//! Batches follow, each on a fresh block and padded to a whole one:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | magic `RBLB` |
//! | 4 | 4 | CRC32C of all that follows, up to the end of the records |
//! | 8 | 4 | bytes of records |
//! | 12 | 4 | 0 |
//! | 16 | 8 | the segment's generation |
//! | 24 | 8 | sequence number: from 1, up by one from batch to batch, across segments |
//! | 32 | 8 | durable prefix: the last batch that was durable when this one was encoded |
//! | 40 | 8 | the sequence number of the segment's first batch |
//! | 48 | | records |
//!
//! A record is a kind (one byte) and
//!
//! | kind | | |
//! |---|---|---|
//! | 1 | hard state | term (8), vote (8; 0: none) |
//! | 2 | entry without data | term (8), index (8) |
//! | 3 | entry | term (8), index (8), length (4), data |
//!
//! An entry at or below the last index replaces that entry and all behind it.
//!
//! # Recovery
//! Each start writes into segments of its own. The batch that opens its first one holds the hard
//! state and every entry that is not known to be durable, is durable before anything is answered,
//! and voids what earlier segments hold from its sequence number on. So a torn tail is cut by one
//! atomic write, nothing behind the cut can come back to life, and no acknowledgement rests on
//! pages that a failed sync left in the cache. What counts before that is told in `recovery`.
//!
//! Several batches may be on their way at once (none are with a blocking disk): they may land in
//! any order, and the durable prefix says which of them were ever acknowledged. The opening batch
//! goes alone.

mod ahead;
mod batch;
mod error;
pub mod inspect;
mod recovery;
mod scan;
mod segment;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::{Recovered, Write};

use crate::disk::{Disk, DiskFile};
use ahead::Ahead;
use batch::{BatchBuffer, Header};
pub use error::{DamageKind, WalError};
use segment::{FIRST_BATCH, Segment};
pub use writer::{Writer, WriterStopped};

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment's size; a batch larger than that gets a segment of its own.
    pub segment_bytes: u64,
    /// How far ahead of the last batch blocks are filled with zeros; at most a segment.
    pub fill_ahead_bytes: u64,
    /// How much is filled and synced at once.
    pub fill_step_bytes: u64,
    /// Whether a thread of its own fills ahead; if not, appending does, and a simulation stays
    /// deterministic.
    pub fill_in_background: bool,
    /// A [`Writer`] starts a new batch when one has this many bytes of records.
    pub max_batch_bytes: usize,
    /// Acknowledge what only the page cache holds. Survives a killed process, not a lost power.
    pub unsafe_no_fsync: bool,
    /// Whether a log must be there already: one without any batch is refused.
    pub must_exist: bool,
    /// What segments' generations are drawn from; random unless a simulation sets it.
    pub generation_seed: u64,
    /// A planted bug, for the tests that prove the checkers.
    #[cfg(feature = "seeded-bugs")]
    pub bug: Option<SeededBug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            fill_ahead_bytes: 8 << 20,
            fill_step_bytes: 1 << 20,
            fill_in_background: true,
            max_batch_bytes: 4 << 20,
            unsafe_no_fsync: false,
            must_exist: false,
            generation_seed: rand::random(),
            #[cfg(feature = "seeded-bugs")]
            bug: None,
        }
    }
}

/// Bugs that can be planted in the log.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// Reports a write as persisted without the sync. Killing the process does not show it: the
    /// page cache outlives the process. Only a loss of power does, simulated or real.
    AcknowledgeBeforeSync,
}

/// A torn tail that was cut: it was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file that holds its start.
    pub path: PathBuf,
    /// Where in that file it starts.
    pub offset: u64,
    /// The first batch that was cut.
    pub sequence: u64,
}

/// What one append cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// How many writes went down in it.
    pub writes: usize,
    /// Bytes written, whole blocks; 0 where there was nothing to write.
    pub bytes: u64,
    /// How long the write took.
    pub write: Duration,
    /// How long the sync took; zero where none was needed or [`Options::unsafe_no_fsync`] is set.
    pub sync: Duration,
}

/// An open log.
pub struct Wal<D: Disk> {
    options: Options,
    segment: Segment<D::File>,
    /// Where the next batch goes.
    position: u64,
    segment_first: u64,
    next_sequence: u64,
    durable_prefix: u64,
    buffer: BatchBuffer,
    ahead: Ahead<D>,
    cut: Option<Cut>,
    poisoned: Option<String>,
}

/// Opens the log in `dir`, which is made where it is missing, and reads back what it holds.
///
/// On return all of that is durable. Damage is reported before any file is changed.
/// That nobody else uses the directory is the caller's to know.
pub fn open<D: Disk>(
    disk: D,
    dir: &Path,
    options: Options,
) -> Result<(Wal<D>, Recovered<Bytes>), WalError> {
    let missing = || WalError::Missing { path: dir.to_owned() };
    if options.must_exist && disk.list(dir)?.is_none() {
        return Err(missing());
    }
    disk.create_dir_all(dir)?;
    let scan = scan::scan(&disk, dir, true)?;
    if options.must_exist && !scan.segments.iter().any(|segment| segment.first().is_some()) {
        return Err(missing());
    }
    let recovery = recovery::recover(&scan)?;
    for path in &scan.leftovers {
        disk.remove(path)?;
    }
    let number = scan.segments.last().map_or(1, |last| last.number + 1);
    let generation = segment::generation(options.generation_seed, number);
    let fill_bytes = options.fill_step_bytes.min(options.segment_bytes);
    let segment = segment::create(&disk, dir, number, generation, fill_bytes)?;
    let opening_sequence = recovery.durable_prefix + 1;
    let mut wal = Wal {
        ahead: Ahead::start(disk.clone(), dir, &options, &segment)?,
        options,
        segment,
        position: FIRST_BATCH,
        segment_first: opening_sequence,
        next_sequence: opening_sequence,
        durable_prefix: recovery.durable_prefix,
        buffer: BatchBuffer::default(),
        cut: recovery.cut,
        poisoned: None,
    };
    wal.append_batch(std::slice::from_ref(&recovery.opening), true)?;
    for path in &recovery.void {
        disk.remove(path)?;
    }
    Ok((wal, recovery.recovered))
}

impl<D: Disk> Wal<D> {
    /// Makes `writes` durable in the order given, with one write and one sync for all of them.
    /// After an error every later call fails.
    pub fn append(&mut self, writes: &[Write<Bytes>]) -> Result<Appended, WalError> {
        self.append_batch(writes, !self.skips_sync())
    }

    /// The torn tail that opening this log cut, if there was one.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Its settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn append_batch(&mut self, writes: &[Write<Bytes>], sync: bool) -> Result<Appended, WalError> {
        if let Some(reason) = &self.poisoned {
            return Err(WalError::Poisoned { reason: reason.clone() });
        }
        let result = self.try_append(writes, sync);
        if let Err(error) = &result {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    fn try_append(&mut self, writes: &[Write<Bytes>], sync: bool) -> Result<Appended, WalError> {
        let mut appended = Appended {
            writes: writes.len(),
            bytes: 0,
            write: Duration::ZERO,
            sync: Duration::ZERO,
        };
        let record_bytes = writes.iter().map(batch::record_bytes).sum();
        if record_bytes == 0 {
            return Ok(appended);
        }
        if record_bytes > u32::MAX as usize {
            return Err(WalError::TooLarge { bytes: record_bytes });
        }
        let bytes = batch::batch_bytes(record_bytes) as u64;
        if self.position + bytes > self.options.segment_bytes && self.position > FIRST_BATCH {
            self.next_segment()?;
        }
        let (start, end) = (self.position, self.position + bytes);
        let header = Header {
            generation: self.segment.generation,
            sequence: self.next_sequence,
            durable_prefix: self.durable_prefix,
            segment_first: self.segment_first,
        };
        let encoded = self.buffer.encode(header, writes, record_bytes);

        self.ahead.claim(start, end)?;
        let started = Instant::now();
        self.segment.file.write_at(start, encoded)?;
        let written = Instant::now();
        if sync {
            self.segment.file.sync()?;
        }
        let synced = Instant::now();
        if sync || self.believes_unsynced() {
            self.durable_prefix = self.next_sequence;
        }
        self.next_sequence += 1;
        self.position = end;
        self.ahead.wrote_up_to(end)?;
        appended.bytes = bytes;
        appended.write = written - started;
        appended.sync = if sync { synced - written } else { Duration::ZERO };
        Ok(appended)
    }

    fn next_segment(&mut self) -> Result<(), WalError> {
        if self.options.unsafe_no_fsync {
            // Even then at most a segment is in doubt, so that the next opening batch stays small.
            self.segment.file.sync()?;
            self.durable_prefix = self.next_sequence - 1;
        }
        self.segment = self.ahead.next_segment()?;
        self.position = FIRST_BATCH;
        self.segment_first = self.next_sequence;
        Ok(())
    }

    #[cfg(not(feature = "seeded-bugs"))]
    fn skips_sync(&self) -> bool {
        self.options.unsafe_no_fsync
    }

    #[cfg(feature = "seeded-bugs")]
    fn skips_sync(&self) -> bool {
        self.options.unsafe_no_fsync || self.believes_unsynced()
    }

    #[cfg(not(feature = "seeded-bugs"))]
    fn believes_unsynced(&self) -> bool {
        false
    }

    #[cfg(feature = "seeded-bugs")]
    fn believes_unsynced(&self) -> bool {
        self.options.bug == Some(SeededBug::AcknowledgeBeforeSync)
    }
}
