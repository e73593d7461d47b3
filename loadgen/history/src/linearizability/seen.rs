//! Lowe's memory: the configurations that a search has entered.
//!
//! Invariant: exact. A configuration is kept whole, not as its hash, so that two are never taken
//! for one another.

use std::collections::HashSet;

/// Entered configurations, and about how many bytes they take.
#[derive(Default)]
pub(super) struct Seen {
    entered: HashSet<Box<[u32]>>,
    key: Vec<u32>,
    bytes: usize,
    /// The furthest that any of them has come.
    first: u32,
}

/// A set's own cost for each element: its place in the table, which is never full, and the
/// allocation's.
const OVERHEAD_BYTES: usize = 48;

impl Seen {
    /// Enters a configuration; false if it was entered before. `first` is the rank of the first
    /// untaken step, `ahead` are the ranks that were taken beyond it, `used` the steps taken of those
    /// that may have taken effect, both ascending.
    pub(super) fn enter(&mut self, state: u32, first: u32, ahead: &[u32], used: &[u32]) -> bool {
        self.key.clear();
        self.key.extend([state, first, used.len() as u32]);
        self.key.extend_from_slice(used);
        self.key.extend_from_slice(ahead);
        if self.entered.contains(self.key.as_slice()) {
            return false;
        }
        self.bytes += OVERHEAD_BYTES + size_of_val(self.key.as_slice());
        self.first = self.first.max(first);
        self.entered.insert(self.key.as_slice().into())
    }

    /// Forgets all, if none can be reached from where the first untaken step has this rank.
    pub(super) fn forget_before(&mut self, first: u32) {
        if self.bytes > 0 && first > self.first {
            *self = Self { key: std::mem::take(&mut self.key), ..Self::default() };
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
