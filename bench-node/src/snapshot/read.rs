//! Reads a snapshot from its file, part by part, and believes nothing that no checksum covers.
//!
//! Invariant: what is yielded was checked; a snapshot counts as whole only after its footer
//! matched all that came before.

use std::path::Path;

use bytes::Bytes;

use super::error::ReadError;
use super::format::{
    self, BLOCK_START_BYTES, BlockStart, FOOTER_BYTES, Footer, HEADER_START_BYTES, HeaderError,
    Next,
};
use super::{Snapshot, SnapshotError, SnapshotId, SnapshotMeta};
use crate::disk::DiskFile;
use crate::kv::Record;

/// Reads one file from its beginning.
pub(super) struct Reader<'a, F> {
    file: &'a F,
    /// Where the snapshot may reach to.
    end: u64,
    /// Up to here all is whole.
    at: u64,
    meta: SnapshotMeta,
    /// Of the parts so far.
    seen: Footer,
    footer: Option<Footer>,
}

/// A block's records.
struct Block {
    offset: u64,
    records: u32,
    bytes: Bytes,
}

impl<'a, F: DiskFile> Reader<'a, F> {
    /// Reads the header of a snapshot that fills a file.
    pub(super) fn open(file: &'a F) -> Result<Self, SnapshotError> {
        Self::open_up_to(file, file.len()?)
    }

    /// Reads the header of a snapshot that may reach to `end`.
    pub(super) fn open_up_to(file: &'a F, end: u64) -> Result<Self, SnapshotError> {
        let damaged = |reason| SnapshotError::damaged(file.path(), 0, reason);
        let start: [u8; HEADER_START_BYTES] =
            read_array(file, 0, end)?.ok_or_else(|| damaged(ENDS_EARLY))?;
        let bytes = format::header_bytes(&start).map_err(|error| match error {
            HeaderError::Version(found) => {
                SnapshotError::Version { path: file.path().to_owned(), found }
            }
            HeaderError::Damaged(reason) => damaged(reason),
        })?;
        let header = read(file, 0, bytes, end)?.ok_or_else(|| damaged(ENDS_EARLY))?;
        let crc = crc32c::crc32c(&header);
        let meta = format::decode_header(header).map_err(damaged)?;
        let seen = Footer { blocks: 0, records: 0, bytes: 0, crc };
        Ok(Self { file, end, at: bytes as u64, meta, seen, footer: None })
    }

    pub(super) fn path(&self) -> &'a Path {
        self.file.path()
    }

    pub(super) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The records to the end; an error is the last thing that comes.
    pub(super) fn records(&mut self) -> impl Iterator<Item = Result<(Bytes, Record), ReadError>> {
        Records { reader: self, block: None, left: 0, failed: false }
    }

    /// Reads to the end.
    pub(super) fn read_through(&mut self) -> Result<(), SnapshotError> {
        let path = self.path();
        self.records().try_for_each(|record| record.map(drop)).map_err(|error| error.at(path))
    }

    /// What it is, after it was read to the end; the file ends with it.
    pub(super) fn finish(self) -> Result<Snapshot, SnapshotError> {
        if self.footer.is_some() && self.at < self.end {
            return Err(self.damaged("there are bytes behind the footer"));
        }
        self.finish_padded()
    }

    /// As [`Reader::finish`], where zeros may follow.
    pub(super) fn finish_padded(self) -> Result<Snapshot, SnapshotError> {
        let Some(footer) = self.footer else {
            return Err(self.damaged("it was not read to its footer"));
        };
        let mut at = self.at;
        while at < self.end {
            let bytes = (self.end - at).min(4096) as usize;
            let padding = read(self.file, at, bytes, self.end)?.unwrap_or_default();
            if padding.iter().any(|&byte| byte != 0) {
                return Err(self.damaged("there are bytes behind the footer"));
            }
            at += bytes as u64;
        }
        let SnapshotMeta { group, last_included, .. } = self.meta;
        Ok(Snapshot {
            id: SnapshotId { group, last_included, bytes: footer.bytes, crc: footer.crc },
            path: self.path().to_owned(),
            records: footer.records,
            meta: self.meta,
        })
    }

    /// The next block; `None` once the footer was reached, and matches.
    fn next_block(&mut self) -> Result<Option<Block>, SnapshotError> {
        if self.footer.is_some() {
            return Ok(None);
        }
        let start: [u8; BLOCK_START_BYTES] =
            read_array(self.file, self.at, self.end)?.ok_or_else(|| self.damaged(ENDS_EARLY))?;
        match format::decode_next(&start) {
            Some(Next::Block(start)) => self.read_block(&start).map(Some),
            Some(Next::Footer) => self.read_footer().map(|()| None),
            None => Err(self.damaged("neither a block nor the footer is here")),
        }
    }

    fn read_block(&mut self, start: &BlockStart) -> Result<Block, SnapshotError> {
        let bytes = BLOCK_START_BYTES + start.record_bytes;
        let block =
            read(self.file, self.at, bytes, self.end)?.ok_or_else(|| self.damaged(ENDS_EARLY))?;
        if !format::block_is_whole(&block, start) {
            return Err(self.damaged("a block's checksum does not match"));
        }
        if start.number != self.seen.blocks + 1 {
            let (found, expected) = (start.number, self.seen.blocks + 1);
            return Err(self.damaged(format!("block {found} is where block {expected} belongs")));
        }
        let offset = self.at;
        self.seen.blocks += 1;
        self.seen.records += u64::from(start.records);
        self.seen.crc = crc32c::crc32c_append(self.seen.crc, &block);
        self.at += bytes as u64;
        Ok(Block { offset, records: start.records, bytes: block.slice(BLOCK_START_BYTES..) })
    }

    fn read_footer(&mut self) -> Result<(), SnapshotError> {
        let footer: Option<[u8; FOOTER_BYTES]> = read_array(self.file, self.at, self.end)?;
        let footer = footer.ok_or_else(|| self.damaged(ENDS_EARLY))?;
        let footer = format::decode_footer(&footer)
            .ok_or_else(|| self.damaged("the footer's checksum does not match"))?;
        let seen = Footer { bytes: self.at + FOOTER_BYTES as u64, ..self.seen };
        if footer != seen {
            return Err(self.damaged("the footer does not match what is before it"));
        }
        self.at = footer.bytes;
        self.footer = Some(footer);
        Ok(())
    }

    fn damaged(&self, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::damaged(self.path(), self.at, reason)
    }
}

