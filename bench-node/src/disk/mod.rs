//! The file operations that the log and the identity rest on, and nothing more.
//!
//! Invariant: what a returned `sync` or `sync_dir` covers survives the loss of power; everything
//! else may be lost, kept or torn, in any order, and callers must count on each. An error means
//! that nobody knows what reached the disk: the callers stop, they do not try again.
//!
//! [`Blocking`] is the host's file system through plain system calls, [`Host`] the same with the
//! log's writes on io_uring where that is wanted and works, [`Simulated`] keeps files in memory and injects
//! faults; one conformance suite (`tests/disk_conformance.rs`) holds all to the same behaviour. What
//! goes into the files is left to [`crate::wal`] and [`crate::identity`].

mod blocking;
mod blocks;
mod host;
mod one_by_one;
mod ring;
mod simulated;
mod wakeup;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub use blocking::Blocking;
pub use blocks::Blocks;
pub use host::{Host, LogDisk};
pub use one_by_one::OneByOne;
pub use simulated::{Fault, Simulated};

/// The unit that a disk is written in: batches start on a block, and no two share one.
pub const BLOCK_BYTES: usize = 4096;

/// A place for files. Clones are handles to the same place.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Holds an exclusive lock until it is dropped.
    type Lock: Send + Sync + 'static;
    /// Writes on their way to its files.
    type Queue: WriteQueue<File = Self::File>;

    /// Makes a directory and all above it; one that exists is fine. What was made is durable.
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError>;
    /// The names in a directory, sorted; `None` where there is no such directory.
    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, DiskError>;
    /// Makes an empty file; one that exists is an error.
    fn create(&self, path: &Path) -> Result<Self::File, DiskError>;
    /// Opens a file that exists, with its own file description: each description hears of a
    /// failed write-back once, so that one reader of errors cannot hide them from another.
    fn open(&self, path: &Path) -> Result<Self::File, DiskError>;
    /// Gives a file another name in the same directory, atomically; replaces what had that name.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;
    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError>;
    /// Locks `path` (made where it is missing, and left there) against every other process;
    /// `None` where another holds it. `note` is written into the file for people to read.
    fn lock(&self, path: &Path, note: &str) -> Result<Option<Self::Lock>, DiskError>;
    /// A queue for one thread's writes, of which at most `depth` (1 or more) are to be on their way
    /// at once.
    fn queue(&self, depth: usize) -> Result<Self::Queue, DiskError>;
}

/// An open file; positions are explicit, so that several threads can share it.
pub trait DiskFile: Send + Sync + 'static {
    /// Where it was opened.
    fn path(&self) -> &Path;
    /// Bytes up to its end.
    fn len(&self) -> Result<u64, DiskError>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`; an end of file before that is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `bytes`; after an error any part of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Writes zeros. Real ones: an overwrite of written blocks syncs without touching metadata,
    /// which blocks that are only reserved (fallocate) do not give.
    fn fill_zero(&self, offset: u64, len: u64) -> Result<(), DiskError>;
    /// Makes the file's bytes and length durable (fdatasync). Its name needs [`Disk::sync_dir`].
    fn sync(&self) -> Result<(), DiskError>;
}

/// Writes on their way, each with a sync of its own. They may end in any order, and none of them
/// says anything of another.
///
/// A queue belongs to one thread; only its [`waker`](Self::waker) is for others. Dropping it waits
/// for what is on its way.
pub trait WriteQueue: Send + 'static {
    /// What is written to.
    type File: DiskFile;

    /// How many may be on their way at once; 1 where each is over when [`submit`](Self::submit)
    /// returns.
    fn depth(&self) -> usize;
    /// How the writes reach the disk, and, where that is not what was asked for, why.
    fn how(&self) -> QueueKind;
    /// Begins a write. Whatever becomes of it is told by [`ended`](Self::ended), once. Writes that
    /// are on their way together must not overlap.
    fn submit(&mut self, file: &Arc<Self::File>, write: BlockWrite);
    /// One that ended.
    fn ended(&mut self) -> Option<EndedWrite>;
    /// Waits until one ended that was not told yet, or the waker was used since the last wait; may
    /// return for no reason.
    fn wait(&mut self);
    /// Ends a wait, now or the next one, from any thread.
    fn waker(&self) -> Waker;
}

/// What a queue is to write.
#[derive(Debug)]
pub struct BlockWrite {
    /// The caller's name for it.
    pub id: u64,
    /// Where in the file; a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
    /// What is written.
    pub blocks: Blocks,
    /// Whether bytes, and the file's length, are to be durable when it has ended.
    pub sync: bool,
}

/// A write of a queue that is over.
#[derive(Debug)]
pub struct EndedWrite {
    /// As it was submitted.
    pub id: u64,
    /// The memory, for the next one.
    pub blocks: Blocks,
    /// The time it took; after an error any part of it may be there, durable or not.
    pub result: Result<WriteTime, DiskError>,
}

/// What a write took.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteTime {
    /// Without the sync; zero where the two cannot be told apart.
    pub write: Duration,
    /// The sync; all of it where the two cannot be told apart; zero where there was none.
    pub sync: Duration,
}

/// How a queue's writes reach the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueKind {
    /// `blocking`, `io_uring` or `simulated`.
    pub name: &'static str,
    /// Why it is not io_uring, where that was wanted.
    pub fallen_back: Option<String>,
}

/// A file operation that failed: where, what, and what to do.
#[derive(Clone, Debug)]
pub struct DiskError {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried, as in "cannot ...".
    pub action: &'static str,
    /// What the system said.
    pub error: Arc<io::Error>,
}

impl DiskError {
    pub(crate) fn new(path: &Path, action: &'static str, error: io::Error) -> Self {
        Self { path: path.to_owned(), action, error: Arc::new(error) }
    }

    /// The kind of what the system said.
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    fn advice(&self) -> &'static str {
        const EIO: i32 = 5;
        match self.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; free space on this volume, then start the member again"
            }
            io::ErrorKind::PermissionDenied => "; the member's user must own this directory",
            io::ErrorKind::ReadOnlyFilesystem => "; the volume is mounted read-only",
            _ if self.error.raw_os_error() == Some(EIO) => {
                "; the device fails: check the kernel's log, and do not trust this volume"
            }
            _ => "",
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, action, error } = self;
        write!(f, "{}: cannot {action}: {error}{}", path.display(), self.advice())
    }
}

impl std::error::Error for DiskError {}
