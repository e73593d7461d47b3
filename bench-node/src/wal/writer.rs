//! The thread that writes the log: all that waits goes down in one batch.
//!
//! Invariant: a write is reported persisted only after the batch that holds it, and all before it,
//! are durable. After the first error nothing is reported any more.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use raft::Write;

use super::{Appended, Wal, WalError, batch};
use crate::disk::Disk;

/// Hands writes to the log's thread. Dropping it writes what still waits, and ends the thread.
pub struct Writer {
    sender: Option<Sender<Write<Bytes>>>,
    thread: Option<JoinHandle<()>>,
}

/// The log failed earlier, as its `on_failed` was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has stopped")]
pub struct WriterStopped;

impl Writer {
    /// Starts the thread. It calls `on_persisted` with the id of the last write of each durable
    /// batch (in order, all earlier ones included), `observe` with what each batch cost, before
    /// that, and `on_failed` at most once, as its last act.
    pub fn start<D: Disk>(
        mut wal: Wal<D>,
        mut on_persisted: impl FnMut(u64) + Send + 'static,
        on_failed: impl FnOnce(WalError) + Send + 'static,
        mut observe: impl FnMut(&Appended) + Send + 'static,
    ) -> Result<Self, WalError> {
        let (sender, receiver) = channel::<Write<Bytes>>();
        let max_batch_bytes = wal.options().max_batch_bytes;
        let work = move || {
            let mut writes = Vec::new();
            while let Some(last) = next_batch(&receiver, &mut writes, max_batch_bytes) {
                match wal.append(&writes) {
                    Ok(appended) => {
                        observe(&appended);
                        on_persisted(last);
                    }
                    Err(error) => {
                        drop(receiver);
                        return on_failed(error);
                    }
                }
                writes.clear();
            }
        };
        let thread = std::thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(work)
            .map_err(|error| WalError::Thread { reason: error.to_string() })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Queues a write; never waits.
    pub fn submit(&self, write: Write<Bytes>) -> Result<(), WriterStopped> {
        self.sender.as_ref().ok_or(WriterStopped)?.send(write).map_err(|_| WriterStopped)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed already.
            let _ = thread.join();
        }
    }
}

/// Waits for a write, takes along all that wait with it, and returns the id of the last one;
/// `None` once the last sender is gone and all is written.
fn next_batch(
    receiver: &Receiver<Write<Bytes>>,
    writes: &mut Vec<Write<Bytes>>,
    max_batch_bytes: usize,
) -> Option<u64> {
    let mut write = receiver.recv().ok()?;
    let mut bytes = 0;
    loop {
        let last = write.id;
        bytes += batch::record_bytes(&write);
        writes.push(write);
        if bytes >= max_batch_bytes {
            return Some(last);
        }
        match receiver.try_recv() {
            Ok(next) => write = next,
            Err(_) => return Some(last),
        }
    }
}
