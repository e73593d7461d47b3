//! What the log holds of each group, without the entries: term, vote, base, and in which segment
//! which entries lie. So it knows which segments are still needed.
//!
//! Invariant: a segment counts as needed as long as it holds an entry that a start would give back:
//! one behind its group's base that no later entry replaced. Term, vote and base need no older
//! segment: the first batch of each segment states them anew.
//!
//! The same bookkeeping serves appending and recovery, so that both agree on what is needed.

use std::collections::{BTreeMap, VecDeque};

use raft::{Entry, EntryId, HardState, Index, Term, Write};

use super::batch::{Change, Record};
use crate::GroupId;

/// All groups.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    /// By segment: for how many groups it is the oldest one needed.
    oldest_of: BTreeMap<u64, usize>,
}

/// One group.
#[derive(Default)]
pub(super) struct Group {
    hard_state: HardState,
    base: EntryId,
    /// Where the entries behind the base lie: consecutive, without overlap, in ascending order of
    /// indexes and of segments.
    spans: VecDeque<Span>,
}

/// Entries of one term in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    segment: u64,
    term: Term,
    first: Index,
    last: Index,
}

impl Groups {
    /// Notes a write whose entries go into `segment`. Whether what the log holds behind the
    /// write's base stays; an `Err` says how the write contradicts the log.
    pub(super) fn write<D>(
        &mut self,
        group: GroupId,
        write: &Write<D>,
        segment: u64,
    ) -> Result<bool, String> {
        self.change(group, |group| {
            group.hard_state = write.hard_state.unwrap_or(group.hard_state);
            let mut keeps_rest = true;
            if let Some(base) = write.base {
                if base.index < group.base.index {
                    let (old, new) = (group.base.index, base.index);
                    return Err(format!("its base goes back from entry {old} to entry {new}"));
                }
                keeps_rest = group.term(base.index) == Some(base.term);
                group.set_base(base, keeps_rest);
            }
            let mut next = None;
            for entry in &write.entries {
                let last = group.last_index();
                let follows = next.is_none_or(|next| entry.index == next);
                if entry.index == 0 || entry.index > last + 1 || !follows {
                    return Err(format!("entry {} follows entry {last}", entry.index));
                }
                group.append(EntryId { index: entry.index, term: entry.term }, segment);
                next = Some(entry.index + 1);
            }
            Ok(keeps_rest)
        })
    }

    /// Notes a record of `segment`.
    pub(super) fn record(&mut self, record: &Record, segment: u64) {
        self.change(record.group, |group| match &record.change {
            Change::HardState(hard_state) => group.hard_state = *hard_state,
            Change::Base { base, keeps_rest } => group.set_base(*base, *keeps_rest),
            Change::Entry(Entry { index, term, .. }) => {
                group.append(EntryId { index: *index, term: *term }, segment);
            }
        });
    }

    /// Changes a group, which is made where it is missing, and keeps count.
    pub(super) fn change<T>(&mut self, id: GroupId, change: impl FnOnce(&mut Group) -> T) -> T {
        let group = self.groups.entry(id).or_default();
        let before = group.oldest_segment();
        let result = change(group);
        let after = group.oldest_segment();
        if before != after {
            if let Some(segment) = after {
                *self.oldest_of.entry(segment).or_default() += 1;
            }
            if let Some(segment) = before
                && let Some(count) = self.oldest_of.get_mut(&segment)
            {
                *count -= 1;
                if *count == 0 {
                    self.oldest_of.remove(&segment);
                }
            }
        }
        result
    }

    /// The oldest segment that holds an entry which is still needed.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.oldest_of.first_key_value().map(|(segment, _)| *segment)
    }

    /// The groups that need `segment`, with the last index that a base would have to reach so that
    /// they need it no longer.
    pub(super) fn needing(&self, segment: u64) -> impl Iterator<Item = (GroupId, Index)> {
        self.groups.iter().filter_map(move |(id, group)| {
            let inside = group.spans.iter().take_while(|span| span.segment <= segment);
            inside.last().map(|span| (*id, span.last))
        })
    }

    /// Term, vote and base of all groups: what the first batch of a segment opens with.
    pub(super) fn standing(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (&group, state) in &self.groups {
            let mut push = |change| records.push(Record { group, change });
            if state.hard_state != HardState::default() {
                push(Change::HardState(state.hard_state));
            }
            if state.base != EntryId::default() {
                push(Change::Base { base: state.base, keeps_rest: true });
            }
        }
        records
    }
}

impl Group {
    /// The last index: the base's where nothing lies behind it.
    pub(super) fn last_index(&self) -> Index {
        self.spans.back().map_or(self.base.index, |span| span.last)
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let at = self.spans.partition_point(|span| span.last < index);
        self.spans.get(at).filter(|span| span.first <= index).map(|span| span.term)
    }