const ENDS_EARLY: &str = "the file ends early";

struct Records<'r, 'a, F> {
    reader: &'r mut Reader<'a, F>,
    block: Option<Block>,
    /// Records that are still in the block.
    left: u32,
    failed: bool,
}

impl<F: DiskFile> Records<'_, '_, F> {
    fn take(&mut self) -> Result<Option<(Bytes, Record)>, SnapshotError> {
        loop {
            if let Some(block) = &mut self.block {
                if self.left > 0
                    && let Some(record) = format::take_record(&mut block.bytes)
                {
                    self.left -= 1;
                    return Ok(Some(record));
                }
                if self.left > 0 || !block.bytes.is_empty() {
                    let (path, offset) = (self.reader.path(), block.offset);
                    let reason = "a block matches its checksum and makes no sense";
                    return Err(SnapshotError::damaged(path, offset, reason));
                }
            }
            self.block = self.reader.next_block()?;
            let Some(block) = &self.block else { return Ok(None) };
            self.left = block.records;
        }
    }
}

impl<F: DiskFile> Iterator for Records<'_, '_, F> {
    type Item = Result<(Bytes, Record), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.take().map_err(ReadError::Snapshot).transpose();
        self.failed = matches!(record, Some(Err(_)));
        record
    }
}

/// Bytes of a file; `None` where they would reach beyond `end`.
fn read<F: DiskFile>(
    file: &F,
    at: u64,
    bytes: usize,
    end: u64,
) -> Result<Option<Bytes>, SnapshotError> {
    if bytes as u64 > end.saturating_sub(at) {
        return Ok(None);
    }
    let mut buffer = vec![0; bytes];
    file.read_at(at, &mut buffer)?;
    Ok(Some(buffer.into()))
}

fn read_array<const N: usize, F: DiskFile>(
    file: &F,
    at: u64,
    end: u64,
) -> Result<Option<[u8; N]>, SnapshotError> {
    if N as u64 > end.saturating_sub(at) {
        return Ok(None);
    }
    let mut array = [0; N];
    file.read_at(at, &mut array)?;
    Ok(Some(array))
}

/// Id and header of a snapshot's file that was checked earlier, from its two ends.
pub(super) fn read_ends<F: DiskFile>(file: &F) -> Result<Snapshot, SnapshotError> {
    let reader = Reader::open(file)?;
    let len = file.len()?;
    let footer_at = len.saturating_sub(FOOTER_BYTES as u64);
    let footer =
        read_array(file, footer_at, len)?.and_then(|footer| format::decode_footer(&footer));
    match footer {
        Some(footer) if footer.bytes == len => {
            Reader { footer: Some(footer), at: len, ..reader }.finish()
        }
        _ => Err(SnapshotError::damaged(file.path(), footer_at, "the footer does not match")),
    }
}
