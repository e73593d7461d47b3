//! The batches that are on their way, in the order of their sequence numbers.
//!
//! Invariant: a batch is handed out as durable only when it and all before it are written, and synced
//! where they are to be; in that order. What the disk says of one batch says nothing of another.
//!
//! What a batch holds, and what follows from its being durable, is left to [`super::Wal`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::{Durable, Needed, Options, WalError};
use crate::disk::{BlockWrite, Blocks, EndedWrite, QueueKind, WriteQueue};

/// Memory of a batch that is kept for later ones, at most: enough for what a turn of a busy node
/// writes.
const MAX_SPARE_BYTES: usize = 1 << 20;

/// A batch that was written, and what is to follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) sequence: u64,
    /// Whether it is durable when it has landed.
    pub(super) synced: bool,
    /// What it records as needed.
    pub(super) recorded: Needed,
    /// What is needed once it, and all before it, are durable.
    pub(super) needed_after: Needed,
}

/// What is on its way.
pub(super) struct Flight<Q> {
    queue: Q,
    waiting: VecDeque<Waiting>,
    /// The last batch that was sent.
    last: Option<InFlight>,
    spare: Vec<Blocks>,
}

struct Waiting {
    /// `None`: there was nothing to write.
    batch: Option<InFlight>,
    landed: bool,
    durable: Durable,
}

impl<Q: WriteQueue> Flight<Q> {
    pub(super) fn new(queue: Q) -> Self {
        Self { queue, waiting: VecDeque::new(), last: None, spare: Vec::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.queue.depth()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn queue(&self) -> QueueKind {
        self.queue.how()
    }

    pub(super) fn wait(&mut self) {
        self.queue.wait();
    }

    pub(super) fn waker(&self) -> Waker {
        self.queue.waker()
    }

    /// Memory for the next batch.
    pub(super) fn spare_blocks(&mut self) -> Blocks {
        self.spare.pop().unwrap_or_default()
    }

    /// Writes without bytes: they wait for those before them only.
    pub(super) fn nothing_to_write(&mut self, durable: Durable) {
        self.waiting.push_back(Waiting { batch: None, landed: true, durable });
    }

    /// Sends a batch on its way.
    pub(super) fn submit(
        &mut self,
        file: &Arc<Q::File>,
        offset: u64,
        blocks: Blocks,
        sync: bool,
        batch: InFlight,
        durable: Durable,
    ) {
        self.queue.submit(file, BlockWrite { id: batch.sequence, offset, blocks, sync });
        self.waiting.push_back(Waiting { batch: Some(batch), landed: false, durable });
        self.last = Some(batch);
    }

    /// Notes what landed; the highest sequence number of that, 0 if there was nothing.
    pub(super) fn absorb(&mut self, options: &Options) -> Result<u64, WalError> {
        let mut highest = 0;
        while let Some(EndedWrite { id, blocks, result }) = self.queue.ended() {
            let time = match result {
                Err(_) if options.ignores_failures_in_flight() => Default::default(),
                result => result?,
            };
            let mut waiting = self.waiting.iter_mut();
            let landed = waiting.find(|waiting| waiting.batch.is_some_and(|b| b.sequence == id));
            let landed = landed.expect("what lands was sent");
            landed.landed = true;
            landed.durable.appended.write = time.write;
            landed.durable.appended.sync = time.sync;
            highest = id.max(highest);
            if blocks.capacity() <= MAX_SPARE_BYTES && self.spare.len() < self.queue.depth() {
                self.spare.push(blocks);
            }
        }
        Ok(highest)
    }

    /// The first one, if it has landed.
    pub(super) fn take_first(&mut self, options: &Options) -> Option<(Option<InFlight>, Durable)> {
        if options.reports_out_of_order() {
            let at = self.waiting.iter().position(|waiting| waiting.landed)?;
            let Waiting { batch, durable, .. } = self.waiting.remove(at)?;
            return Some((batch.filter(|_| at == 0), durable));
        }
        let Waiting { batch, durable, .. } = self.waiting.pop_front_if(|first| first.landed)?;
        Some((batch, durable))
    }

    /// Waits until all is written; the last batch of it, which may have been taken before.
    pub(super) fn all_written(&mut self, options: &Options) -> Result<Option<InFlight>, WalError> {
        while self.waiting.iter().any(|waiting| !waiting.landed) {
            self.queue.wait();
            self.absorb(options)?;
        }
        Ok(self.last)
    }
}
