//! The log: what a member must not forget of all its groups, in segment files over a [`Disk`].
//!
//! Invariant: no block that holds an acknowledged byte is ever rewritten, until that byte is
//! recorded as no longer needed; nothing is acknowledged before its sync returned; and after a
//! failed write or sync nothing is acknowledged at all, by this process or by what it left in the
//! page cache.
//!
//! # Bytes
//! A log is a directory of files `segment-NNNNNNNNNNNNNNNN` (a decimal number that only grows). All
//! integers are little-endian; a block is 4096 bytes. Bytes that no row names are zero, but for
//! what a recycled file's earlier use left behind the last batch.
//!
//! The first block of a segment is durable before the file gets its name:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `RBLOGSEG` |
//! | 8 | 4 | CRC32C of bytes 12 to 4096 |
//! | 12 | 4 | format version, 2 |
//! | 16 | 8 | the segment's number |
//! | 24 | 8 | generation: drawn anew for each use of a file as a segment |
//! | 32 | 8 | the file's length when it was recycled; 0 in a new file |
//! | 40 | 8 | the number of the segment that this start of the member opened with |
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
//! | 24 | 8 | sequence number: from 1, up by one from batch to batch, across segments and groups |
//! | 32 | 8 | durable prefix: the last batch that was durable when this one was encoded |
//! | 40 | 8 | the sequence number of the segment's first batch |
//! | 48 | 8 | needed from: no batch before this one was needed when this one was encoded |
//! | 56 | | records |
//!
//! A record is a kind (one byte), its group (a varint as in protobuf: one byte for the first 128
//! groups), and
//!
//! | kind | | |
//! |---|---|---|
//! | 1 | hard state | term (8), vote (8; 0: none) |
//! | 2 | entry without data | term (8), index (8) |
//! | 3 | entry | term (8), index (8), length (4), data |
//! | 4 | membership entry | term (8), index (8), voters, outgoing, learners (each: a count (4), ids (8 each)), length (4), context |
//! | 5 | base | term (8), index (8), rest (1) |
//!
//! An entry at or below its group's last index replaces that entry and all behind it. A base says
//! that a snapshot took the place of the log up to that entry; where rest is 1, what the log held
//! behind it stays, where it is 0, nothing does.
//!
//! Version 1, which knew one group and no bases, is refused.
//!
//! # Recovery
//! Each start writes into segments of its own. The batch that opens its first one holds the hard
//! states and bases of all groups and every entry that is not known to be durable, is durable
//! before anything is answered, and voids what earlier segments hold from its sequence number on.
//! So a torn tail is cut by one atomic write, nothing behind the cut can come back to life, and no
//! acknowledgement rests on pages that a failed sync left in the cache. What counts before that is
//! told in `recovery`.
//!
//! # Batches on their way
//! Several batches may be on their way at once (`flight`; with a blocking disk one is): each is
//! synced by itself, they land in any order, and one counts as durable when all before it are, too.
//! So what was acknowledged is always a prefix, and the durable prefix in a batch says how far that
//! had come. What a batch says is needed follows from durable batches alone. Segments change without
//! waiting: the first batch of a segment counts only if none before it is missing. The opening batch
//! of a start goes alone, and nothing is given back to the caller before it is durable.
//!
//! A failed write or sync ends all of this, whatever becomes of the others that are on their way:
//! what they leave on the disk is judged by the next start, as a torn tail is.
//!
//! # Compaction
//! The first batch of every segment states all groups' hard states and bases anew. So what an older
//! segment is needed for is its entries, and once they all lie below bases or were replaced, and
//! what says so is durable, the next batch records that nothing before the oldest segment with a
//! needed entry is needed. When that batch is durable, the older files are renamed to spares, which
//! become segments again, or removed where there are spares enough: in the background, in a row of
//! steps of which any may be the last (`segment`, `ahead`). A group that stays idle with an entry
//! in an old segment holds back that segment and all newer ones: [`Appended::oldest_needed_by`]
//! names it, so that the layer above can make a snapshot of it.

mod ahead;
mod batch;
mod bugs;
mod error;
mod flight;
mod groups;
pub mod inspect;
mod recovery;
mod replay;
mod scan;
mod segment;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use raft::{Index, Write};

use crate::GroupId;
use crate::disk::{Blocks, Disk, DiskFile, QueueKind};
use ahead::Ahead;
use batch::{BatchBuffer, Header, Record};
#[cfg(feature = "seeded-bugs")]
pub use bugs::SeededBug;
pub use error::{DamageKind, WalError};
use flight::{Flight, InFlight};
use groups::Groups;
pub use replay::GroupLog;
use segment::{FIRST_BATCH, Segment};
pub use writer::{Writer, WriterStopped, last_of_each_group};

