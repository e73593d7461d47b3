//! A snapshot's parts as bytes: header, blocks of records, footer.
//!
//! Invariant: a part decodes only if every byte of it is the one that was encoded. Decoding takes
//! any bytes whatever without panic, and no length that it reads makes it take memory.

use bytes::{Buf, BufMut, Bytes};
use raft::EntryId;

use super::SnapshotMeta;
use crate::kv::{Record, StoreHeader};
use crate::membership;

/// The format that this version writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"RBSNAPSH";
const BLOCK: [u8; 4] = *b"RBSB";
const FOOTER: [u8; 4] = *b"RBSE";

/// Magic, CRC, version, length: what is read of a header first.
pub(super) const HEADER_START_BYTES: usize = 24;
/// What comes before a block's records; a footer is longer.
pub(super) const BLOCK_START_BYTES: usize = 24;
pub(super) const FOOTER_BYTES: usize = 40;
/// Of a record, but for key and value.
const RECORD_BYTES: usize = 4 + 4 + 8 + 8 + 8;

/// What the end of a snapshot says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) blocks: u64,
    pub(super) records: u64,
    /// Of the whole snapshot.
    pub(super) bytes: u64,
    /// CRC32C of all bytes before the footer.
    pub(super) crc: u32,
}

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockStart {
    pub(super) crc: u32,
    pub(super) record_bytes: usize,
    pub(super) records: u32,
    pub(super) number: u64,
}

/// What comes behind the header and behind each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Block(BlockStart),
    Footer,
}

