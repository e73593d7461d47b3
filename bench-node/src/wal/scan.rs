//! Reads segments as they lie on the disk, and judges nothing.
//!
//! Invariant: a batch is listed only if it is whole, of its segment's generation, and starts on a
//! block. Which of them count is left to `recovery`.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::batch::{self, Header};
use super::segment::{self, FIRST_BATCH, HeaderError, SegmentHeader};
use super::{Options, WalError};
use crate::disk::{BLOCK_BYTES, Disk, DiskError, DiskFile};

/// A directory's segments, by number; its spares; and the names of what a crash left half made.
pub(super) struct Scan {
    pub(super) segments: Vec<ScannedSegment>,
    pub(super) spares: Vec<Spare>,
    pub(super) leftovers: Vec<PathBuf>,
}

/// A file that was a segment, and can be one again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    /// Of the segment that it was.
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

/// What a segment holds.
pub(super) struct ScannedSegment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    /// Its first block, or what is wrong with that. Without one, nothing else could be read.
    pub(super) header: Result<SegmentHeader, String>,
    /// From the first block on, without a hole.
    pub(super) chain: Vec<ScannedBatch>,
    /// Whole batches behind a hole; their records are left out.
    pub(super) strays: Vec<ScannedBatch>,
    /// Whether something was written behind the chain in this use of the file, as far as the bytes
    /// tell.
    pub(super) torn_behind_chain: bool,
}

/// A whole batch.
pub(super) struct ScannedBatch {
    pub(super) offset: u64,
    pub(super) header: Header,
    pub(super) record_bytes: usize,
    pub(super) records: Bytes,
}

impl Scan {
    /// The highest number that any file of the log bears.
    pub(super) fn last_number(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.number);
        segments.chain(self.spares.iter().map(|spare| spare.number)).max().unwrap_or(0)
    }
}

impl ScannedSegment {
    /// All whole batches.
    pub(super) fn batches(&self) -> impl Iterator<Item = &ScannedBatch> {
        self.chain.iter().chain(&self.strays)
    }

    /// The sequence number of its first batch, where any batch is left to tell.
    pub(super) fn first(&self) -> Option<u64> {
        self.batches().next().map(|batch| batch.header.segment_first)
    }
}

impl ScannedBatch {
    /// Where the batch behind it starts.
    pub(super) fn end(&self) -> u64 {
        self.offset + batch::batch_bytes(self.record_bytes) as u64
    }
}

/// Reads all segments in `dir`. With `sync`, each file and the directory is synced first: after a
/// process crash the page cache may hold what the disk does not.
pub(super) fn scan<D: Disk>(
    disk: &D,
    dir: &Path,
    sync: bool,
    options: &Options,
) -> Result<Scan, WalError> {
    let mut scan = Scan { segments: Vec::new(), spares: Vec::new(), leftovers: Vec::new() };
    for name in disk.list(dir)?.unwrap_or_default() {
        let path = dir.join(&name);
        if segment::is_leftover(&name) {
            scan.leftovers.push(path);
        } else if let Some(number) = segment::spare_number_of(&name) {
            scan.spares.push(Spare { number, path });
        } else if let Some(number) = segment::number_of(&name) {
            let bytes = read(disk, &path, sync)?;
            scan.segments.push(scan_segment(path, number, &bytes, options)?);
        }
    }
    if sync {
        disk.sync_dir(dir)?;
    }
    // Names are sorted as text; numbers of more than 16 digits would not be.
    scan.segments.sort_unstable_by_key(|segment| segment.number);
    scan.spares.sort_unstable_by_key(|spare| spare.number);
    Ok(scan)
}

fn read<D: Disk>(disk: &D, path: &Path, sync: bool) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path)?;
    if sync {
        file.sync()?;
    }
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn scan_segment(
    path: PathBuf,
    number: u64,
    bytes: &[u8],
    options: &Options,
) -> Result<ScannedSegment, WalError> {
    let mut scanned = ScannedSegment {
        number,
        path,
        file_bytes: bytes.len() as u64,
        header: Err(String::new()),
        chain: Vec::new(),
        strays: Vec::new(),
        torn_behind_chain: false,
    };
    let header = match segment::decode_header(bytes, number) {
        Ok(header) => header,
        Err(HeaderError::Version(found)) => {
            return Err(WalError::Version { path: scanned.path, found });
        }
        Err(HeaderError::Damaged(reason)) => {
            scanned.header = Err(reason);
            return Ok(scanned);
        }
    };
    scanned.header = Ok(header);
    let decode = |bytes| {
        let stale = options.accepts_stale_records().then(|| batch::claimed_generation(bytes));
        batch::decode(bytes, stale.flatten().unwrap_or(header.generation))
    };

    let mut at = FIRST_BATCH as usize;
    while let Some((header, records)) = bytes.get(at..).and_then(decode) {
        let expected = match scanned.chain.last() {
            Some(last) => Header { sequence: last.header.sequence + 1, ..last.header },
            None => Header { sequence: header.segment_first, ..header },
        };
        let follows =
            header.sequence == expected.sequence && header.segment_first == expected.segment_first;
        if !follows {
            break;
        }
        let (offset, record_bytes) = (at as u64, records.len());
        let records = Bytes::copy_from_slice(records);
        scanned.chain.push(ScannedBatch { offset, header, record_bytes, records });
        at += batch::batch_bytes(record_bytes);
    }
    scanned.torn_behind_chain = torn_behind(bytes, at, header);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((header, records)) = decode(rest) {
            let record_bytes = records.len();
            let (offset, records) = (at as u64, Bytes::new());
            scanned.strays.push(ScannedBatch { offset, header, record_bytes, records });
            at += batch::batch_bytes(record_bytes);
        } else {
            at += BLOCK_BYTES;
        }
    }
    Ok(scanned)
}

/// Whether this use of the file wrote anything from `at` on: anything but zeros where the file was
/// new, the start of a batch of this generation where an earlier use left its bytes.
fn torn_behind(bytes: &[u8], at: usize, header: SegmentHeader) -> bool {
    let behind = bytes.get(at..).unwrap_or_default();
    let stale = usize::try_from(header.stale_bytes).unwrap_or(usize::MAX);
    let (stale, new) = behind.split_at(stale.saturating_sub(at).min(behind.len()));
    new.iter().any(|&byte| byte != 0)
        || stale
            .chunks(BLOCK_BYTES)
            .any(|block| batch::claimed_generation(block) == Some(header.generation))
}
