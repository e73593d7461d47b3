//! A queue for files that write and sync one after the other.
//!
//! Invariant: a write is over when `submit` returns, whatever became of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::wakeup::Wakeup;
use super::{BlockWrite, DiskError, DiskFile, EndedWrite, QueueKind, WriteQueue, WriteTime};

/// A write and a sync, and only then the next one.
pub struct OneByOne<F> {
    ended: VecDeque<EndedWrite>,
    wakeup: Arc<Wakeup>,
    _file: std::marker::PhantomData<fn(F)>,
}

impl<F> Default for OneByOne<F> {
    fn default() -> Self {
        Self { ended: VecDeque::new(), wakeup: Arc::default(), _file: std::marker::PhantomData }
    }
}

fn write_and_sync<F: DiskFile>(file: &F, write: &BlockWrite) -> Result<WriteTime, DiskError> {
    let started = Instant::now();
    file.write_at(write.offset, write.blocks.bytes())?;
    let written = Instant::now();
    let mut time = WriteTime { write: written - started, ..WriteTime::default() };
    if write.sync {
        file.sync()?;
        time.sync = written.elapsed();
    }
    Ok(time)
}

impl<F: DiskFile> WriteQueue for OneByOne<F> {
    type File = F;

    fn depth(&self) -> usize {
        1
    }

    fn how(&self) -> QueueKind {
        QueueKind { name: "blocking", fallen_back: None }
    }

    fn submit(&mut self, file: &Arc<F>, write: BlockWrite) {
        let result = write_and_sync(&**file, &write);
        self.ended.push_back(EndedWrite { id: write.id, blocks: write.blocks, result });
    }

    fn ended(&mut self) -> Option<EndedWrite> {
        self.ended.pop_front()
    }

    fn wait(&mut self) {
        if self.ended.is_empty() {
            self.wakeup.wait();
        }
    }

    fn waker(&self) -> Waker {
        self.wakeup.waker()
    }
}
