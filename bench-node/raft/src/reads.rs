//! Linearizable reads without a log entry (ReadIndex: thesis, section 6.4).
//!
//! Invariant: a read is answered only after a majority echoed a round that started after the read
//! arrived, with the commit index of that round's start, in a term whose first entry is committed.
//! Then every write that was acknowledged before the read is at or below that index: one
//! acknowledged by a later leader would have left a majority that refuses the echo.
//!
//! One round is on its way at a time; reads that come meanwhile share the next one. Every append
//! carries the latest round, so that heartbeats repeat what was lost.

use alloc::vec::Vec;

use crate::effects::ReadOutcome;
use crate::message::Index;

#[derive(Default)]
pub(crate) struct Reads {
    /// The latest round started.
    round: u64,
    /// Its index, and who waits for it.
    asked: Option<(Index, Vec<u64>)>,
    /// Waiting for the next round.
    waiting: Vec<u64>,
}

impl Reads {
    pub(crate) fn push(&mut self, context: u64) {
        self.waiting.push(context);
    }

    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Starts a round if one is needed and none is on its way; true if so.
    pub(crate) fn start(&mut self, commit_index: Index) -> bool {
        if self.asked.is_some() || self.waiting.is_empty() {
            return false;
        }
        self.round += 1;
        self.asked = Some((commit_index, core::mem::take(&mut self.waiting)));
        true
    }

    /// A majority echoed `round`.
    pub(crate) fn confirm(&mut self, round: u64, outcomes: &mut Vec<ReadOutcome>) {
        if round < self.round {
            return;
        }
        if let Some((index, contexts)) = self.asked.take() {
            outcomes
                .extend(contexts.into_iter().map(|context| ReadOutcome::Ready { context, index }));
        }
    }

    /// Leadership ended.
    pub(crate) fn lose(self, outcomes: &mut Vec<ReadOutcome>) {
        let asked = self.asked.map(|(_, contexts)| contexts).unwrap_or_default();
        outcomes.extend(
            asked.into_iter().chain(self.waiting).map(|context| ReadOutcome::Lost { context }),
        );
    }
}
