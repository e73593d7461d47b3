//! Batches and their records: how writes become bytes and bytes become writes.
//!
//! Invariant: a batch decodes only if every byte that counts is the one that was written: its CRC
//! covers its header and its records, and the generation in the header is its segment's. Decoding
//! takes any bytes whatever without panic.

use bytes::{Buf, BufMut, Bytes, TryGetError};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use raft::{Entry, EntryId, HardState, Payload, Write};

use crate::GroupId;
use crate::disk::{BLOCK_BYTES, Blocks};
use crate::membership;

pub(super) const HEADER_BYTES: usize = 56;
const MAGIC: [u8; 4] = *b"RBLB";
/// Magic and CRC: the bytes before those that the CRC covers.
const UNCOVERED_BYTES: usize = 8;

const HARD_STATE: u8 = 1;
const NOOP: u8 = 2;
const DATA: u8 = 3;
const MEMBERSHIP: u8 = 4;
const BASE: u8 = 5;

/// What a batch says of itself (the table is in [`crate::wal`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) durable_prefix: u64,
    pub(super) segment_first: u64,
    pub(super) needed_from: u64,
}

/// One record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) group: GroupId,
    pub(super) change: Change,
}

/// What a record changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    HardState(HardState),
    Entry(Entry<Bytes>),
    /// A snapshot took the place of all up to `base`; with `keeps_rest`, what the log held behind
    /// it stays.
    Base {
        base: EntryId,
        keeps_rest: bool,
    },
}

/// Bytes that the records of `write` take.
pub(super) fn write_bytes(group: GroupId, write: &Write<Bytes>) -> usize {
    write.hard_state.map_or(0, |_| hard_state_bytes(group))
        + write.base.map_or(0, |_| base_bytes(group))
        + write.entries.iter().map(|entry| entry_bytes(group, entry)).sum::<usize>()
}

/// Bytes that `record` takes.
pub(super) fn record_bytes(record: &Record) -> usize {
    match &record.change {
        Change::HardState(_) => hard_state_bytes(record.group),
        Change::Base { .. } => base_bytes(record.group),
        Change::Entry(entry) => entry_bytes(record.group, entry),
    }
}

fn kind_and_group_bytes(group: GroupId) -> usize {
    1 + encoded_len_varint(group)
}

fn hard_state_bytes(group: GroupId) -> usize {
    kind_and_group_bytes(group) + 8 + 8
}

fn base_bytes(group: GroupId) -> usize {
    kind_and_group_bytes(group) + 8 + 8 + 1
}

fn entry_bytes(group: GroupId, entry: &Entry<Bytes>) -> usize {
    let payload_bytes = match &entry.payload {
        Payload::Noop => 0,
        Payload::Data(data) => 4 + data.len(),
        Payload::Membership(membership) => membership::encoded_bytes(membership),
    };
    kind_and_group_bytes(group) + 8 + 8 + payload_bytes
}

/// Bytes that a batch with `record_bytes` of records takes on the disk: whole blocks.
pub(super) fn batch_bytes(record_bytes: usize) -> usize {
    (HEADER_BYTES + record_bytes).next_multiple_of(BLOCK_BYTES)
}

/// A batch in the making, in memory that goes to the disk as it is.
#[derive(Default)]
pub(super) struct BatchBuffer {
    blocks: Blocks,
}

impl BatchBuffer {
    /// In the memory of an earlier batch, so that it need not be asked for.
    pub(super) fn reuse(blocks: Blocks) -> Self {
        Self { blocks }
    }

    /// Begins a batch with `record_bytes` of records (at most `u32::MAX`), which are put next.
    pub(super) fn begin(&mut self, header: Header, record_bytes: usize) {
        self.blocks.begin(batch_bytes(record_bytes));
        let out = self.blocks.out();
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(record_bytes as u32);
        out.put_u32_le(0);
        out.put_u64_le(header.generation);
        out.put_u64_le(header.sequence);
        out.put_u64_le(header.durable_prefix);
        out.put_u64_le(header.segment_first);
        out.put_u64_le(header.needed_from);
    }

    /// Adds a write's records; its data is copied once, to here. `keeps_rest` goes with its base.
    pub(super) fn put_write(&mut self, group: GroupId, write: &Write<Bytes>, keeps_rest: bool) {
        let out = self.blocks.out();
        if let Some(hard_state) = write.hard_state {
            put_hard_state(out, group, hard_state);
        }
        if let Some(base) = write.base {
            put_base(out, group, base, keeps_rest);
        }
        write.entries.iter().for_each(|entry| put_entry(out, group, entry));
    }

    /// Adds one record.
    pub(super) fn put_record(&mut self, Record { group, change }: &Record) {
        let out = self.blocks.out();
        match change {
            Change::HardState(hard_state) => put_hard_state(out, *group, *hard_state),
            Change::Base { base, keeps_rest } => put_base(out, *group, *base, *keeps_rest),
            Change::Entry(entry) => put_entry(out, *group, entry),
        }
    }

