//! From the batches that count to what each group's log holds.
//!
//! Invariant: the result is what the log held behind its last batch, for each group without what
//! lies at or below its base. It is so from wherever the batches begin, as long as no entry behind
//! a base lies before: so segments can be released.
//!
//! That is why the last bases are looked up first. What comes before a base may be known in part
//! only, and is not needed: an entry at or below it says no more than that nothing behind it was
//! there at that moment.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{Entry, EntryId, HardState, Index};

use super::batch::{self, Change, Record};
use super::groups::Groups;
use super::scan::{ScannedBatch, ScannedSegment};
use super::{DamageKind, WalError};
use crate::GroupId;

/// What a log holds of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// Term and vote.
    pub hard_state: HardState,
    /// A snapshot took the place of the log up to this entry; index 0 where none did.
    pub base: EntryId,
    /// The entries behind the base, consecutive.
    pub entries: Vec<Entry<Bytes>>,
}

impl GroupLog {
    /// The last index: the base's where nothing lies behind it.
    pub fn last_index(&self) -> Index {
        self.entries.last().map_or(self.base.index, |entry| entry.index)
    }

    /// Puts a snapshot in the place of the log up to `base`, as [`raft::Write::base`] does: for a
    /// member whose newest snapshot is newer than its log's base, because it stopped in between.
    /// One that is older than the base changes nothing.
    pub fn rebase(&mut self, base: EntryId) {
        if base.index <= self.base.index {
            return;
        }
        let covered = (base.index - self.base.index) as usize;
        let held = self.entries.get(covered - 1).is_some_and(|entry| entry.term == base.term);
        self.entries.drain(..if held { covered } else { self.entries.len() });
        self.base = base;
    }
}

/// What a start writes first: terms, votes and bases of all groups, and the entries that are not
/// known to be durable.
pub(super) type Opening = Vec<Record>;

/// What batches come to.
pub(super) struct Replay {
    pub(super) recovered: BTreeMap<GroupId, GroupLog>,
    pub(super) groups: Groups,
    pub(super) opening: Opening,
}

/// A batch, decoded.
struct Decoded<'a> {
    segment: &'a ScannedSegment,
    batch: &'a ScannedBatch,
    records: Vec<Record>,
}

impl Decoded<'_> {
    fn damaged(&self, reason: String) -> WalError {
        WalError::Damaged {
            path: self.segment.path.clone(),
            offset: self.batch.offset,
            kind: DamageKind::Content { sequence: self.batch.header.sequence, reason },
        }
    }
}

impl Replay {
    /// Replays `counted`, which are consecutive; those behind `durable_prefix` go into the opening.
    pub(super) fn run(
        counted: &[(&ScannedSegment, &ScannedBatch)],
        durable_prefix: u64,
    ) -> Result<Self, WalError> {
        let mut batches = Vec::with_capacity(counted.len());
        let mut states: BTreeMap<GroupId, State> = BTreeMap::new();
        for &(segment, batch) in counted {
            let mut decoded = Decoded { segment, batch, records: Vec::new() };
            decoded.records = batch::decode_records(batch.records.clone())
                .map_err(|reason| decoded.damaged(reason))?;
            for record in &decoded.records {
                let state = states.entry(record.group).or_default();
                if let Change::Base { base, .. } = record.change {
                    state.log.base = base;
                }
            }
            batches.push(decoded);
        }

        let mut groups = Groups::default();
        for (id, state) in &states {
            groups.change(*id, |group| group.set_base(state.log.base, true));
        }
        for batch in &mut batches {
            let rewrite = batch.batch.header.sequence > durable_prefix;
            for record in std::mem::take(&mut batch.records) {
                groups.record(&record, batch.segment.number);
                let state = states.get_mut(&record.group).expect("each group has been seen");
                let applied = state.apply(record.change, rewrite);
                applied.map_err(|reason| {
                    batch.damaged(format!("of group {}, {reason}", record.group))
                })?;
            }
        }
        for (group, state) in &states {
            let (base, first) = (state.log.base.index, state.first);
            if !state.log.entries.is_empty() && first != base + 1 {
                let reason = format!("of group {group}, entry {first} follows entry {base}");
                let last = batches.last().expect("a group has been seen");
                return Err(last.damaged(reason));
            }
        }
        let opening = states.iter().flat_map(|(group, state)| state.opening(*group)).collect();
        let recovered = states.into_iter().map(|(group, state)| (group, state.log)).collect();
        Ok(Self { recovered, groups, opening })
    }
}

/// A group while its records are replayed; the log has its last base from the beginning.
#[derive(Default)]
struct State {
    log: GroupLog,
    /// The first entry's index, where there is an entry.
    first: Index,
    /// The first index that a batch behind the durable prefix set.
    rewrite_from: Option<Index>,
    /// Whether such a batch left nothing of what was behind the base.
    cleared: bool,
}

impl State {
    fn apply(&mut self, change: Change, rewrite: bool) -> Result<(), String> {
        match change {
            Change::HardState(hard_state) => self.log.hard_state = hard_state,
            Change::Base { keeps_rest, .. } => {
                if !keeps_rest {
                    self.clear(rewrite);
                }
            }
            Change::Entry(entry) if entry.index <= self.log.base.index => self.clear(rewrite),
            Change::Entry(entry) => {
                if rewrite {
                    let from = self.rewrite_from.get_or_insert(entry.index);
                    *from = entry.index.min(*from);
                }
                self.append(entry)?;
            }
        }
        Ok(())
    }

    fn clear(&mut self, rewrite: bool) {
        self.log.entries.clear();
        self.cleared |= rewrite;
    }

    fn append(&mut self, entry: Entry<Bytes>) -> Result<(), String> {
        let entries = &mut self.log.entries;
        if entries.is_empty() || entry.index < self.first {
            entries.clear();
            // Not behind the base, maybe: if what is between was in a segment that was released,
            // this entry is replaced further on.
            self.first = entry.index;
        }
        let at = entry.index - self.first;
        if at > entries.len() as u64 {
            let last = self.first + entries.len() as u64 - 1;
            return Err(format!("entry {} follows entry {last}", entry.index));
        }
        entries.truncate(at as usize);
        entries.push(entry);
        Ok(())
    }

    fn opening(&self, group: GroupId) -> impl Iterator<Item = Record> {
        let GroupLog { hard_state, base, entries } = &self.log;
        let kept = match self.rewrite_from {
            Some(index) => (index.saturating_sub(self.first) as usize).min(entries.len()),
            None => entries.len(),
        };
        let hard_state =
            (*hard_state != HardState::default()).then_some(Change::HardState(*hard_state));
        let base = (*base != EntryId::default())
            .then_some(Change::Base { base: *base, keeps_rest: !self.cleared });
        let entries = entries[kept..].iter().cloned().map(Change::Entry);
        let changes = hard_state.into_iter().chain(base).chain(entries);
        changes.map(move |change| Record { group, change })
    }
}
