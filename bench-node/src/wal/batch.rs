//! Batches and their records: how writes become bytes and bytes become writes.
//!
//! Invariant: a batch decodes only if every byte that counts is the one that was written: its CRC
//! covers its header and its records, and the generation in the header is its segment's. Decoding
//! takes any bytes whatever without panic.

use bytes::{Buf, BufMut, Bytes, TryGetError};
use raft::{Entry, HardState, Payload, Write};

use crate::disk::BLOCK_BYTES;

pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"RBLB";
/// Magic and CRC: the bytes before those that the CRC covers.
const UNCOVERED_BYTES: usize = 8;

const HARD_STATE: u8 = 1;
const NOOP: u8 = 2;
const DATA: u8 = 3;
const HARD_STATE_BYTES: usize = 1 + 8 + 8;
const ENTRY_BYTES: usize = 1 + 8 + 8;

/// What a batch says of itself (the table is in [`crate::wal`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) durable_prefix: u64,
    pub(super) segment_first: u64,
}

/// One record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    HardState(HardState),
    Entry(Entry<Bytes>),
}

/// Bytes that the records of `write` take.
pub(super) fn record_bytes(write: &Write<Bytes>) -> usize {
    let entry_bytes = |entry: &Entry<Bytes>| match &entry.payload {
        Payload::Noop => ENTRY_BYTES,
        Payload::Data(data) => ENTRY_BYTES + 4 + data.len(),
    };
    write.hard_state.map_or(0, |_| HARD_STATE_BYTES)
        + write.entries.iter().map(entry_bytes).sum::<usize>()
}

/// Bytes that a batch with `record_bytes` of records takes on the disk: whole blocks.
pub(super) fn batch_bytes(record_bytes: usize) -> usize {
    (HEADER_BYTES + record_bytes).next_multiple_of(BLOCK_BYTES)
}

/// A buffer for one batch at a time; reused, and aligned to blocks for a disk that writes past
/// the page cache.
#[derive(Default)]
pub(super) struct BatchBuffer {
    storage: Vec<u8>,
}

impl BatchBuffer {
    /// Encodes `writes` as one batch, padded with zeros to whole blocks. An entry's data is copied
    /// once, to here. `record_bytes` is their sum, and at most `u32::MAX`.
    pub(super) fn encode(
        &mut self,
        header: Header,
        writes: &[Write<Bytes>],
        record_bytes: usize,
    ) -> &[u8] {
        let total = batch_bytes(record_bytes);
        // Room for the alignment too, so that nothing moves while the batch is written.
        self.storage.clear();
        self.storage.reserve(total + BLOCK_BYTES);
        let start = self.storage.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        self.storage.resize(start, 0);

        let out = &mut self.storage;
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(record_bytes as u32);
        out.put_u32_le(0);
        out.put_u64_le(header.generation);
        out.put_u64_le(header.sequence);
        out.put_u64_le(header.durable_prefix);
        out.put_u64_le(header.segment_first);
        writes.iter().for_each(|write| put_records(out, write));

        let end = start + HEADER_BYTES + record_bytes;
        assert_eq!(out.len(), end, "record_bytes is what put_records writes");
        let crc = crc32c::crc32c(&out[start + UNCOVERED_BYTES..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + total, 0);
        &out[start..]
    }
}

fn put_records(out: &mut Vec<u8>, write: &Write<Bytes>) {
    if let Some(HardState { term, voted_for }) = write.hard_state {
        out.put_u8(HARD_STATE);
        out.put_u64_le(term);
        out.put_u64_le(voted_for.unwrap_or(0));
    }
    for Entry { term, index, payload } in &write.entries {
        out.put_u8(match payload {
            Payload::Noop => NOOP,
            Payload::Data(_) => DATA,
        });
        out.put_u64_le(*term);
        out.put_u64_le(*index);
        if let Payload::Data(data) = payload {
            out.put_u32_le(data.len() as u32);
            out.put_slice(data);
        }
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
    };
    if reserved != 0 || header.generation != generation {
        return None;
    }
    let batch = bytes.get(..HEADER_BYTES + record_bytes)?;
    (crc32c::crc32c(&batch[UNCOVERED_BYTES..]) == crc).then(|| (header, &batch[HEADER_BYTES..]))
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
    let short = |_: TryGetError| "a record ends early".to_owned();
    let kind = records.try_get_u8().map_err(short)?;
    let term = records.try_get_u64_le().map_err(short)?;
    if kind == HARD_STATE {
        let vote = records.try_get_u64_le().map_err(short)?;
        return Ok(Record::HardState(HardState { term, voted_for: (vote != 0).then_some(vote) }));
    }
    let index = records.try_get_u64_le().map_err(short)?;
    let payload = match kind {
        NOOP => Payload::Noop,
        DATA => {
            let len = records.try_get_u32_le().map_err(short)? as usize;
            if len > records.len() {
                return Err("a record ends early".to_owned());
            }
            Payload::Data(records.split_to(len))
        }
        kind => return Err(format!("record kind {kind} is unknown to this version")),
    };
    Ok(Record::Entry(Entry { term, index, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { generation: 7, sequence: 3, durable_prefix: 2, segment_first: 1 };

    fn writes() -> Vec<Write<Bytes>> {
        let data = |term, index, data: &'static [u8]| Entry {
            term,
            index,
            payload: Payload::Data(Bytes::from_static(data)),
        };
        vec![
            Write {
                id: 1,
                hard_state: Some(HardState { term: 4, voted_for: Some(2) }),
                entries: vec![
                    Entry { term: 4, index: 9, payload: Payload::Noop },
                    data(4, 10, b"put"),
                ],
            },
            Write { id: 2, hard_state: None, entries: vec![data(4, 11, b"")] },
        ]
    }

    fn encoded() -> Vec<u8> {
        let writes = writes();
        let record_bytes = writes.iter().map(record_bytes).sum();
        BatchBuffer::default().encode(HEADER, &writes, record_bytes).to_vec()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = encoded();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let (header, records) = decode(&bytes, 7).expect("a whole batch");
        assert_eq!(header, HEADER);
        let expected: Vec<Record> = writes()
            .into_iter()
            .flat_map(|write| {
                let hard_state = write.hard_state.map(Record::HardState);
                hard_state.into_iter().chain(write.entries.into_iter().map(Record::Entry))
            })
            .collect();
        assert_eq!(decode_records(Bytes::copy_from_slice(records)).unwrap(), expected);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let bytes = encoded();
        let used = HEADER_BYTES + writes().iter().map(record_bytes).sum::<usize>();
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
        let mut buffer = BatchBuffer::default();
        let all = writes();
        let large = Write {
            id: 3,
            hard_state: None,
            entries: vec![Entry {
                term: 4,
                index: 12,
                payload: Payload::Data(Bytes::from(vec![0xff; 3 * BLOCK_BYTES])),
            }],
        };
        let bytes = buffer.encode(HEADER, std::slice::from_ref(&large), record_bytes(&large));
        assert_eq!(bytes.as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!(bytes.len(), 4 * BLOCK_BYTES);
        let bytes = buffer.encode(HEADER, &all, all.iter().map(record_bytes).sum());
        assert_eq!(bytes, encoded());
        assert_eq!(bytes.as_ptr().align_offset(BLOCK_BYTES), 0);
    }

    #[test]
    fn records_that_make_no_sense_are_errors() {
        for bytes in [&b"\x09aaaaaaaabbbbbbbb"[..], b"\x01aa", b"\x03aaaaaaaabbbbbbbb\xff\0\0\0x"] {
            assert!(decode_records(Bytes::from_static(bytes)).is_err());
        }
    }
}
