//! The host's file system, with the log's writes on io_uring where that works, and one after the
//! other where it does not.
//!
//! Invariant: which of the two it is, is settled by the first write of a queue, which goes alone,
//! and does not change after that.
//!
//! All other operations are those of [`Blocking`]. What io_uring does is left to `ring`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use serde::Deserialize;

use super::blocking::BlockingFile;
use super::ring::Ring;
use super::{
    BlockWrite, Blocking, Disk, DiskError, DiskFile, EndedWrite, OneByOne, QueueKind, WriteQueue,
};

/// How the log is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogDisk {
    /// With io_uring where it works, else blocking.
    Auto,
    /// With io_uring: several synced writes past the page cache overlap. Fails where that is not
    /// possible.
    IoUring,
    /// One write and one sync after the other, through the page cache. The default: that io_uring is
    /// nowhere slower in whole nodes is not shown (`results/speed.md`).
    #[default]
    Blocking,
}

/// The host's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    log_disk: LogDisk,
}

impl Host {
    /// With queues of this kind.
    pub fn new(log_disk: LogDisk) -> Self {
        Self { log_disk }
    }
}

impl Disk for Host {
    type File = BlockingFile;
    type Lock = File;
    type Queue = HostQueue;

    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        Blocking.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, DiskError> {
        Blocking.list(dir)
    }

    fn create(&self, path: &Path) -> Result<BlockingFile, DiskError> {
        Blocking.create(path)
    }

    fn open(&self, path: &Path) -> Result<BlockingFile, DiskError> {
        Blocking.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        Blocking.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        Blocking.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        Blocking.sync_dir(dir)
    }

    fn lock(&self, path: &Path, note: &str) -> Result<Option<File>, DiskError> {
        Blocking.lock(path, note)
    }

    fn queue(&self, depth: usize) -> Result<HostQueue, DiskError> {
        let blocking = |why| HostQueue {
            log_disk: self.log_disk,
            writes: Writes::Blocking(OneByOne::default(), why),
        };
        if self.log_disk == LogDisk::Blocking {
            return Ok(blocking(None));
        }
        match Ring::new(depth) {
            Ok(ring) => {
                let writes = Writes::Ring { ring: Box::new(ring), tried: false };
                Ok(HostQueue { log_disk: self.log_disk, writes })
            }
            Err(error) if self.log_disk == LogDisk::Auto => {
                Ok(blocking(Some(format!("io_uring cannot be set up: {error}"))))
            }
            Err(error) => Err(DiskError::new(Path::new("io_uring"), "set up a ring", error)),
        }
    }
}

/// A queue of either kind.
pub struct HostQueue {
    log_disk: LogDisk,
    writes: Writes,
}

enum Writes {
    Ring {
        ring: Box<Ring>,
        /// Whether a write went well, or failed for a reason of its own.
        tried: bool,
    },
    Blocking(OneByOne<BlockingFile>, Option<String>),
}

impl HostQueue {
    /// The first write, to its end; it says whether the others can go the same way.
    fn try_ring(&mut self, file: &Arc<BlockingFile>, write: BlockWrite) {
        let Writes::Ring { ring, tried } = &mut self.writes else {
            return self.submit(file, write);
        };
        *tried = true;
        let (id, offset, sync) = (write.id, write.offset, write.sync);
        let (why, blocks) = match unfit(file, self.log_disk) {
            Some(why) => (why, write.blocks),
            None => {
                ring.submit(file, write);
                let ended = loop {
                    match ring.ended() {
                        Some(ended) => break ended,
                        None => ring.wait_for_writes(),
                    }
                };
                match &ended.result {
                    Err(error) if self.log_disk == LogDisk::Auto && is_refusal(&error.error) => {
                        (format!("cannot {}: {}", error.action, error.error), ended.blocks)
                    }
                    _ => return ring.tell_again(ended),
                }
            }
        };
        self.writes = Writes::Blocking(OneByOne::default(), Some(why));
        self.submit(file, BlockWrite { id, offset, blocks, sync });
    }
}

/// Why a file is not for io_uring, as far as its file system tells.
fn unfit(file: &BlockingFile, log_disk: LogDisk) -> Option<String> {
    // A server of a FUSE file system gets no sync with a synced direct write, only a flag, and may
    // not look at it.
    let is_fuse = statfs(file.path()).is_ok_and(|fs| fs.filesystem_type() == FUSE_SUPER_MAGIC);
    (is_fuse && log_disk == LogDisk::Auto)
        .then(|| "a FUSE file system may not sync a synced direct write".to_owned())
}

/// Whether the system does not do such writes at all: no direct ones on this file system, no
/// synced ones, or no io_uring for this process.
fn is_refusal(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM | Errno::EACCES)
    )
}

impl WriteQueue for HostQueue {
    type File = BlockingFile;

    fn depth(&self) -> usize {
        match &self.writes {
            Writes::Ring { ring, .. } => ring.depth(),
            Writes::Blocking(blocking, _) => blocking.depth(),
        }
    }

    fn how(&self) -> QueueKind {
        match &self.writes {
            Writes::Ring { .. } => QueueKind { name: "io_uring", fallen_back: None },
            Writes::Blocking(blocking, why) => {
                QueueKind { fallen_back: why.clone(), ..blocking.how() }
            }
        }
    }

    fn submit(&mut self, file: &Arc<BlockingFile>, write: BlockWrite) {
        match &mut self.writes {
            Writes::Ring { tried: false, .. } => self.try_ring(file, write),
            Writes::Ring { ring, .. } => ring.submit(file, write),
            Writes::Blocking(blocking, _) => blocking.submit(file, write),
        }
    }

    fn ended(&mut self) -> Option<EndedWrite> {
        match &mut self.writes {
            Writes::Ring { ring, .. } => ring.ended(),
            Writes::Blocking(blocking, _) => blocking.ended(),
        }
    }

    fn wait(&mut self) {
        match &mut self.writes {
            Writes::Ring { ring, .. } => ring.wait(),
            Writes::Blocking(blocking, _) => blocking.wait(),
        }
    }

    fn waker(&self) -> Waker {
        match &self.writes {
            Writes::Ring { ring, .. } => ring.waker(),
            Writes::Blocking(blocking, _) => blocking.waker(),
        }
    }
}
