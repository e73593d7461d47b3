//! Segment files: their names, their first block, how one comes into being, and what becomes of it.
//!
//! Invariant: a file bears a segment's name only once its first block is durable, and it keeps
//! both as long as it bears it. A segment belongs to one start of one member: a later start writes
//! into new segments only.
//!
//! A segment that is no longer needed becomes a *spare*: another name, the bytes as they were. A
//! spare becomes a segment as a new file does, with a first block of its own, so that the batches
//! of its earlier use are none of its generation. In between, the directory is synced: else a loss
//! of power could give the new first block the old name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Buf;

use crate::disk::{BLOCK_BYTES, Disk, DiskError, DiskFile};

/// Where the first batch of a segment starts.
pub(super) const FIRST_BATCH: u64 = BLOCK_BYTES as u64;
/// The format that this version writes, and the only one that it reads.
pub(super) const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"RBLOGSEG";
const USED_BYTES: usize = 48;
const SEGMENT: &str = "segment-";
const SPARE: &str = "spare-";
const TEMPORARY: &str = ".new";

/// An open segment.
pub(super) struct Segment<F> {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) file: Arc<F>,
    /// Bytes of it that are written, and so can be overwritten without touching metadata.
    pub(super) filled: u64,
}

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) generation: u64,
    /// Behind the last batch and before this, an earlier use of the file may have left anything;
    /// what was never written to is zero. 0 in a new file.
    pub(super) stale_bytes: u64,
    /// The number of the segment that the start of the member which made this one opened with.
    pub(super) opening: u64,
}

/// What is wrong with a first block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It is whole, and of this version of the format.
    Version(u32),
    /// It cannot be read, or is another's.
    Damaged(String),
}

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{SEGMENT}{number:016}")
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    number_behind(SEGMENT, name)
}

/// The number in a spare's file name: that of the segment that it was.
pub(super) fn spare_number_of(name: &str) -> Option<u64> {
    number_behind(SPARE, name)
}

fn number_behind(prefix: &str, name: &str) -> Option<u64> {
    let number = name.strip_prefix(prefix)?.parse().ok()?;
    (format!("{prefix}{number:016}") == name).then_some(number)
}

/// Whether a crash while a segment was made left this file.
pub(super) fn is_leftover(name: &str) -> bool {
    name.strip_suffix(TEMPORARY).is_some_and(|name| number_of(name).is_some())
}

/// What a new segment is to be.
pub(super) struct Plan {
    pub(super) number: u64,
    pub(super) generation: u64,
    /// The number of the segment that this start opened with.
    pub(super) opening: u64,
    /// How much of a new file is filled with zeros.
    pub(super) fill_bytes: u64,
    /// False is a planted bug.
    pub(super) sync_name: bool,
}

/// Makes a segment: its first block and `fill_bytes` more are durable, and so is its name.
pub(super) fn create<D: Disk>(
    disk: &D,
    dir: &Path,
    plan: &Plan,
) -> Result<Segment<D::File>, DiskError> {
    let path = dir.join(file_name(plan.number));
    let temporary = PathBuf::from(format!("{}{TEMPORARY}", path.display()));
    let file = match disk.create(&temporary) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(&temporary)?;
            disk.create(&temporary)?
        }
        created => created?,
    };
    file.fill_zero(FIRST_BATCH, plan.fill_bytes)?;
    give_name(disk, dir, plan, &temporary, &file, 0)
}

/// Makes a segment of a spare; as [`create`], but for what the spare's earlier use left behind.
pub(super) fn recycle<D: Disk>(
    disk: &D,
    dir: &Path,
    plan: &Plan,
    spare: &Path,
) -> Result<Segment<D::File>, DiskError> {
    let file = disk.open(spare)?;
    let bytes = file.len()?;
    give_name(disk, dir, plan, spare, &file, bytes)
}