/// A write of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWrite {
    /// Whose.
    pub group: GroupId,
    /// What the group's member asked for.
    pub write: Write<Bytes>,
}

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment's size; a batch larger than that gets a segment of its own.
    pub segment_bytes: u64,
    /// How far ahead of the last batch blocks are filled with zeros; at most a segment.
    pub fill_ahead_bytes: u64,
    /// How much is filled and synced at once.
    pub fill_step_bytes: u64,
    /// Whether a thread of its own fills ahead and disposes of segments that are no longer needed;
    /// if not, appending does, and a simulation stays deterministic.
    pub fill_in_background: bool,
    /// Released segments that are kept for use as new ones, at most; the others are removed.
    pub spare_segments: usize,
    /// A [`Writer`] starts a new batch when one has this many bytes of records.
    pub max_batch_bytes: usize,
    /// Batches that may be on their way at once, on a disk that has several.
    pub max_in_flight: usize,
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
            // What a snapshot lets go of at once, with small batches: then none is removed or filled
            // with zeros anew, and the directory's size stays where it was at its largest.
            spare_segments: 12,
            max_batch_bytes: 4 << 20,
            max_in_flight: 8,
            unsafe_no_fsync: false,
            must_exist: false,
            generation_seed: rand::random(),
            #[cfg(feature = "seeded-bugs")]
            bug: None,
        }
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// How many writes went down in it.
    pub writes: usize,
    /// Bytes written, whole blocks; 0 where there was nothing to write.
    pub bytes: u64,
    /// How long the write took; zero where write and sync are one, with several on their way.
    pub write: Duration,
    /// How long the sync took; zero where none was needed or [`Options::unsafe_no_fsync`] is set.
    pub sync: Duration,
    /// Segments that the log consists of; those that wait to be made spares or removed left out.
    pub segments: usize,
    /// Told when a new segment was begun and older ones are needed: the groups that need the oldest
    /// one, and the index that each one's base would have to reach so that it does not.
    pub oldest_needed_by: Vec<(GroupId, Index)>,
}

/// Writes that went down in one batch, and are durable with all before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// By group, in ascending order, the id of its last write among them.
    pub persisted: Vec<(GroupId, u64)>,
    /// What it cost.
    pub appended: Appended,
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
    flight: Flight<D::Queue>,
    groups: Groups,
    /// Earlier segments, by number, with the sequence number of their first batch, if they have
    /// one.
    earlier: VecDeque<(u64, Option<u64>)>,
    /// What the next batch records as needed.
    needed: Needed,
    ahead: Ahead<D>,
    cut: Option<Cut>,
    poisoned: Option<String>,
}

/// The oldest segment that is needed.
#[derive(Clone, Copy, Debug)]
struct Needed {
    segment: u64,
    /// Its first batch.
    from: u64,
}

/// Opens the log in `dir`, which is made where it is missing, and reads back what it holds, by
/// group.
///
/// On return all of that is durable. Damage is reported before any file is changed.
/// That nobody else uses the directory is the caller's to know.
pub fn open<D: Disk>(
    disk: D,
    dir: &Path,
    options: Options,
) -> Result<(Wal<D>, BTreeMap<GroupId, GroupLog>), WalError> {
    let missing = || WalError::Missing { path: dir.to_owned() };
    if options.must_exist && disk.list(dir)?.is_none() {
        return Err(missing());
    }
    disk.create_dir_all(dir)?;
    let mut scan = scan::scan(&disk, dir, true, &options)?;
    if options.must_exist && !scan.segments.iter().any(|segment| segment.first().is_some()) {
        return Err(missing());
    }
    let recovery = recovery::recover(&scan, &options)?;
    for path in &scan.leftovers {
        disk.remove(path)?;
    }
    let number = scan.last_number() + 1;
    let spares_kept = scan.spares.len().min(options.spare_segments);
    for spare in scan.spares.drain(spares_kept..) {
        disk.remove(&spare.path)?;
    }
    let mut spares = scan.spares.into_iter().map(|spare| spare.path).collect();
    let segment = ahead::make(&disk, dir, &options, number, number, &mut spares)?;
    let opening_sequence = recovery.durable_prefix + 1;
    let earlier: VecDeque<_> = recovery.kept.into();
    let needed = earlier.iter().rfind(|(_, first)| *first == Some(recovery.needed_from));
    let segment_needed = needed.map_or(number, |(segment, _)| *segment);
    let needed = Needed { segment: segment_needed, from: recovery.needed_from };
    let mut wal = Wal {
        ahead: Ahead::start(disk.clone(), dir, &options, &segment, spares)?,
        flight: Flight::new(disk.queue(options.max_in_flight)?),
        options,
        segment,
        position: FIRST_BATCH,
        segment_first: opening_sequence,
        next_sequence: opening_sequence,
        durable_prefix: recovery.durable_prefix,
        groups: recovery.groups,
        earlier,
        needed,
        cut: recovery.cut,
        poisoned: None,
    };
    wal.submit_batch(Some(&recovery.opening), &[], true)?;
    wal.land()?;
    for path in &recovery.void {
        disk.remove(path)?;
    }
    Ok((wal, recovery.recovered))
}

