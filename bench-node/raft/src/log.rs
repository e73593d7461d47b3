//! The log in memory.
//!
//! Invariant: indexes are consecutive and terms never go down, so that a term's bounds are found
//! by binary search. What of it is durable is `durability`'s business; what of it is committed is
//! `raft`'s.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::message::{Entry, Index, Payload, Term};

pub(crate) struct Log<D> {
    /// Index and term of the entry before the first one held: (0, 0) until a snapshot moves it.
    before: (Index, Term),
    entries: VecDeque<Entry<D>>,
}

impl<D: Clone + AsRef<[u8]>> Log<D> {
    pub(crate) fn new(entries: Vec<Entry<D>>) -> Self {
        Self { before: (0, 0), entries: entries.into() }
    }

    pub(crate) fn last_index(&self) -> Index {
        self.before.0 + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries.back().map_or(self.before.1, |entry| entry.term)
    }

    /// The term at an index; none where the log does not reach.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        self.entries.get(self.position(index)?).map(|entry| entry.term)
    }

    /// Whether the log holds this entry (and so, by log matching, all before it).
    pub(crate) fn holds(&self, index: Index, term: Term) -> bool {
        self.term(index) == Some(term)
    }

    /// Whether a log that ends with this entry is at least as complete (paper, section 5.4.1).
    pub(crate) fn is_covered_by(&self, last_index: Index, last_term: Term) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    pub(crate) fn push(&mut self, term: Term, payload: Payload<D>) -> Index {
        let index = self.last_index() + 1;
        self.entries.push_back(Entry { term, index, payload });
        index
    }

    /// Adds entries that follow the last one.
    pub(crate) fn extend(&mut self, entries: impl Iterator<Item = Entry<D>>) {
        for entry in entries {
            debug_assert_eq!(entry.index, self.last_index() + 1);
            self.entries.push_back(entry);
        }
    }

    /// Removes the entry at `from` and all after it.
    pub(crate) fn truncate(&mut self, from: Index) {
        let keep = self.position(from).expect("only held entries are cut off");
        self.entries.truncate(keep);
    }

    /// The entries from `from` on, in order.
    pub(crate) fn entries(&self, from: Index) -> impl Iterator<Item = &Entry<D>> {
        let start = (from.saturating_sub(self.before.0 + 1) as usize).min(self.entries.len());
        self.entries.range(start..)
    }

    /// The entries from `from` through `to`.
    pub(crate) fn range(&self, from: Index, to: Index) -> Vec<Entry<D>> {
        let count = (to + 1).saturating_sub(from) as usize;
        self.entries(from).take(count).cloned().collect()
    }

    /// What one append may carry: at least one entry (where there is one), then as many as both
    /// limits allow.
    pub(crate) fn batch(&self, from: Index, max_entries: usize, max_bytes: usize) -> Vec<Entry<D>> {
        let mut bytes = 0usize;
        self.entries(from)
            .take(max_entries)
            .enumerate()
            .take_while(|(position, entry)| {
                bytes = bytes.saturating_add(payload_bytes(entry));
                *position == 0 || bytes <= max_bytes
            })
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// The first index of a term; where the term is absent, that of the first later one.
    pub(crate) fn first_index_of(&self, term: Term) -> Index {
        self.before.0 + 1 + self.entries.partition_point(|entry| entry.term < term) as u64
    }

    /// The last index of a term, if it is in the log.
    pub(crate) fn last_index_of(&self, term: Term) -> Option<Index> {
        let last = self.before.0 + self.entries.partition_point(|entry| entry.term <= term) as u64;
        (self.term(last) == Some(term)).then_some(last)
    }

    fn position(&self, index: Index) -> Option<usize> {
        index.checked_sub(self.before.0 + 1).map(|position| position as usize)
    }
}

fn payload_bytes<D: AsRef<[u8]>>(entry: &Entry<D>) -> usize {
    match &entry.payload {
        Payload::Noop => 0,
        Payload::Data(data) => data.as_ref().len(),
        Payload::Membership(membership) => membership.context.as_ref().len(),
    }
}
