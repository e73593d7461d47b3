//! The thread that writes the log: all that waits goes down in one batch, of whichever group, as soon
//! as there is room for one more on its way.
//!
//! Invariant: a write is reported persisted only after the batch that holds it, and all of its
//! group before it, are durable. After the first error nothing is reported any more.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::task::Waker;
use std::thread::JoinHandle;

use super::{Appended, Durable, GroupWrite, Wal, WalError, batch};
use crate::GroupId;
use crate::disk::Disk;

/// Hands writes to the log's thread. Dropping it writes what still waits, and ends the thread.
pub struct Writer {
    sender: Option<Sender<Vec<GroupWrite>>>,
    waker: Waker,
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
        let waker = wal.waker();
        let work = move || {
            let report = |Durable { persisted, appended }: Durable| {
                observe(&appended);
                on_persisted(&persisted);
            };
            if let Err(error) = write_all(&mut wal, &receiver, report) {
                drop(receiver);
                on_failed(error);
            }
        };
        let thread = std::thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(work)
            .map_err(|error| WalError::Thread { reason: error.to_string() })?;
        Ok(Self { sender: Some(sender), waker, thread: Some(thread) })
    }

    /// Queues writes, of whichever groups, which go down in one batch; never waits.
    pub fn submit(&self, writes: Vec<GroupWrite>) -> Result<(), WriterStopped> {
        self.sender.as_ref().ok_or(WriterStopped)?.send(writes).map_err(|_| WriterStopped)?;
        self.waker.wake_by_ref();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        self.waker.wake_by_ref();
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed already.
            let _ = thread.join();
        }
    }
}

/// Writes what comes until the last sender is gone and all is durable.
fn write_all<D: Disk>(
    wal: &mut Wal<D>,
    receiver: &Receiver<Vec<GroupWrite>>,
    mut report: impl FnMut(Durable),
) -> Result<(), WalError> {
    let max_batch_bytes = wal.options().max_batch_bytes;
    let mut writes = Vec::new();
    let mut ends = false;
    loop {
        while let Some(durable) = wal.take_durable()? {
            report(durable);
        }
        if wal.has_room() && !ends {
            ends = !take_waiting(receiver, &mut writes, max_batch_bytes);
            if !writes.is_empty() {
                wal.submit(&writes)?;
                writes.clear();
                continue;
            }
        }
        if ends && wal.is_idle() {
            return Ok(());
        }
        wal.wait();
    }
}

/// Takes along all that waits, up to a batch; `false` once the last sender is gone.
fn take_waiting(
    receiver: &Receiver<Vec<GroupWrite>>,
    writes: &mut Vec<GroupWrite>,
    max_batch_bytes: usize,
) -> bool {
    let mut bytes = 0;
    while bytes < max_batch_bytes {
        let mut next = match receiver.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        };
        bytes += next.iter().map(|next| batch::write_bytes(next.group, &next.write)).sum::<usize>();
        writes.append(&mut next);
    }
    true
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
