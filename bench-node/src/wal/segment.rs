//! Segment files: their names, their first block, and how one comes into being.
//!
//! Invariant: a file bears a segment's name only once its first block is durable, and it keeps
//! both from then on. A segment belongs to one start of one member: a later start writes into new
//! segments only.

use std::path::{Path, PathBuf};

use bytes::Buf;

use crate::disk::{BLOCK_BYTES, Disk, DiskError, DiskFile};

/// Where the first batch of a segment starts.
pub(super) const FIRST_BATCH: u64 = BLOCK_BYTES as u64;
const MAGIC: [u8; 8] = *b"RBLOGSEG";
const VERSION: u32 = 1;
const USED_BYTES: usize = 32;
const TEMPORARY: &str = ".new";

/// An open segment.
pub(super) struct Segment<F> {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) file: F,
    /// Bytes of it that are written, and so can be overwritten without touching metadata.
    pub(super) filled: u64,
}

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("segment-{number:016}")
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// Whether a crash while a segment was made left this file.
pub(super) fn is_leftover(name: &str) -> bool {
    name.strip_suffix(TEMPORARY).is_some_and(|name| number_of(name).is_some())
}

/// Makes a segment: its first block and `fill_bytes` more are durable, and so is its name.
pub(super) fn create<D: Disk>(
    disk: &D,
    dir: &Path,
    number: u64,
    generation: u64,
    fill_bytes: u64,
) -> Result<Segment<D::File>, DiskError> {
    let path = dir.join(file_name(number));
    let temporary = PathBuf::from(format!("{}{TEMPORARY}", path.display()));
    let file = match disk.create(&temporary) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(&temporary)?;
            disk.create(&temporary)?
        }
        created => created?,
    };
    file.write_at(0, &encode_header(number, generation))?;
    file.fill_zero(FIRST_BATCH, fill_bytes)?;
    file.sync()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    // Opened again under its name, for the sake of what errors say.
    let file = disk.open(&path)?;
    Ok(Segment { number, generation, file, filled: FIRST_BATCH + fill_bytes })
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

fn encode_header(number: u64, generation: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    block[..8].copy_from_slice(&MAGIC);
    block[12..16].copy_from_slice(&VERSION.to_le_bytes());
    block[16..24].copy_from_slice(&number.to_le_bytes());
    block[24..32].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    block
}

/// The generation in a segment's first block; an `Err` says what is wrong with the block.
pub(super) fn decode_header(bytes: &[u8], number: u64) -> Result<u64, String> {
    let Some(block) = bytes.get(..BLOCK_BYTES) else {
        return Err(format!("the file has {} bytes, less than its first block", bytes.len()));
    };
    if block[..8] != MAGIC {
        return Err("the first block is not that of a log segment".to_owned());
    }
    let mut fields = &block[8..USED_BYTES];
    if fields.get_u32_le() != crc32c::crc32c(&block[12..]) {
        return Err("the first block's checksum does not match".to_owned());
    }
    let version = fields.get_u32_le();
    if version != VERSION {
        return Err(format!("its format is version {version}, this program knows {VERSION}"));
    }
    let found = fields.get_u64_le();
    if found != number {
        return Err(format!("it is segment {found} under another one's name"));
    }
    Ok(fields.get_u64_le())
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
        assert!(is_leftover("segment-0000000000000001.new"));
        assert!(!is_leftover("notes.new"));
    }

    #[test]
    fn a_damaged_first_block_is_noticed() {
        let block = encode_header(3, 9);
        assert_eq!(decode_header(&block, 3), Ok(9));
        assert!(decode_header(&block, 4).is_err());
        assert!(decode_header(&block[..BLOCK_BYTES - 1], 3).is_err());
        for byte in 0..BLOCK_BYTES {
            let mut rotten = block.clone();
            rotten[byte] ^= 0x10;
            assert!(decode_header(&rotten, 3).is_err(), "byte {byte}");
        }
    }
}
