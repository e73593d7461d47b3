//! Judges what a scan found: which batches count, where a torn tail begins, what is damage.
//!
//! Invariant: a log that lost or cannot read a batch which any batch records as durable, and none
//! as no longer needed, is refused; of every other log a prefix counts, which holds all that was
//! ever acknowledged.
//!
//! How it decides. What any batch records as no longer needed is left out, whether it is there or
//! not. The first batch of a segment voids all batches of earlier segments with its sequence number
//! or a later one: so one batch, written at the next start into a segment of its own, cuts a tail
//! for good. Batches that are not void are taken in sequence until one is missing. If any batch
//! records the missing one as durable, that is damage; if none does, it was never acknowledged, and
//! what lies behind it is cut. What a void batch records counts up to where it is void: it may have
//! landed after the start that voided it had looked (a write that outlives its process), and then
//! speaks of batches whose numbers have been given anew. What that start did see, its opening batch
//! records.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::batch::Header;
use super::groups::Groups;
use super::replay::{GroupLog, Opening, Replay};
use super::scan::{Scan, ScannedBatch, ScannedSegment};
use super::segment::FIRST_BATCH;
use super::{Cut, DamageKind, Options, WalError};
use crate::GroupId;

/// What counts of a log.
pub(super) struct Recovery {
    pub(super) recovered: BTreeMap<GroupId, GroupLog>,
    /// Where what was recovered lies, but for what `opening` holds.
    pub(super) groups: Groups,
    /// The last batch that a batch records as durable.
    pub(super) durable_prefix: u64,
    /// The first batch that is needed, as far as the batches record it.
    pub(super) needed_from: u64,
    /// All that the batches behind `durable_prefix` brought about. The next start writes it anew as
    /// batch `durable_prefix + 1`: it may be in the page cache only, and marked clean there by a
    /// sync that failed, so that syncing it again would prove nothing.
    pub(super) opening: Opening,
    /// The torn tail, where there was one.
    pub(super) cut: Option<Cut>,
    /// The segments that stay, with the sequence number of their first batch, if there is one left.
    pub(super) kept: Vec<(u64, Option<u64>)>,
    /// Segments without anything that will count once `opening` is durable.
    pub(super) void: Vec<PathBuf>,
}

/// Decides what counts; an error means that the log must not be used.
pub(super) fn recover(scan: &Scan, options: &Options) -> Result<Recovery, WalError> {
    let segments = with_void_from(&scan.segments, options);
    let headers = || {
        segments.iter().flat_map(|(segment, void_from)| {
            segment.batches().map(move |batch| (batch.header, *void_from))
        })
    };
    let recorded = |(header, void_from): (Header, u64)| match header.sequence < void_from {
        true => (header.durable_prefix, header.needed_from),
        false => (header.durable_prefix.min(void_from - 1), 1),
    };
    let durable_prefix = headers().map(|header| recorded(header).0).max().unwrap_or(0);
    let needed_from = headers().map(|header| recorded(header).1).max().unwrap_or(1).max(1);
    refuse_damaged_headers(scan, needed_from)?;

    let mut counted: Vec<(&ScannedSegment, &ScannedBatch)> = Vec::new();
    let mut next_sequence = needed_from;
    // Where the next batch belongs as far as is known, and whether anything lies there or behind.
    let mut end: Option<(PathBuf, u64)> = None;
    let mut torn = false;
    for (segment, void_from) in &segments {
        if segment.first().is_none() && *void_from == u64::MAX && segment.torn_behind_chain {
            // Its first batch is torn, and nothing whole comes behind.
            torn = true;
            end = Some((segment.path.clone(), FIRST_BATCH));
            break;
        }
        // The first batch that is needed is always a segment's first.
        let counts = |first: &u64| first < void_from && *first >= needed_from;
        let Some(first) = segment.first().filter(counts) else { continue };
        if first > next_sequence {
            torn = true;
            break;
        }
        refuse_missing_opening(counted.last().map(|(before, _)| *before), segment)?;
        end = Some((segment.path.clone(), FIRST_BATCH));
        for batch in segment.chain.iter().take_while(|batch| batch.header.sequence < *void_from) {
            counted.push((segment, batch));
            next_sequence = batch.header.sequence + 1;
            end = Some((segment.path.clone(), batch.end()));
        }
        torn = *void_from == u64::MAX && segment.torn_behind_chain;
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
    // What is not known to be durable is written anew, behind what is.
    let trusted = if options.trusts_the_cache() { next_sequence - 1 } else { durable_prefix };
    let replay = Replay::run(&counted, trusted)?;
    let goes = |segment: &ScannedSegment| match segment.first() {
        Some(first) => first > trusted,
        // What is torn is kept for people to look at, until it is older than all that is needed.
        None => segment.header.is_ok() && !segment.torn_behind_chain,
    };
    let (void, kept): (Vec<_>, Vec<_>) = scan.segments.iter().partition(|segment| goes(segment));
    Ok(Recovery {
        recovered: replay.recovered,
        groups: replay.groups,
        opening: replay.opening,
        durable_prefix: trusted,
        needed_from,
        cut: torn.then_some(Cut { path, offset, sequence: next_sequence }),
        kept: kept.into_iter().map(|segment| (segment.number, segment.first())).collect(),
        void: void.into_iter().map(|segment| segment.path.clone()).collect(),
    })
}

/// A segment whose first block is damaged cannot be read. That does no harm where it is older than
/// the one that holds the first batch that is needed.
fn refuse_damaged_headers(scan: &Scan, needed_from: u64) -> Result<(), WalError> {
    let needed = scan.segments.iter().find(|segment| segment.first() == Some(needed_from));
    for segment in &scan.segments {
        if let Err(reason) = &segment.header
            && needed.is_none_or(|needed| segment.number > needed.number)
        {
            let kind = DamageKind::SegmentHeader { reason: reason.clone() };
            return Err(WalError::Damaged { path: segment.path.clone(), offset: 0, kind });
        }
    }
    Ok(())
}

/// The segment that a start opened with voids what came before from its sequence number on. Where
/// it is missing, what it voided would count again and may fill the gap that it leaves.
fn refuse_missing_opening(
    before: Option<&ScannedSegment>,
    segment: &ScannedSegment,
) -> Result<(), WalError> {
    let opening = |segment: &ScannedSegment| segment.header.as_ref().ok().map(|h| h.opening);
    let Some(before) = before else { return Ok(()) };
    match opening(segment) {
        Some(number) if number != segment.number && opening(before) != Some(number) => {
            let kind = DamageKind::MissingSegment { number };
            Err(WalError::Damaged { path: segment.path.clone(), offset: 0, kind })
        }
        _ => Ok(()),
    }
}

/// Each segment with the sequence number from which on its batches are void.
fn with_void_from<'a>(
    segments: &'a [ScannedSegment],
    options: &Options,
) -> Vec<(&'a ScannedSegment, u64)> {
    let mut void_from = u64::MAX;
    let mut with_void_from: Vec<_> = segments
        .iter()
        .rev()
        .map(|segment| {
            let judged = (segment, void_from);
            if !options.keeps_torn_tail() {
                void_from = segment.first().unwrap_or(u64::MAX).min(void_from);
            }
            judged
        })
        .collect();
    with_void_from.reverse();
    with_void_from
}