    /// Ends the batch: its bytes, padded with zeros to whole blocks.
    pub(super) fn finish(mut self) -> Blocks {
        let start = self.blocks.start();
        let out = self.blocks.out();
        let record_bytes = out.len() - start - HEADER_BYTES;
        let promised = out[start + 8..start + 12].first_chunk().copied().map(u32::from_le_bytes);
        assert_eq!(Some(record_bytes as u32), promised, "what was put is what was promised");
        let crc = crc32c::crc32c(&out[start + UNCOVERED_BYTES..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        self.blocks.pad();
        self.blocks
    }
}

fn put_kind_and_group(out: &mut Vec<u8>, kind: u8, group: GroupId) {
    out.put_u8(kind);
    encode_varint(group, out);
}

fn put_hard_state(out: &mut Vec<u8>, group: GroupId, HardState { term, voted_for }: HardState) {
    put_kind_and_group(out, HARD_STATE, group);
    out.put_u64_le(term);
    out.put_u64_le(voted_for.unwrap_or(0));
}

fn put_base(out: &mut Vec<u8>, group: GroupId, base: EntryId, keeps_rest: bool) {
    put_kind_and_group(out, BASE, group);
    out.put_u64_le(base.term);
    out.put_u64_le(base.index);
    out.put_u8(keeps_rest.into());
}

fn put_entry(out: &mut Vec<u8>, group: GroupId, Entry { term, index, payload }: &Entry<Bytes>) {
    let kind = match payload {
        Payload::Noop => NOOP,
        Payload::Data(_) => DATA,
        Payload::Membership(_) => MEMBERSHIP,
    };
    put_kind_and_group(out, kind, group);
    out.put_u64_le(*term);
    out.put_u64_le(*index);
    match payload {
        Payload::Noop => {}
        Payload::Data(data) => {
            out.put_u32_le(data.len() as u32);
            out.put_slice(data);
        }
        Payload::Membership(membership) => membership::put(out, membership),
    }
}

/// The batch at the start of `bytes`, if a whole one of this generation is there: its header, and
/// its records as bytes.
pub(super) fn decode(bytes: &[u8], generation: u64) -> Option<(Header, &[u8])> {
    let mut header = bytes.get(..HEADER_BYTES)?;
    if header[..4] != MAGIC {
        return None;
    }
    header.advance(4);
    let crc = header.get_u32_le();
    let record_bytes = header.get_u32_le() as usize;
    let reserved = header.get_u32_le();
    let header = Header {
        generation: header.get_u64_le(),
        sequence: header.get_u64_le(),
        durable_prefix: header.get_u64_le(),
        segment_first: header.get_u64_le(),
        needed_from: header.get_u64_le(),
    };
    if reserved != 0 || header.generation != generation {
        return None;
    }
    let batch = bytes.get(..HEADER_BYTES + record_bytes)?;
    (crc32c::crc32c(&batch[UNCOVERED_BYTES..]) == crc).then(|| (header, &batch[HEADER_BYTES..]))
}

/// The generation that the block at the start of `bytes` names, if it looks like a batch's first.
pub(super) fn claimed_generation(bytes: &[u8]) -> Option<u64> {
    let mut header = bytes.get(..HEADER_BYTES).filter(|header| header[..4] == MAGIC)?;
    header.advance(16);
    Some(header.get_u64_le())
}

/// The records of a batch, in order; an `Err` says what is wrong with them. Data is shared with
/// `records`, not copied.
pub(super) fn decode_records(mut records: Bytes) -> Result<Vec<Record>, String> {
    let mut decoded = Vec::new();
    while records.has_remaining() {
        decoded.push(decode_record(&mut records)?);
    }
    Ok(decoded)
}

fn decode_record(records: &mut Bytes) -> Result<Record, String> {
    let short = |_: TryGetError| ENDS_EARLY.to_owned();
    let kind = records.try_get_u8().map_err(short)?;
    let group = decode_varint(records).map_err(|_| "a group's number makes no sense".to_owned())?;
    let term = records.try_get_u64_le().map_err(short)?;
    if kind == HARD_STATE {
        let vote = records.try_get_u64_le().map_err(short)?;
        let hard_state = HardState { term, voted_for: (vote != 0).then_some(vote) };
        return Ok(Record { group, change: Change::HardState(hard_state) });
    }
    let index = records.try_get_u64_le().map_err(short)?;
    let payload = match kind {
        NOOP => Payload::Noop,
        DATA => Payload::Data(membership::take_data(records).ok_or(ENDS_EARLY)?),
        MEMBERSHIP => Payload::Membership(membership::take(records).ok_or(ENDS_EARLY)?),
        BASE => {
            let keeps_rest = match records.try_get_u8().map_err(short)? {
                0 => false,
                1 => true,
                other => return Err(format!("a base says {other} where 0 or 1 belongs")),
            };
            let base = EntryId { index, term };
            return Ok(Record { group, change: Change::Base { base, keeps_rest } });
        }
        kind => return Err(format!("record kind {kind} is unknown to this version")),
    };
    if index == 0 {
        return Err("entry 0, which there is not".to_owned());
    }
    Ok(Record { group, change: Change::Entry(Entry { term, index, payload }) })
}

const ENDS_EARLY: &str = "a record ends early";

#[cfg(test)]
mod tests {
    use raft::Membership;

    use super::*;

    const HEADER: Header =
        Header { generation: 7, sequence: 3, durable_prefix: 2, segment_first: 1, needed_from: 1 };

    fn writes() -> Vec<(GroupId, Write<Bytes>)> {
        let entry = |term, index, payload| Entry { term, index, payload };
        let membership = Membership {
            voters: vec![1, 2, 3],
            outgoing: vec![1],
            learners: vec![],
            context: Bytes::from_static(b"names"),
        };
        let first = Write {
            id: 1,
            hard_state: Some(HardState { term: 4, voted_for: Some(2) }),
            base: Some(EntryId { index: 8, term: 3 }),
            entries: vec![
                entry(4, 9, Payload::Noop),
                entry(4, 10, Payload::Data(Bytes::from_static(b"put"))),
                entry(4, 11, Payload::Membership(membership)),
            ],
        };
        let entries = vec![entry(4, 11, Payload::Data(Bytes::new()))];
        let second = Write { id: 2, hard_state: None, base: None, entries };
        vec![(0, first), (u64::MAX, second)]
    }

    fn records(writes: &[(GroupId, Write<Bytes>)]) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, write) in writes {
            let mut push = |change| records.push(Record { group: *group, change });
            write.hard_state.map(Change::HardState).map(&mut push);
            write.base.map(|base| Change::Base { base, keeps_rest: true }).map(&mut push);
            write.entries.iter().cloned().map(Change::Entry).for_each(push);
        }
        records
    }

