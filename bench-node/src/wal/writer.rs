//! The thread that writes the log: all that waits goes down in one batch, of whichever group.
//!
//! Invariant: a write is reported persisted only after the batch that holds it, and all of its
//! group before it, are durable. After the first error nothing is reported any more.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::{Appended, GroupWrite, Wal, WalError, batch};
use crate::GroupId;
use crate::disk::Disk;

/// Hands writes to the log's thread. Dropping it writes what still waits, and ends the thread.
pub struct Writer {
    sender: Option<Sender<Vec<GroupWrite>>>,
    thread: Option<JoinHandle<()>>,
}

/// The log failed earlier, as its `on_failed` was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has stopped")]
pub struct WriterStopped;

impl Writer {
    /// Starts the thread. It calls `on_persisted` for each durable batch with, by group, the id of
    /// the group's last write in it (groups in ascending order, each once; all earlier writes of
    /// that group are durable too), `observe` with what each batch cost, before that, and
    /// `on_failed` at most once, as its last act.
    pub fn start<D: Disk>(
        mut wal: Wal<D>,
        mut on_persisted: impl FnMut(&[(GroupId, u64)]) + Send + 'static,
        on_failed: impl FnOnce(WalError) + Send + 'static,
        mut observe: impl FnMut(&Appended) + Send + 'static,
    ) -> Result<Self, WalError> {
        let (sender, receiver) = channel::<Vec<GroupWrite>>();
        let max_batch_bytes = wal.options().max_batch_bytes;
        let work = move || {
            let (mut writes, mut persisted) = (Vec::new(), Vec::new());
            while next_batch(&receiver, &mut writes, max_batch_bytes) {
                match wal.append(&writes) {
                    Ok(appended) => {
                        observe(&appended);
                        last_of_each_group(&writes, &mut persisted);
                        on_persisted(&persisted);
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

    /// Queues writes, of whichever groups, which go down in one batch; never waits.
    pub fn submit(&self, writes: Vec<GroupWrite>) -> Result<(), WriterStopped> {
        self.sender.as_ref().ok_or(WriterStopped)?.send(writes).map_err(|_| WriterStopped)
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

/// Waits for a write and takes along all that wait with it; `false` once the last sender is gone
/// and all is written.
fn next_batch(
    receiver: &Receiver<Vec<GroupWrite>>,
    writes: &mut Vec<GroupWrite>,
    max_batch_bytes: usize,
) -> bool {
    let Ok(mut next) = receiver.recv() else { return false };
    let mut bytes = 0;
    loop {
        bytes += next.iter().map(|next| batch::write_bytes(next.group, &next.write)).sum::<usize>();
        writes.append(&mut next);
        if bytes >= max_batch_bytes {
            return true;
        }
        match receiver.try_recv() {
            Ok(waiting) => next = waiting,
            Err(_) => return true,
        }
    }
}

/// By group, the id of its last write in a batch: what is persisted once the batch is durable.
pub fn last_of_each_group(writes: &[GroupWrite], last: &mut Vec<(GroupId, u64)>) {
    last.clear();
    for GroupWrite { group, write } in writes {
        match last.last_mut() {
            Some((of, id)) if of == group => *id = write.id,
            _ => last.push((*group, write.id)),
        }
    }
    // Of one group, the later write stays: ids go up.
    last.sort_unstable();
    last.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
}
