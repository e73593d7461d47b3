//! The host's disk with a gate before the log: while it is closed, no batch is written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bench_node::disk::{Blocking, Disk, DiskError, DiskFile, OneByOne};

/// Clones share the gate.
#[derive(Clone, Default)]
pub(crate) struct Gated {
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// What comes through fails.
    fails: bool,
    waiting: usize,
}

impl Gated {
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    pub(crate) fn open(&self) {
        self.state().closed = false;
        self.gate.changed.notify_all();
    }

    /// Opens it; every write of the log fails from now on.
    pub(crate) fn open_and_fail(&self) {
        self.state().fails = true;
        self.open();
    }

    /// Whether a write waits before it.
    pub(crate) fn holds_a_write(&self) -> bool {
        self.state().waiting > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.gate.state.lock().expect("nobody panics holding it")
    }
}

pub(crate) struct GatedFile {
    file: <Blocking as Disk>::File,
    gated: Gated,
}

impl Disk for Gated {
    type File = GatedFile;
    type Lock = <Blocking as Disk>::Lock;
    type Queue = OneByOne<GatedFile>;

    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        Blocking.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, DiskError> {
        Blocking.list(dir)
    }

    fn create(&self, path: &Path) -> Result<GatedFile, DiskError> {
        Ok(GatedFile { file: Blocking.create(path)?, gated: self.clone() })
    }

    fn open(&self, path: &Path) -> Result<GatedFile, DiskError> {
        Ok(GatedFile { file: Blocking.open(path)?, gated: self.clone() })
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

    fn lock(&self, path: &Path, note: &str) -> Result<Option<Self::Lock>, DiskError> {
        Blocking.lock(path, note)
    }

    fn queue(&self, _depth: usize) -> Result<OneByOne<GatedFile>, DiskError> {
        Ok(OneByOne::default())
    }
}

impl DiskFile for GatedFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_at(offset, buffer)
    }

    /// Of the log, batches alone are written so; what is filled ahead is not held.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if self.path().parent().is_some_and(|dir| dir.ends_with("wal")) {
            let mut state = self.gated.state();
            state.waiting += 1;
            let closed = |state: &mut State| state.closed;
            state = self.gated.gate.changed.wait_while(state, closed).expect("nobody panics");
            state.waiting -= 1;
            if state.fails {
                let (path, error) = (PathBuf::from(self.path()), io::Error::from_raw_os_error(5));
                return Err(DiskError { path, action: "write", error: Arc::new(error) });
            }
        }
        self.file.write_at(offset, bytes)
    }

    fn fill_zero(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.file.fill_zero(offset, len)
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync()
    }
}