impl<D: Disk> Wal<D> {
    /// Makes `writes` durable in the order given, in one batch, and all that is on its way before
    /// them. After an error every later call fails.
    pub fn append(&mut self, writes: &[GroupWrite]) -> Result<Appended, WalError> {
        if !self.has_room() {
            self.land()?;
        }
        self.submit(writes)?;
        Ok(self.land()?.map_or_else(Appended::default, |durable| durable.appended))
    }

    /// Whether one more batch may be on its way.
    pub fn has_room(&self) -> bool {
        self.flight.has_room()
    }

    /// Whether nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.flight.is_empty()
    }

    /// Sends `writes` on their way, in the order given, in one batch; only where there is room.
    /// [`take_durable`](Self::take_durable) tells when they are durable. After an error every later
    /// call fails.
    pub fn submit(&mut self, writes: &[GroupWrite]) -> Result<(), WalError> {
        let sync = !self.options.unsafe_no_fsync && !self.options.acknowledges_before_sync();
        self.submit_batch(None, writes, sync)
    }

    /// The next batch that is durable with all before it, if there is one; in the order in which
    /// they were submitted. After an error every later call fails: nothing is durable any more.
    pub fn take_durable(&mut self) -> Result<Option<Durable>, WalError> {
        self.unless_poisoned(Self::try_take_durable)
    }

    /// Waits until a batch that is on its way has landed, or until the waker was used; may return
    /// for no reason.
    pub fn wait(&mut self) {
        self.flight.wait();
    }

    /// Ends a wait, now or the next one, from any thread.
    pub fn waker(&self) -> Waker {
        self.flight.waker()
    }

    /// The torn tail that opening this log cut, if there was one.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Its settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How its batches reach the disk.
    pub fn queue(&self) -> QueueKind {
        self.flight.queue()
    }

    /// Waits until all that is on its way is durable; the last one of it.
    fn land(&mut self) -> Result<Option<Durable>, WalError> {
        let mut last = None;
        while !self.is_idle() {
            match self.take_durable()? {
                Some(durable) => last = Some(durable),
                None => self.wait(),
            }
        }
        Ok(last)
    }

    fn submit_batch(
        &mut self,
        opening: Option<&[Record]>,
        writes: &[GroupWrite],
        sync: bool,
    ) -> Result<(), WalError> {
        self.unless_poisoned(|wal| wal.try_submit(opening, writes, sync))
    }

    fn unless_poisoned<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        if let Some(reason) = &self.poisoned {
            return Err(WalError::Poisoned { reason: reason.clone() });
        }
        let result = act(self);
        if let Err(error) = &result {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    /// `opening` takes the place of what the first batch of a segment else begins with.
    fn try_submit(
        &mut self,
        opening: Option<&[Record]>,
        writes: &[GroupWrite],
        sync: bool,
    ) -> Result<(), WalError> {
        let mut durable = Durable::default();
        durable.appended.writes = writes.len();
        last_of_each_group(writes, &mut durable.persisted);
        let write_bytes: usize = writes
            .iter()
            .map(|GroupWrite { group, write }| batch::write_bytes(*group, write))
            .sum();
        if write_bytes == 0 && opening.is_none() {
            self.flight.nothing_to_write(durable);
            return Ok(());
        }
        let end = self.position + batch::batch_bytes(write_bytes) as u64;
        if end > self.options.segment_bytes && self.position > FIRST_BATCH {
            self.next_segment()?;
            // By all that was submitted, as the groups are.
            let needed = self.needed_now().segment;
            if needed < self.segment.number {
                let needing = self.groups.needing(needed);
                durable.appended.oldest_needed_by = needing.collect();
            }
        }
        let standing = match opening {
            Some(opening) => opening.to_vec(),
            None if self.position == FIRST_BATCH => self.groups.standing(),
            None => Vec::new(),
        };
        let buffer = BatchBuffer::reuse(self.flight.spare_blocks());
        let blocks = self.encode(buffer, &standing, writes, write_bytes)?;
        let bytes = blocks.bytes().len() as u64;
        let (start, end) = (self.position, self.position + bytes);
        durable.appended.bytes = bytes;

        self.ahead.claim(start, end)?;
        let batch = InFlight {
            sequence: self.next_sequence,
            synced: sync || self.options.acknowledges_before_sync(),
            recorded: self.needed,
            needed_after: self.needed_now(),
        };
        self.next_sequence += 1;
        self.position = end;
        self.flight.submit(&self.segment.file, start, blocks, sync, batch, durable);
        self.ahead.writes_up_to(end);
        Ok(())
    }

    /// Encodes a batch, and notes what it does to the groups.
    fn encode(
        &mut self,
        mut buffer: BatchBuffer,
        standing: &[Record],
        writes: &[GroupWrite],
        write_bytes: usize,
    ) -> Result<Blocks, WalError> {
        let record_bytes = standing.iter().map(batch::record_bytes).sum::<usize>() + write_bytes;
        if record_bytes > u32::MAX as usize {
            return Err(WalError::TooLarge { bytes: record_bytes });
        }
        let header = Header {
            generation: self.segment.generation,
            sequence: self.next_sequence,
            durable_prefix: self.durable_prefix,
            segment_first: self.segment_first,
            needed_from: self.needed.from,
        };
        buffer.begin(header, record_bytes);
        for record in standing {
            self.groups.record(record, self.segment.number);
            buffer.put_record(record);
        }
        for GroupWrite { group, write } in writes {
            let keeps_rest = self
                .groups
                .write(*group, write, self.segment.number)
                .map_err(|reason| WalError::Contradiction { group: *group, reason })?;
            buffer.put_write(*group, write, keeps_rest);
        }
        Ok(buffer.finish())
    }

    fn try_take_durable(&mut self) -> Result<Option<Durable>, WalError> {
        let durable_itself = self.flight.absorb(&self.options)?;
        if self.options.skips_in_durable_prefix() {
            self.durable_prefix = durable_itself.max(self.durable_prefix);
        }
        let Some((batch, mut durable)) = self.flight.take_first(&self.options) else {
            return Ok(None);
        };
        if let Some(batch) = batch {
            if batch.synced {
                self.is_durable_up_to(&batch);
            }
            self.ahead.work()?;
        }
        durable.appended.segments = self.earlier.len() + 1;
        Ok(Some(durable))
    }

    fn next_segment(&mut self) -> Result<(), WalError> {
        if self.options.unsafe_no_fsync {
            // Even then at most a segment is in doubt, so that the next opening batch stays small.
            let last = self.flight.all_written(&self.options)?;
            self.segment.file.sync()?;
            if let Some(batch) = last {
                self.is_durable_up_to(&batch);
            }
        }
        self.earlier.push_back((self.segment.number, Some(self.segment_first)));
        self.segment = self.ahead.next_segment()?;
        self.position = FIRST_BATCH;
        self.segment_first = self.next_sequence;
        Ok(())
    }

    /// A batch and all before it are durable, and so is what it recorded as needed: files that hold
    /// nothing of that can go. What is needed after it goes into the next batch.
    fn is_durable_up_to(&mut self, batch: &InFlight) {
        self.durable_prefix = batch.sequence.max(self.durable_prefix);
        let recorded = batch.recorded.segment;
        while let Some((number, _)) = self.earlier.pop_front_if(|(number, _)| *number < recorded) {
            self.ahead.release(number);
        }
        self.needed = batch.needed_after;
    }

    /// What a start would need if all that was submitted so far were durable.
    fn needed_now(&self) -> Needed {
        let mut needed = self.groups.oldest_segment().unwrap_or(self.segment.number);
        if self.options.releases_too_far() && needed < self.segment.number {
            needed += 1;
        }
        let mut firsts =
            self.earlier.iter().filter_map(|(number, first)| Some((*number, (*first)?)));
        let (segment, from) = firsts
            .find(|(number, _)| *number >= needed)
            .unwrap_or((self.segment.number, self.segment_first));
        Needed { segment, from }
    }
}
