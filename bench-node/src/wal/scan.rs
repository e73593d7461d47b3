//! Reads segments as they lie on the disk, and judges nothing.
//!
//! Invariant: a batch is listed only if it is whole, of its segment's generation, and starts on a
//! block. Which of them count is left to `recovery`.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::batch::{self, Header};
use super::segment::{self, FIRST_BATCH};
use super::{DamageKind, WalError};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};

/// A directory's segments, by number, and the names of what a crash left half made.
pub(super) struct Scan {
    pub(super) segments: Vec<ScannedSegment>,
    pub(super) leftovers: Vec<PathBuf>,
}

/// What a segment holds.
pub(super) struct ScannedSegment {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    /// From the first block on, without a hole.
    pub(super) chain: Vec<ScannedBatch>,
    /// Whole batches behind a hole; their records are left out.
    pub(super) strays: Vec<ScannedBatch>,
    /// Whether anything but zeros lies behind the chain.
    pub(super) bytes_behind_chain: bool,
}

/// A whole batch.
pub(super) struct ScannedBatch {
    pub(super) offset: u64,
    pub(super) header: Header,
    pub(super) record_bytes: usize,
    pub(super) records: Bytes,
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
pub(super) fn scan<D: Disk>(disk: &D, dir: &Path, sync: bool) -> Result<Scan, WalError> {
    let mut scan = Scan { segments: Vec::new(), leftovers: Vec::new() };
    for name in disk.list(dir)?.unwrap_or_default() {
        if segment::is_leftover(&name) {
            scan.leftovers.push(dir.join(&name));
        } else if let Some(number) = segment::number_of(&name) {
            scan.segments.push(scan_segment(disk, dir.join(&name), number, sync)?);
        }
    }
    if sync {
        disk.sync_dir(dir)?;
    }
    // Names are sorted as text; numbers of more than 16 digits would not be.
    scan.segments.sort_unstable_by_key(|segment| segment.number);
    Ok(scan)
}

fn scan_segment<D: Disk>(
    disk: &D,
    path: PathBuf,
    number: u64,
    sync: bool,
) -> Result<ScannedSegment, WalError> {
    let file = disk.open(&path)?;
    if sync {
        file.sync()?;
    }
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    let generation = match segment::decode_header(&bytes, number) {
        Ok(generation) => generation,
        Err(reason) => {
            let kind = DamageKind::SegmentHeader { reason };
            return Err(WalError::Damaged { path, offset: 0, kind });
        }
    };

    let mut chain: Vec<ScannedBatch> = Vec::new();
    let mut at = FIRST_BATCH as usize;
    while let Some((header, records)) = bytes.get(at..).and_then(|b| batch::decode(b, generation)) {
        let expected = match chain.last() {
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
        chain.push(ScannedBatch { offset, header, record_bytes, records });
        at += batch::batch_bytes(record_bytes);
    }
    Ok(ScannedSegment {
        number,
        generation,
        path,
        file_bytes: bytes.len() as u64,
        chain,
        strays: strays(&bytes, at, generation),
        bytes_behind_chain: bytes.get(at..).is_some_and(|rest| rest.iter().any(|&byte| byte != 0)),
    })
}

fn strays(bytes: &[u8], mut at: usize, generation: u64) -> Vec<ScannedBatch> {
    let mut strays = Vec::new();
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((header, records)) = batch::decode(rest, generation) {
            let record_bytes = records.len();
            let (offset, records) = (at as u64, Bytes::new());
            strays.push(ScannedBatch { offset, header, record_bytes, records });
            at += batch::batch_bytes(record_bytes);
        } else {
            at += BLOCK_BYTES;
        }
    }
    strays
}
