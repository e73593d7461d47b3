//! A log as it lies on the disk, for people and for tests. Changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use raft::Payload;

use super::batch::{Change, Record, decode_records};
use super::{Options, WalError, scan};
use crate::disk::Disk;

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Its generation; an `Err` says what is wrong with its first block.
    pub generation: Result<u64, String>,
    /// The number of the segment that the start which made it opened with; 0 where that cannot be
    /// read.
    pub opening: u64,
    /// Up to here the file's earlier use may have left bytes behind; 0 in a new file.
    pub stale_bytes: u64,
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
    /// The first batch that it records as needed.
    pub needed_from: u64,
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
            needed_from: batch.header.needed_from,
            behind_a_hole,
            records: decode_records(batch.records.clone())
                .map_or_else(|reason| vec![reason], |records| records.iter().map(line).collect()),
        }
    };
    let segments = scan::scan(disk, dir, false, &Options::default())?.segments.into_iter();
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
            opening: segment.header.as_ref().map_or(0, |header| header.opening),
            stale_bytes: segment.header.as_ref().map_or(0, |header| header.stale_bytes),
            generation: segment.header.map(|header| header.generation),
            file_bytes: segment.file_bytes,
        })
        .collect())
}

fn line(Record { group, change }: &Record) -> String {
    let what = match change {
        Change::HardState(state) => match state.voted_for {
            Some(candidate) => format!("term {}, vote for {candidate}", state.term),
            None => format!("term {}, no vote", state.term),
        },
        Change::Base { base, keeps_rest } => {
            let rest = if *keeps_rest { "stays" } else { "goes" };
            format!("base {} of term {}, what is behind it {rest}", base.index, base.term)
        }
        Change::Entry(entry) => {
            let what = match &entry.payload {
                Payload::Noop => "noop".to_owned(),
                Payload::Data(data) => format!("{} bytes", data.len()),
                Payload::Membership(membership) => format!(
                    "voters {:?}, outgoing {:?}, learners {:?}",
                    membership.voters, membership.outgoing, membership.learners
                ),
            };
            format!("entry {} of term {}: {what}", entry.index, entry.term)
        }
    };
    format!("group {group}: {what}")
}

impl fmt::Display for SegmentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, number, generation, opening, stale_bytes, file_bytes, batches } = self;
        let path = path.display();
        match generation {
            Ok(generation) => writeln!(
                f,
                "{path}: segment {number} of the start that opened with {opening}, generation \
                 {generation:016x}, {file_bytes} bytes, {stale_bytes} of them recycled"
            )?,
            Err(reason) => writeln!(f, "{path}: {file_bytes} bytes: {reason}")?,
        }
        for batch in batches {
            let hole = if batch.behind_a_hole { ", behind a hole" } else { "" };
            writeln!(
                f,
                "  at {}: batch {}, {} bytes, durable prefix {}, needed from {}{hole}",
                batch.offset, batch.sequence, batch.bytes, batch.durable_prefix, batch.needed_from
            )?;
            for record in &batch.records {
                writeln!(f, "    {record}")?;
            }
        }
        Ok(())
    }
}
