//! Writes on their way to a simulated disk.
//!
//! Invariant: a write does nothing until it ends, or its process dies. Which one ends first is drawn
//! from the disk's seed; time passes only where the queue's owner waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use rand::RngExt;

use super::state::OnItsWay;
use super::{Simulated, SimulatedFile};
use crate::disk::wakeup::Wakeup;
use crate::disk::{BlockWrite, DiskFile, EndedWrite, QueueKind, WriteQueue, WriteTime};

/// A queue of a simulated disk.
pub struct SimulatedQueue {
    disk: Simulated,
    depth: usize,
    on_their_way: Vec<Submitted>,
    ended: VecDeque<EndedWrite>,
    wakeup: Arc<Wakeup>,
}

struct Submitted {
    ticket: u64,
    file: Arc<SimulatedFile>,
    write: BlockWrite,
}

impl SimulatedQueue {
    pub(super) fn new(disk: Simulated, depth: usize) -> Self {
        let (on_their_way, ended, wakeup) = (Vec::new(), VecDeque::new(), Arc::default());
        Self { disk, depth, on_their_way, ended, wakeup }
    }

    /// Lets one of them end, whichever.
    fn end_one(&mut self) {
        let at = {
            let mut state = self.disk.lock_state();
            // A draw where there is no choice would change what a seed does without a queue.
            let at = match self.on_their_way.len() {
                1 => 0,
                several => state.random.random_range(0..several),
            };
            state.on_their_way.remove(&self.on_their_way[at].ticket);
            at
        };
        let Submitted { file, write, .. } = self.on_their_way.swap_remove(at);
        let BlockWrite { id, offset, blocks, sync } = write;
        let written = file.write_at(offset, blocks.bytes()).and_then(|()| match sync {
            true => file.sync_range(offset, offset + blocks.bytes().len() as u64),
            false => Ok(()),
        });
        let result = written.map(|()| WriteTime::default());
        self.ended.push_back(EndedWrite { id, blocks, result });
    }
}

impl WriteQueue for SimulatedQueue {
    type File = SimulatedFile;

    fn depth(&self) -> usize {
        self.depth
    }

    fn how(&self) -> QueueKind {
        QueueKind { name: "simulated", fallen_back: None }
    }

    fn submit(&mut self, file: &Arc<SimulatedFile>, write: BlockWrite) {
        let mut state = self.disk.lock_state();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        // A process that is gone has nothing on its way.
        if state.process == self.disk.process && state.powered {
            let bytes = write.blocks.bytes().to_vec();
            let on_its_way = OnItsWay { inode: file.inode, offset: write.offset, bytes };
            state.on_their_way.insert(ticket, on_its_way);
        }
        self.on_their_way.push(Submitted { ticket, file: Arc::clone(file), write });
    }

    fn ended(&mut self) -> Option<EndedWrite> {
        self.ended.pop_front()
    }

    /// Time passes until one ends; without any, until a wake-up.
    fn wait(&mut self) {
        match (self.ended.is_empty(), self.on_their_way.is_empty()) {
            (false, _) => {}
            (true, false) => self.end_one(),
            (true, true) => self.wakeup.wait(),
        }
    }

    fn waker(&self) -> Waker {
        self.wakeup.waker()
    }
}

impl Drop for SimulatedQueue {
    fn drop(&mut self) {
        let is_alive = {
            let state = self.disk.lock_state();
            state.process == self.disk.process && state.powered
        };
        while is_alive && !self.on_their_way.is_empty() {
            self.end_one();
        }
    }
}
