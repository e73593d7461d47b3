//! Memory that goes to the disk as it is.
//!
//! Invariant: the bytes start at an address that is a multiple of [`BLOCK_BYTES`], as writing past
//! the page cache needs it.

use super::BLOCK_BYTES;

/// Bytes for the disk; kept for the next ones when they are written.
#[derive(Debug, Default)]
pub struct Blocks {
    storage: Vec<u8>,
    /// Where in it the bytes begin.
    start: usize,
}

impl Blocks {
    /// An aligned copy, filled up to a whole block with zeros.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut blocks = Self::default();
        blocks.begin(bytes.len().next_multiple_of(BLOCK_BYTES));
        blocks.storage.extend_from_slice(bytes);
        blocks.pad();
        blocks
    }

    /// Begins anew, with room for `most_bytes`, so that nothing moves while they are put.
    pub(crate) fn begin(&mut self, most_bytes: usize) {
        self.storage.clear();
        // Room for the alignment too.
        self.storage.reserve(most_bytes + BLOCK_BYTES);
        self.start = self.storage.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        self.storage.resize(self.start, 0);
    }

    /// Where bytes are put behind those that are there. What lies before [`start`](Self::start) is
    /// not theirs.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.storage
    }

    /// Where in [`out`](Self::out) the bytes begin.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Puts zeros up to a whole block.
    pub(crate) fn pad(&mut self) {
        let bytes = self.storage.len() - self.start;
        self.storage.resize(self.start + bytes.next_multiple_of(BLOCK_BYTES), 0);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..]
    }

    /// Bytes of memory that it holds on to.
    pub(crate) fn capacity(&self) -> usize {
        self.storage.capacity()
    }
}