    fn encode(mut buffer: BatchBuffer, writes: &[(GroupId, Write<Bytes>)]) -> Blocks {
        let bytes = writes.iter().map(|(group, write)| write_bytes(*group, write)).sum();
        buffer.begin(HEADER, bytes);
        writes.iter().for_each(|(group, write)| buffer.put_write(*group, write, true));
        buffer.finish()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let blocks = encode(BatchBuffer::default(), &writes());
        let bytes = blocks.bytes().to_vec();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let (header, encoded) = decode(&bytes, 7).expect("a whole batch");
        assert_eq!(header, HEADER);
        let expected = records(&writes());
        assert_eq!(decode_records(Bytes::copy_from_slice(encoded)).unwrap(), expected);

        // Record by record, the same bytes.
        let mut buffer = BatchBuffer::reuse(blocks);
        buffer.begin(HEADER, expected.iter().map(record_bytes).sum());
        expected.iter().for_each(|record| buffer.put_record(record));
        assert_eq!(buffer.finish().bytes(), bytes);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let bytes = encode(BatchBuffer::default(), &writes()).bytes().to_vec();
        let used = HEADER_BYTES + records(&writes()).iter().map(record_bytes).sum::<usize>();
        for bit in 0..used * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, 7), None, "bit {bit}");
        }
        assert!(decode(&bytes[..used], 7).is_some(), "the padding does not count");
        for len in 0..used {
            assert_eq!(decode(&bytes[..len], 7), None, "cut at {len}");
        }
        assert_eq!(decode(&bytes, 8), None, "another generation's");
    }

    #[test]
    fn the_buffer_is_aligned_and_leaves_nothing_of_the_batch_before() {
        let data = Payload::Data(Bytes::from(vec![0xff; 3 * BLOCK_BYTES]));
        let entries = vec![Entry { term: 4, index: 12, payload: data }];
        let large = [(1, Write { id: 3, hard_state: None, base: None, entries })];
        let blocks = encode(BatchBuffer::default(), &large);
        assert_eq!(blocks.bytes().as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!(blocks.bytes().len(), 4 * BLOCK_BYTES);
        let blocks = encode(BatchBuffer::reuse(blocks), &writes());
        assert_eq!(blocks.bytes().as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!(blocks.bytes(), encode(BatchBuffer::default(), &writes()).bytes());
    }

    #[test]
    fn records_that_make_no_sense_are_errors() {
        for bytes in [
            &b"\x09\x00aaaaaaaabbbbbbbb"[..],
            b"\x01\x00aa",
            b"\x03\x00aaaaaaaabbbbbbbb\xff\0\0\0x",
            b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01aaaaaaaabbbbbbbb",
            b"\x04\x00aaaaaaaabbbbbbbb\xff\xff\xff\xff",
            b"\x05\x00aaaaaaaabbbbbbbb\x02",
            b"\x02\x00aaaaaaaa\0\0\0\0\0\0\0\0",
        ] {
            assert!(decode_records(Bytes::from_static(bytes)).is_err());
        }
    }
}