pub(super) fn encode_header(meta: &SnapshotMeta) -> Bytes {
    let SnapshotMeta { group, last_included, membership, store } = meta;
    let mut out = Vec::new();
    out.put_slice(&MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(VERSION);
    out.put_u32_le(0);
    out.put_u32_le(0);
    out.put_u64_le(*group);
    out.put_u64_le(last_included.index);
    out.put_u64_le(last_included.term);
    out.put_i64_le(store.revision);
    out.put_i64_le(store.compacted_revision);
    membership::put(&mut out, membership);
    let bytes = out.len() as u32;
    out[16..20].copy_from_slice(&bytes.to_le_bytes());
    let crc = crc32c::crc32c(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out.into()
}

/// The header's length, from its start. Whether it can be trusted is for [`decode_header`] to say.
pub(super) fn header_bytes(start: &[u8; HEADER_START_BYTES]) -> Result<usize, HeaderError> {
    if start[..8] != MAGIC {
        return Err(HeaderError::Damaged("this is no snapshot"));
    }
    let mut fields = &start[12..];
    let version = fields.get_u32_le();
    if version != VERSION {
        return Err(HeaderError::Version(version));
    }
    let bytes = fields.get_u32_le() as usize;
    if bytes < HEADER_START_BYTES {
        return Err(HeaderError::Damaged("the header's length makes no sense"));
    }
    Ok(bytes)
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Version(u32),
    Damaged(&'static str),
}

/// Reads a whole header.
pub(super) fn decode_header(header: Bytes) -> Result<SnapshotMeta, &'static str> {
    let crc = header.get(8..12).map(|mut crc| crc.get_u32_le());
    if crc.is_none() || crc != header.get(12..).map(crc32c::crc32c) {
        return Err("the header's checksum does not match");
    }
    // Whole, as its checksum says; so what does not fit was never written by this format.
    const SENSELESS: &str = "the header matches its checksum and makes no sense";
    let mut fields = header.slice(HEADER_START_BYTES.min(header.len())..);
    if fields.len() < 5 * 8 {
        return Err(SENSELESS);
    }
    let group = fields.get_u64_le();
    let last_included = EntryId { index: fields.get_u64_le(), term: fields.get_u64_le() };
    let store =
        StoreHeader { revision: fields.get_i64_le(), compacted_revision: fields.get_i64_le() };
    let membership = membership::take(&mut fields).ok_or(SENSELESS)?;
    if !fields.is_empty() || last_included.index == 0 {
        return Err(SENSELESS);
    }
    Ok(SnapshotMeta { group, last_included, membership, store })
}

/// Encodes one block after the other.
pub(super) struct BlockEncoder {
    out: Vec<u8>,
    records: u32,
}

impl BlockEncoder {
    /// Begins a block that is to have about `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.put_bytes(0, BLOCK_START_BYTES);
        Self { out, records: 0 }
    }

    pub(super) fn put(&mut self, key: &Bytes, record: &Record) {
        let out = &mut self.out;
        out.put_u32_le(key.len() as u32);
        out.put_u32_le(record.value.len() as u32);
        out.put_i64_le(record.create_revision);
        out.put_i64_le(record.mod_revision);
        out.put_i64_le(record.version);
        out.put_slice(key);
        out.put_slice(&record.value);
        self.records += 1;
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    pub(super) fn finish(self, number: u64) -> Bytes {
        let Self { mut out, records } = self;
        let record_bytes = (out.len() - BLOCK_START_BYTES) as u32;
        out[..4].copy_from_slice(&BLOCK);
        out[8..12].copy_from_slice(&record_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&records.to_le_bytes());
        out[16..24].copy_from_slice(&number.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out.into()
    }
}

/// What `start` begins, if it can begin anything.
pub(super) fn decode_next(start: &[u8; BLOCK_START_BYTES]) -> Option<Next> {
    let mut fields = &start[4..];
    let crc = fields.get_u32_le();
    let (record_bytes, records) = (fields.get_u32_le() as usize, fields.get_u32_le());
    let number = fields.get_u64_le();
    match start[..4].first_chunk() {
        Some(&BLOCK) => Some(Next::Block(BlockStart { crc, record_bytes, records, number })),
        Some(&FOOTER) => Some(Next::Footer),
        _ => None,
    }
}

/// Whether a block, start included, is what its start says.
pub(super) fn block_is_whole(block: &[u8], start: &BlockStart) -> bool {
    block.len() == BLOCK_START_BYTES + start.record_bytes
        && crc32c::crc32c(&block[8..]) == start.crc
}

/// Takes a record from the front of a block's records; `None` where they end before it does. It
/// does not share their memory.
pub(super) fn take_record(records: &mut Bytes) -> Option<(Bytes, Record)> {
    if records.len() < RECORD_BYTES {
        return None;
    }
    let (key_bytes, value_bytes) = (records.get_u32_le() as usize, records.get_u32_le() as usize);
    let create_revision = records.get_i64_le();
    let mod_revision = records.get_i64_le();
    let version = records.get_i64_le();
    let both = records.get(..key_bytes.checked_add(value_bytes)?)?;
    let mut key = Bytes::copy_from_slice(both);
    records.advance(both.len());
    let value = key.split_off(key_bytes);
    Some((key, Record { create_revision, mod_revision, version, value }))
}

pub(super) fn encode_footer(footer: &Footer) -> Bytes {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    out.put_slice(&FOOTER);
    out.put_u32_le(0);
    out.put_u64_le(footer.blocks);
    out.put_u64_le(footer.records);
    out.put_u64_le(footer.bytes);
    out.put_u32_le(footer.crc);
    out.put_u32_le(0);
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.into()
}

pub(super) fn decode_footer(footer: &[u8; FOOTER_BYTES]) -> Option<Footer> {
    let mut fields = &footer[4..];
    let crc = fields.get_u32_le();
    if footer[..4] != FOOTER || crc32c::crc32c(&footer[8..]) != crc {
        return None;
    }
    Some(Footer {
        blocks: fields.get_u64_le(),
        records: fields.get_u64_le(),
        bytes: fields.get_u64_le(),
        crc: fields.get_u32_le(),
    })
}

#[cfg(test)]
mod tests {
    use raft::Membership;

    use super::*;

    #[test]
    fn a_flipped_bit_in_any_part_is_noticed() {
        let membership = Membership {
            voters: vec![1, 2],
            outgoing: vec![],
            learners: vec![9],
            context: Bytes::from_static(b"names"),
        };
        let store = StoreHeader { revision: 8, compacted_revision: -1 };
        let last_included = EntryId { index: 5, term: 2 };
        let meta = SnapshotMeta { group: 3, last_included, membership, store };
        let header = encode_header(&meta);
        assert_eq!(header_bytes(header.first_chunk().unwrap()), Ok(header.len()));
        assert_eq!(decode_header(header.clone()), Ok(meta));

        let mut block = BlockEncoder::new(100);
        let record =
            Record { create_revision: 2, mod_revision: 4, version: 3, value: "value".into() };
        block.put(&"key".into(), &record);
        let block = block.finish(1);
        let Some(Next::Block(start)) = decode_next(block.first_chunk().unwrap()) else {
            panic!("it is a block")
        };
        assert!(block_is_whole(&block, &start));
        let mut records = block.slice(BLOCK_START_BYTES..);
        assert_eq!(take_record(&mut records), Some(("key".into(), record)));
        assert_eq!(take_record(&mut records), None);

        let footer = Footer { blocks: 1, records: 1, bytes: 200, crc: 77 };
        let end = encode_footer(&footer);
        assert_eq!(decode_next(end.first_chunk().unwrap()), Some(Next::Footer));
        assert_eq!(decode_footer(end.first_chunk().unwrap()), Some(footer));

        for (part, bytes) in [("header", header), ("block", block), ("footer", end)] {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let noticed = match part {
                    "header" => {
                        header_bytes(flipped.first_chunk().unwrap()) != Ok(flipped.len())
                            || decode_header(flipped.into()).is_err()
                    }
                    "block" => match decode_next(flipped.first_chunk().unwrap()) {
                        Some(Next::Block(start)) => !block_is_whole(&flipped, &start),
                        _ => true,
                    },
                    _ => decode_footer(flipped.first_chunk().unwrap()).is_none(),
                };
                assert!(noticed, "bit {bit} of the {part}");
            }
        }
    }
}
