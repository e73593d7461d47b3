//! A member's disk: writes become durable in order, and a crash loses what was not.
//!
//! The log here is whole: what a snapshot took the place of stays, for the checker's sake. `base`
//! says from where on a member would find it.

use std::collections::VecDeque;

use raft::{Entry, EntryId, HardState, Recovered, Snapshot, Write};

use super::{Command, Membership};

/// What is durable, and what is on its way.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry<Command>>,
    /// What the log on the disk begins after.
    pub(crate) base: EntryId,
    /// The latest snapshot, as the entries in it.
    pub(crate) snapshot: Vec<Entry<Command>>,
    waiting: VecDeque<Write<Command>>,
}

impl Disk {
    pub(crate) fn holding(hard_state: HardState, entries: Vec<Entry<Command>>) -> Self {
        Self { hard_state, entries, ..Self::default() }
    }

    pub(crate) fn submit(&mut self, write: Write<Command>) {
        self.waiting.push_back(write);
    }

    /// A snapshot of what these entries brought about is durable at once.
    pub(crate) fn keep_snapshot(&mut self, entries: &[Entry<Command>]) {
        if entries.len() > self.snapshot.len() {
            self.snapshot = entries.to_vec();
        }
    }

    /// This write and those before it become durable.
    pub(crate) fn complete(&mut self, id: u64) {
        while self.waiting.front().is_some_and(|write| write.id <= id) {
            let write = self.waiting.pop_front().expect("just seen");
            self.apply(write, usize::MAX);
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn last_waiting(&self) -> Option<u64> {
        self.waiting.back().map(|write| write.id)
    }

    /// The power goes. Of what was on its way, `whole` writes had made it, and of the next one, if
    /// `torn`, its term and vote and that many entries.
    pub(crate) fn crash(&mut self, whole: usize, torn: Option<usize>) {
        for _ in 0..whole.min(self.waiting.len()) {
            let write = self.waiting.pop_front().expect("counted");
            self.apply(write, usize::MAX);
        }
        if let (Some(entries), Some(write)) = (torn, self.waiting.pop_front()) {
            self.apply(write, entries);
        }
        self.waiting.clear();
    }

    /// The whole log that a member finds, with where its snapshot ends.
    pub(crate) fn log(&self) -> (Vec<Entry<Command>>, EntryId) {
        assert!(self.base.index as usize <= self.snapshot.len(), "the log was cut too far");
        let last = self.snapshot.last().map_or(EntryId::default(), id_of);
        let held = last.index == 0
            || self.entries.get(last.index as usize - 1).is_some_and(|entry| id_of(entry) == last);
        (if held { &self.entries } else { &self.snapshot }.clone(), last)
    }

    pub(crate) fn recovered(&self, founding: &Membership) -> Recovered<Command> {
        let (mut entries, last) = self.log();
        let behind = entries.split_off(last.index as usize);
        let membership = membership_of(&entries, founding);
        Recovered {
            hard_state: self.hard_state,
            snapshot: Snapshot { last, membership },
            entries: behind,
        }
    }

    pub(crate) fn holds(&self, entry: &Entry<Command>) -> bool {
        let at = entry.index as usize - 1;
        self.entries.get(at) == Some(entry) || self.snapshot.get(at) == Some(entry)
    }

    fn apply(&mut self, write: Write<Command>, entries: usize) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(base) = write.base {
            let held = self.entries.get(base.index as usize - 1);
            if held.is_none_or(|entry| id_of(entry) != base) {
                self.entries = self.snapshot[..base.index as usize].to_vec();
            }
            self.base = base;
        }
        for entry in write.entries.into_iter().take(entries) {
            self.entries.truncate(entry.index as usize - 1);
            self.entries.push(entry);
        }
    }
}

/// The membership that a log brings about.
pub(crate) fn membership_of(log: &[Entry<Command>], founding: &Membership) -> Membership {
    let latest = log.iter().rev().find_map(|entry| match &entry.payload {
        raft::Payload::Membership(membership) => Some(membership.clone()),
        _ => None,
    });
    latest.unwrap_or_else(|| founding.clone())
}

pub(crate) fn id_of(entry: &Entry<Command>) -> EntryId {
    EntryId { index: entry.index, term: entry.term }
}
