//! A member's disk: writes become durable in order, and a crash loses what was not.

use std::collections::VecDeque;

use raft::{Entry, HardState, Recovered, Write};

use super::Command;

/// What is durable, and what is on its way.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry<Command>>,
    waiting: VecDeque<Write<Command>>,
}

impl Disk {
    pub(crate) fn holding(hard_state: HardState, entries: Vec<Entry<Command>>) -> Self {
        Self { hard_state, entries, waiting: VecDeque::new() }
    }

    pub(crate) fn submit(&mut self, write: Write<Command>) {
        self.waiting.push_back(write);
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

    pub(crate) fn recovered(&self) -> Recovered<Command> {
        Recovered { hard_state: self.hard_state, entries: self.entries.clone() }
    }

    pub(crate) fn holds(&self, entry: &Entry<Command>) -> bool {
        self.entries.get(entry.index as usize - 1).is_some_and(|held| held == entry)
    }

    fn apply(&mut self, write: Write<Command>, entries: usize) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        for entry in write.entries.into_iter().take(entries) {
            self.entries.truncate(entry.index as usize - 1);
            self.entries.push(entry);
        }
    }
}
