//! From a frozen store to a snapshot's bytes, a part at a time.
//!
//! Invariant: takes memory for one part, whatever the store holds; equal states make equal bytes.

use bytes::Bytes;

use super::format::{self, BlockEncoder, FOOTER_BYTES, Footer};
use super::{SnapshotId, SnapshotMeta};
use crate::kv::Frozen;

/// Yields a snapshot's parts in order: the header, the blocks, the footer.
pub(super) struct Encoder {
    meta: SnapshotMeta,
    frozen: Frozen,
    block_bytes: usize,
    state: State,
    /// Of the parts so far.
    footer: Footer,
}

enum State {
    Header,
    /// Behind this key.
    Records(Option<Bytes>),
    Done,
}

impl Encoder {
    /// `meta.store` is taken from the frozen store.
    pub(super) fn new(mut meta: SnapshotMeta, frozen: Frozen, block_bytes: usize) -> Self {
        meta.store = frozen.header();
        let footer = Footer { blocks: 0, records: 0, bytes: 0, crc: 0 };
        Self { meta, frozen, block_bytes, state: State::Header, footer }
    }

    /// The snapshot's id and how many records it has, once all parts were yielded.
    pub(super) fn result(&self) -> Option<(SnapshotId, u64)> {
        let Footer { bytes, crc, records, .. } = self.footer;
        let SnapshotMeta { group, last_included, .. } = self.meta;
        let done = matches!(self.state, State::Done);
        done.then_some((SnapshotId { group, last_included, bytes, crc }, records))
    }

    pub(super) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn block(&mut self, after: Option<&Bytes>) -> Option<(Bytes, Bytes)> {
        let mut block = BlockEncoder::new(self.block_bytes);
        let mut last = None;
        for (key, record) in self.frozen.records_after(after) {
            block.put(key, record);
            last = Some(key.clone());
            if block.len() >= self.block_bytes {
                break;
            }
        }
        let last = last?;
        self.footer.blocks += 1;
        self.footer.records += u64::from(block.records());
        Some((block.finish(self.footer.blocks), last))
    }
}

impl Iterator for Encoder {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (part, state) = match std::mem::replace(&mut self.state, State::Done) {
            State::Done => return None,
            State::Header => (format::encode_header(&self.meta), State::Records(None)),
            State::Records(after) => match self.block(after.as_ref()) {
                Some((block, last)) => (block, State::Records(Some(last))),
                None => {
                    self.footer.bytes += FOOTER_BYTES as u64;
                    return Some(format::encode_footer(&self.footer));
                }
            },
        };
        self.state = state;
        self.footer.bytes += part.len() as u64;
        self.footer.crc = crc32c::crc32c_append(self.footer.crc, &part);
        Some(part)
    }
}