    /// A snapshot took the place of all up to `base`. (A base never goes back.)
    pub(super) fn set_base(&mut self, base: EntryId, keeps_rest: bool) {
        if base.index >= self.base.index {
            self.base = base;
        }
        if !keeps_rest {
            self.spans.clear();
        }
        let from = self.base.index + 1;
        while self.spans.pop_front_if(|span| span.last < from).is_some() {}
        if let Some(front) = self.spans.front_mut() {
            front.first = front.first.max(from);
        }
    }

    /// An entry went into `segment`; it replaces what was at its index and behind. One at or below
    /// the base leaves nothing behind the base.
    pub(super) fn append(&mut self, EntryId { index, term }: EntryId, segment: u64) {
        while self.spans.pop_back_if(|span| span.first >= index).is_some() {}
        if let Some(back) = self.spans.back_mut() {
            back.last = back.last.min(index - 1);
        }
        if index <= self.base.index {
            return;
        }
        match self.spans.back_mut() {
            Some(back) if (back.segment, back.term) == (segment, term) => back.last = index,
            _ => self.spans.push_back(Span { segment, term, first: index, last: index }),
        }
    }

    fn oldest_segment(&self) -> Option<u64> {
        self.spans.front().map(|span| span.segment)
    }
}

#[cfg(test)]
mod tests {
    use raft::Payload;

    use super::*;

    fn write(
        base: Option<(Index, Term)>,
        term: Term,
        indexes: std::ops::Range<Index>,
    ) -> Write<()> {
        Write {
            id: 1,
            hard_state: None,
            base: base.map(|(index, term)| EntryId { index, term }),
            entries: indexes.map(|index| Entry { term, index, payload: Payload::Noop }).collect(),
        }
    }

    #[test]
    fn a_segment_is_needed_until_every_entry_in_it_is_replaced_or_below_a_base() {
        let mut groups = Groups::default();
        groups.write(1, &write(None, 1, 1..10), 1).unwrap();
        groups.write(2, &write(None, 1, 1..3), 1).unwrap();
        groups.write(1, &write(None, 1, 10..20), 2).unwrap();
        assert_eq!(groups.needing(1).collect::<Vec<_>>(), [(1, 9), (2, 2)]);
        groups.write(1, &write(Some((9, 1)), 1, 20..20), 2).unwrap();
        assert_eq!(groups.oldest_segment(), Some(1), "group 2 has entries there");
        groups.write(2, &write(None, 2, 1..2), 3).unwrap();
        assert_eq!(groups.oldest_segment(), Some(2), "group 2's were replaced");
        groups.write(1, &write(Some((19, 1)), 1, 0..0), 3).unwrap();
        assert_eq!(groups.oldest_segment(), Some(3));
        groups.write(2, &write(Some((1, 2)), 1, 0..0), 4).unwrap();
        assert_eq!(groups.oldest_segment(), None);
    }

    #[test]
    fn a_base_keeps_what_follows_where_the_log_holds_that_very_entry() {
        let mut groups = Groups::default();
        groups.write(1, &write(None, 1, 1..6), 1).unwrap();
        groups.write(1, &write(None, 2, 6..9), 1).unwrap();
        assert_eq!(groups.write(1, &write(Some((5, 1)), 1, 0..0), 1), Ok(true));
        assert_eq!(groups.groups[&1].last_index(), 8);
        assert_eq!(groups.write(1, &write(Some((5, 1)), 1, 0..0), 1), Ok(true), "said again");
        assert_eq!(groups.write(1, &write(Some((7, 3)), 3, 8..9), 1), Ok(false), "another term");
        assert_eq!(groups.groups[&1].last_index(), 8);
        assert_eq!(groups.write(1, &write(Some((20, 3)), 1, 0..0), 1), Ok(false), "not there yet");
        assert_eq!(groups.groups[&1].last_index(), 20);
    }

    #[test]
    fn a_write_that_contradicts_the_log_is_refused() {
        let mut groups = Groups::default();
        groups.write(1, &write(Some((5, 1)), 1, 6..8), 1).unwrap();
        for wrong in [write(None, 1, 9..10), write(None, 1, 0..1), write(Some((4, 1)), 1, 0..0)] {
            assert!(groups.write(1, &wrong, 1).is_err(), "{wrong:?}");
        }
        let mut gap = write(None, 1, 8..10);
        gap.entries.remove(0);
        gap.entries[0].index = 8;
        assert!(groups.write(1, &gap, 1).is_ok());
        gap.entries.push(Entry { term: 1, index: 12, payload: Payload::Noop });
        assert!(groups.write(1, &gap, 1).is_err());
    }
}