fn give_name<D: Disk>(
    disk: &D,
    dir: &Path,
    plan: &Plan,
    nameless: &Path,
    file: &D::File,
    stale_bytes: u64,
) -> Result<Segment<D::File>, DiskError> {
    let &Plan { number, generation, opening, fill_bytes, sync_name } = plan;
    let path = dir.join(file_name(number));
    let header = SegmentHeader { number, generation, stale_bytes, opening };
    file.write_at(0, &encode_header(header))?;
    file.sync()?;
    disk.rename(nameless, &path)?;
    if sync_name {
        disk.sync_dir(dir)?;
    }
    // Opened again under its name, for the sake of what errors say.
    let file = Arc::new(disk.open(&path)?);
    let filled = stale_bytes.max(FIRST_BATCH + if stale_bytes == 0 { fill_bytes } else { 0 });
    Ok(Segment { number, generation, file, filled })
}

/// Takes the name of a segment that is no longer needed, durably, and keeps the file as a spare.
pub(super) fn retire<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<PathBuf, DiskError> {
    let spare = dir.join(format!("{SPARE}{number:016}"));
    disk.rename(&dir.join(file_name(number)), &spare)?;
    disk.sync_dir(dir)?;
    Ok(spare)
}

/// A generation that no other use of a segment has, and that no writer of values can guess: an
/// entry whose data looks like a batch is not taken for one.
pub(super) fn generation(seed: u64, number: u64) -> u64 {
    // SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    let mut mixed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn encode_header(header: SegmentHeader) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    block[..8].copy_from_slice(&MAGIC);
    block[12..16].copy_from_slice(&VERSION.to_le_bytes());
    block[16..24].copy_from_slice(&header.number.to_le_bytes());
    block[24..32].copy_from_slice(&header.generation.to_le_bytes());
    block[32..40].copy_from_slice(&header.stale_bytes.to_le_bytes());
    block[40..48].copy_from_slice(&header.opening.to_le_bytes());
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    block
}

/// Reads a segment's first block.
pub(super) fn decode_header(bytes: &[u8], number: u64) -> Result<SegmentHeader, HeaderError> {
    let damaged = |reason: String| Err(HeaderError::Damaged(reason));
    let Some(block) = bytes.get(..BLOCK_BYTES) else {
        return damaged(format!("the file has {} bytes, less than its first block", bytes.len()));
    };
    if block[..8] != MAGIC {
        return damaged("the first block is not that of a log segment".to_owned());
    }
    let mut fields = &block[8..USED_BYTES];
    if fields.get_u32_le() != crc32c::crc32c(&block[12..]) {
        return damaged("the first block's checksum does not match".to_owned());
    }
    let version = fields.get_u32_le();
    if version != VERSION {
        return Err(HeaderError::Version(version));
    }
    let found = fields.get_u64_le();
    if found != number {
        return damaged(format!("it is segment {found} under another one's name"));
    }
    Ok(SegmentHeader {
        number,
        generation: fields.get_u64_le(),
        stale_bytes: fields.get_u64_le(),
        opening: fields.get_u64_le(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert_eq!(number_of(&file_name(0)), Some(0));
        assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
        for foreign in ["segment-1", "segment-0000000000000001.bak", "lost+found", "segment-"] {
            assert_eq!(number_of(foreign), None, "{foreign}");
        }
        assert_eq!(spare_number_of("spare-0000000000000007"), Some(7));
        assert_eq!(spare_number_of(&file_name(7)), None);
        assert!(is_leftover("segment-0000000000000001.new"));
        assert!(!is_leftover("notes.new"));
    }

    #[test]
    fn a_damaged_first_block_is_noticed() {
        let header = SegmentHeader { number: 3, generation: 9, stale_bytes: 1 << 20, opening: 2 };
        let block = encode_header(header);
        assert_eq!(decode_header(&block, 3), Ok(header));
        assert!(decode_header(&block, 4).is_err());
        assert!(decode_header(&block[..BLOCK_BYTES - 1], 3).is_err());
        for byte in 0..BLOCK_BYTES {
            let mut rotten = block.clone();
            rotten[byte] ^= 0x10;
            assert!(decode_header(&rotten, 3).is_err(), "byte {byte}");
        }
    }
}
