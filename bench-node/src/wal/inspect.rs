//! A log as it lies on the disk, for people and for tests. Changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use raft::Payload;

use super::batch::{Record, decode_records};
use super::{WalError, scan};
use crate::disk::Disk;

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Its generation.
    pub generation: u64,
    /// The file's length.
    pub file_bytes: u64,
    /// Its whole batches, by offset; void ones too.
    pub batches: Vec<BatchView>,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    /// Where it starts.
    pub offset: u64,
    /// Its length without padding.
    pub bytes: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// The durable prefix that it records.
    pub durable_prefix: u64,
    /// Whether it lies behind a hole.
    pub behind_a_hole: bool,
    /// Its records, a line each; none are read behind a hole.
    pub records: Vec<String>,
}

/// Lists what the log in `dir` holds.
pub fn inspect<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<SegmentView>, WalError> {
    let view = |behind_a_hole| {
        move |batch: &scan::ScannedBatch| BatchView {
            offset: batch.offset,
            bytes: (super::batch::HEADER_BYTES + batch.record_bytes) as u64,
            sequence: batch.header.sequence,
            durable_prefix: batch.header.durable_prefix,
            behind_a_hole,
            records: decode_records(batch.records.clone())
                .map_or_else(|reason| vec![reason], |records| records.iter().map(line).collect()),
        }
    };
    let segments = scan::scan(disk, dir, false)?.segments.into_iter();
    Ok(segments
        .map(|segment| SegmentView {
            batches: segment
                .chain
                .iter()
                .map(view(false))
                .chain(segment.strays.iter().map(view(true)))
                .collect(),
            path: segment.path,
            number: segment.number,
            generation: segment.generation,
            file_bytes: segment.file_bytes,
        })
        .collect())
}

fn line(record: &Record) -> String {
    match record {
        Record::HardState(state) => match state.voted_for {
            Some(candidate) => format!("term {}, vote for {candidate}", state.term),
            None => format!("term {}, no vote", state.term),
        },
        Record::Entry(entry) => {
            let what = match &entry.payload {
                Payload::Noop => "noop".to_owned(),
                Payload::Data(data) => format!("{} bytes", data.len()),
            };
            format!("entry {} of term {}: {what}", entry.index, entry.term)
        }
    }
}

impl fmt::Display for SegmentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, number, generation, file_bytes, batches } = self;
        writeln!(
            f,
            "{}: segment {number}, generation {generation:016x}, {file_bytes} bytes",
            path.display()
        )?;
        for batch in batches {
            let hole = if batch.behind_a_hole { ", behind a hole" } else { "" };
            writeln!(
                f,
                "  at {}: batch {}, {} bytes, durable prefix {}{hole}",
                batch.offset, batch.sequence, batch.bytes, batch.durable_prefix
            )?;
            for record in &batch.records {
                writeln!(f, "    {record}")?;
            }
        }
        Ok(())
    }
}
