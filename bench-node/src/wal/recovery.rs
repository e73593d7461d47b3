//! Judges what a scan found: which batches count, where a torn tail begins, what is damage.
//!
//! Invariant: a log that lost or cannot read a batch which any batch records as durable is refused;
//! of every other log a prefix counts, which holds all that was ever acknowledged.
//!
//! How it decides. The first batch of a segment voids all batches of earlier segments with its
//! sequence number or a later one: so one batch, written at the next start into a segment of its
//! own, cuts a tail for good. Batches that are not void are taken in sequence until one is missing.
//! If any batch records the missing one as durable, that is damage; if none does, it was never
//! acknowledged, and what lies behind it is cut. (What a void batch records counts too: the start
//! that voided it kept all that it records.)

use std::path::PathBuf;

use bytes::Bytes;
use raft::{Entry, Index, Recovered, Write};

use super::batch::{self, Record};
use super::scan::{Scan, ScannedBatch, ScannedSegment};
use super::segment::FIRST_BATCH;
use super::{Cut, DamageKind, WalError};

/// What counts of a log.
pub(super) struct Recovery {
    pub(super) recovered: Recovered<Bytes>,
    /// The last batch that a batch records as durable.
    pub(super) durable_prefix: u64,
    /// All that the batches behind `durable_prefix` brought about. The next start writes it anew as
    /// batch `durable_prefix + 1`: it may be in the page cache only, and marked clean there by a
    /// sync that failed, so that syncing it again would prove nothing.
    pub(super) opening: Write<Bytes>,
    /// The torn tail, where there was one.
    pub(super) cut: Option<Cut>,
    /// Segments without anything that will count once `opening` is durable.
    pub(super) void: Vec<PathBuf>,
}

/// Decides what counts; an error means that the log must not be used.
pub(super) fn recover(scan: &Scan) -> Result<Recovery, WalError> {
    let segments = with_void_from(&scan.segments);
    let batches = scan.segments.iter().flat_map(ScannedSegment::batches);
    let durable_prefix = batches.map(|batch| batch.header.durable_prefix).max().unwrap_or(0);

    let mut replay = Replay::default();
    let mut next_sequence = 1;
    // Where the next batch belongs as far as is known, and whether anything lies there or behind.
    let mut end: Option<(PathBuf, u64)> = None;
    let mut torn = false;
    for (segment, void_from) in &segments {
        if segment.first().is_none() && *void_from == u64::MAX && segment.bytes_behind_chain {
            // Its first batch is torn, and nothing whole comes behind.
            torn = true;
            end = Some((segment.path.clone(), FIRST_BATCH));
            break;
        }
        let Some(first) = segment.first().filter(|first| first < void_from) else { continue };
        if first > next_sequence {
            torn = true;
            break;
        }
        end = Some((segment.path.clone(), FIRST_BATCH));
        for batch in segment.chain.iter().take_while(|batch| batch.header.sequence < *void_from) {
            replay.apply(segment, batch, batch.header.sequence > durable_prefix)?;
            next_sequence = batch.header.sequence + 1;
            end = Some((segment.path.clone(), batch.end()));
        }
        torn = *void_from == u64::MAX && segment.bytes_behind_chain;
        if segment.strays.iter().any(|stray| stray.header.sequence < *void_from) {
            torn = true;
            break;
        }
    }

    let (path, offset) = end.unwrap_or_else(|| {
        let first = scan.segments.first().map(|segment| segment.path.clone());
        (first.unwrap_or_default(), FIRST_BATCH)
    });
    if durable_prefix >= next_sequence {
        let kind = DamageKind::Batch { sequence: next_sequence, durable_prefix };
        return Err(WalError::Damaged { path, offset, kind });
    }
    let opening_sequence = durable_prefix + 1;
    let void = scan
        .segments
        .iter()
        .filter(|segment| match segment.first() {
            Some(first) => first >= opening_sequence,
            // What is torn is kept for people to look at, wherever it lies.
            None => !segment.bytes_behind_chain,
        })
        .map(|segment| segment.path.clone())
        .collect();
    Ok(Recovery {
        opening: replay.opening(),
        recovered: replay.recovered,
        durable_prefix,
        cut: torn.then_some(Cut { path, offset, sequence: next_sequence }),
        void,
    })
}

/// Each segment with the sequence number from which on its batches are void.
fn with_void_from(segments: &[ScannedSegment]) -> Vec<(&ScannedSegment, u64)> {
    let mut void_from = u64::MAX;
    let mut with_void_from: Vec<_> = segments
        .iter()
        .rev()
        .map(|segment| {
            let judged = (segment, void_from);
            void_from = segment.first().unwrap_or(u64::MAX).min(void_from);
            judged
        })
        .collect();
    with_void_from.reverse();
    with_void_from
}

#[derive(Default)]
struct Replay {
    recovered: Recovered<Bytes>,
    /// The first index that a batch behind the durable prefix set.
    rewrite_from: Option<Index>,
}

impl Replay {
    fn apply(
        &mut self,
        segment: &ScannedSegment,
        batch: &ScannedBatch,
        rewrite: bool,
    ) -> Result<(), WalError> {
        let damaged = |reason| WalError::Damaged {
            path: segment.path.clone(),
            offset: batch.offset,
            kind: DamageKind::Content { sequence: batch.header.sequence, reason },
        };
        for record in batch::decode_records(batch.records.clone()).map_err(damaged)? {
            match record {
                Record::HardState(hard_state) => self.recovered.hard_state = hard_state,
                Record::Entry(entry) => {
                    let last = self.recovered.entries.len() as Index;
                    if entry.index == 0 || entry.index > last + 1 {
                        let index = entry.index;
                        return Err(damaged(format!("entry {index} follows entry {last}")));
                    }
                    if rewrite {
                        let from = self.rewrite_from.get_or_insert(entry.index);
                        *from = entry.index.min(*from);
                    }
                    self.append(entry);
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry<Bytes>) {
        self.recovered.entries.truncate(entry.index as usize - 1);
        self.recovered.entries.push(entry);
    }

    fn opening(&self) -> Write<Bytes> {
        let entries = &self.recovered.entries;
        let kept = self.rewrite_from.map_or(entries.len(), |index| index as usize - 1);
        Write {
            id: 0,
            hard_state: Some(self.recovered.hard_state),
            entries: entries[kept..].to_vec(),
        }
    }
}
