//! What this member's own disk is known to hold.
//!
//! Invariant: `persisted_index` is the length of the prefix of the log in memory that is durable,
//! also while entries are cut off and replaced with writes still on their way. Writes become
//! durable in the order of their ids, so one number says which are.
//!
//! What rests on durability asks here each time: nothing is queued that could leave later under a
//! term that has passed.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::effects::Write;
use crate::log::Log;
use crate::message::{HardState, Index};

pub(crate) struct Durability {
    next_write: u64,
    persisted_write: u64,
    /// The write that makes the latest term and vote durable.
    hard_state_write: u64,
    /// The first index whose entry is in no write yet.
    unwritten: Index,
    persisted_index: Index,
    pending: VecDeque<Pending>,
}

struct Pending {
    id: u64,
    /// Up to here the log in memory is what this write and those before it hold.
    last_index: Index,
}

impl Durability {
    /// All that was recovered is durable.
    pub(crate) fn new(last_index: Index) -> Self {
        Self {
            next_write: 1,
            persisted_write: 0,
            hard_state_write: 0,
            unwritten: last_index + 1,
            persisted_index: last_index,
            pending: VecDeque::new(),
        }
    }

    pub(crate) fn hard_state_changed(&mut self) {
        self.hard_state_write = self.next_write;
    }

    /// Whether the latest term and vote are durable.
    pub(crate) fn hard_state_is_durable(&self) -> bool {
        self.hard_state_write <= self.persisted_write
    }

    pub(crate) fn persisted_index(&self) -> Index {
        self.persisted_index
    }

    /// The entries from `from` on are no longer those that were written.
    pub(crate) fn truncated(&mut self, from: Index) {
        let keep = from - 1;
        self.unwritten = self.unwritten.min(from);
        self.persisted_index = self.persisted_index.min(keep);
        for write in &mut self.pending {
            write.last_index = write.last_index.min(keep);
        }
    }

    /// All that changed since the last call, as one write.
    pub(crate) fn write<D: Clone + AsRef<[u8]>>(
        &mut self,
        hard_state: HardState,
        log: &Log<D>,
    ) -> Option<Write<D>> {
        let hard_state = (self.hard_state_write == self.next_write).then_some(hard_state);
        let entries: Vec<_> = log.entries(self.unwritten).cloned().collect();
        if hard_state.is_none() && entries.is_empty() {
            return None;
        }
        let id = self.next_write;
        self.next_write += 1;
        self.unwritten = log.last_index() + 1;
        self.pending.push_back(Pending { id, last_index: log.last_index() });
        Some(Write { id, hard_state, base: None, entries })
    }

    /// This write and all before it are durable.
    pub(crate) fn persisted(&mut self, write_id: u64) {
        assert!(write_id < self.next_write, "write {write_id} was never asked for");
        self.persisted_write = self.persisted_write.max(write_id);
        while let Some(write) = self.pending.pop_front_if(|write| write.id <= write_id) {
            self.persisted_index = self.persisted_index.max(write.last_index);
        }
    }
}
