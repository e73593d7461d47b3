//! Writes a frozen store into a snapshot's file.
//!
//! Invariant: takes memory for one block; syncs in steps and keeps to a rate, so that the log's own
//! syncs never wait for gigabytes; and whatever ends it early leaves no snapshot.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::Membership;

use super::encode::Encoder;
use super::{Options, Snapshot, SnapshotError, SnapshotMeta, Snapshots, TEMPORARY};
use crate::disk::{Disk, DiskFile};
use crate::kv::Frozen;

/// How long a pause lasts at most before it is asked again whether the snapshot is still wanted.
const PAUSE: Duration = Duration::from_millis(20);

/// A snapshot that is being written on a thread of its own. Dropping it cancels the snapshot,
/// without waiting.
pub struct WriteJob {
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WriteJob {
    /// Cancels it: it ends with [`SnapshotError::Cancelled`], if it does not end before.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it ended, one way or the other.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed already.
            let _ = thread.join();
        }
    }
}

impl Drop for WriteJob {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.cancel();
        }
    }
}

impl<D: Disk> Snapshots<D> {
    /// Writes a snapshot, durably; a crash or an error on the way leaves none. `meta.store` is
    /// taken from the frozen store.
    pub fn write(&self, meta: SnapshotMeta, frozen: Frozen) -> Result<Snapshot, SnapshotError> {
        self.write_unless(meta, frozen, &AtomicBool::new(false))
    }

    /// As [`Snapshots::write`], on a thread of its own, which calls `on_done` as its last act.
    pub fn write_in_background(
        &self,
        meta: SnapshotMeta,
        frozen: Frozen,
        on_done: impl FnOnce(Result<Snapshot, SnapshotError>) + Send + 'static,
    ) -> Result<WriteJob, SnapshotError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (snapshots, cancel) = (self.clone(), Arc::clone(&cancelled));
        let thread = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || on_done(snapshots.write_unless(meta, frozen, &cancel)))
            .map_err(|error| SnapshotError::Thread { reason: error.to_string() })?;
        Ok(WriteJob { cancelled, thread: Some(thread) })
    }

    fn write_unless(
        &self,
        mut meta: SnapshotMeta,
        frozen: Frozen,
        cancelled: &AtomicBool,
    ) -> Result<Snapshot, SnapshotError> {
        if self.options.leaves_out_membership() {
            let Membership { voters, outgoing, learners, .. } = &mut meta.membership;
            [voters, outgoing, learners].into_iter().for_each(Vec::clear);
        }
        let path = self.path(meta.group, meta.last_included.index);
        let temporary = PathBuf::from(format!("{}{TEMPORARY}", path.display()));
        let written = self.write_file(&temporary, meta, frozen, cancelled);
        if written.is_err() {
            // It takes space that others may need. Where this fails too, the next start does it.
            let _ = self.disk.remove(&temporary);
        }
        written
    }

    fn write_file(
        &self,
        temporary: &Path,
        meta: SnapshotMeta,
        frozen: Frozen,
        cancelled: &AtomicBool,
    ) -> Result<Snapshot, SnapshotError> {
        let file = match self.disk.create(temporary) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.disk.remove(temporary)?;
                self.disk.create(temporary)?
            }
            created => created?,
        };
        let mut encoder = Encoder::new(meta, frozen, self.options.block_bytes);
        let mut output = Output::new(&file, &self.options);
        for part in &mut encoder {
            output.pause_unless(cancelled)?;
            output.put(&part)?;
        }
        let (id, records) = encoder.result().expect("all parts were yielded");
        let path = if self.options.names_before_sync() {
            let path = self.give_name(temporary, &id)?;
            file.sync()?;
            path
        } else {
            file.sync()?;
            self.give_name(temporary, &id)?
        };
        Ok(Snapshot { id, meta: encoder.meta().clone(), records, path })
    }
}

/// A file that grows at a rate, and is synced in steps.
struct Output<'a, F> {
    file: &'a F,
    options: &'a Options,
    started: Instant,
    written: u64,
    unsynced: u64,
}

impl<'a, F: DiskFile> Output<'a, F> {
    fn new(file: &'a F, options: &'a Options) -> Self {
        Self { file, options, started: Instant::now(), written: 0, unsynced: 0 }
    }

    fn put(&mut self, part: &Bytes) -> Result<(), SnapshotError> {
        self.file.write_at(self.written, part)?;
        self.written += part.len() as u64;
        self.unsynced += part.len() as u64;
        if self.unsynced >= self.options.sync_every_bytes {
            self.file.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Waits until the rate allows more.
    fn pause_unless(&self, cancelled: &AtomicBool) -> Result<(), SnapshotError> {
        loop {
            if cancelled.load(Ordering::Relaxed) {
                return Err(SnapshotError::Cancelled);
            }
            let Some(rate) = self.options.max_bytes_per_second.filter(|rate| *rate > 0) else {
                return Ok(());
            };
            let due = Duration::from_secs_f64(self.written as f64 / rate as f64);
            match due.checked_sub(self.started.elapsed()) {
                Some(early) if !early.is_zero() => std::thread::sleep(early.min(PAUSE)),
                _ => return Ok(()),
            }
        }
    }
}
