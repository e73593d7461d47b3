//! A disk in memory that loses what disks lose: for tests, with every choice drawn from a seed.
//!
//! It keeps two views of each file and of the names: the *cache*, which every process sees and
//! which survives a killed process, and the *platter*, which is all that survives a loss of power.
//! A sync copies a file's dirty sectors from one to the other, a directory sync its names.
//!
//! Invariant: at a loss of power each dirty sector of 512 bytes is kept or lost by itself, and of
//! the unsynced changes of a directory a prefix is kept. After a failed sync the dirty sectors
//! count as clean while the platter misses some of them, as Linux has it: a second sync of the
//! same descriptor succeeds and makes nothing durable. Of writes on their way (`queue`) any may end
//! first; a loss of power or a kill leaves of each all, nothing, or any sectors.

mod queue;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskError, DiskFile};
use queue::SimulatedQueue;
use state::{Inode, NameChange, State, parent};

/// What goes wrong at an armed operation (see [`Simulated::arm`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with EIO: of a write a part is in the cache, of a sync a part is on
    /// the platter, of a change of names nothing happened.
    Eio,
    /// The operation fails with ENOSPC where it needs space, a part of it done; others succeed.
    Enospc,
    /// The power goes before the operation: it and all later ones fail.
    PowerLoss,
    /// The process is killed before the operation: its later operations fail.
    Kill,
}

/// A process's handle to a simulated disk.
#[derive(Clone)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
    process: u64,
}

impl Simulated {
    /// An empty disk; `seed` decides what every fault does.
    pub fn new(seed: u64) -> Self {
        let state = State::new(StdRng::seed_from_u64(seed));
        Self { state: Arc::new(Mutex::new(state)), process: 0 }
    }

    /// Kills the process; the next one sees the cache as it was. Old handles fail from now on;
    /// armed faults are disarmed.
    #[must_use]
    pub fn kill_process(&self) -> Self {
        let mut state = self.lock_state();
        state.process += 1;
        state.armed.clear();
        state.locks.clear();
        state.abandon_what_is_on_its_way();
        Self { state: Arc::clone(&self.state), process: state.process }
    }

    /// Cuts the power and restores it: the next process sees what the platter has, a random part
    /// of what was not synced included. Old handles fail from now on; armed faults are disarmed.
    #[must_use]
    pub fn cut_power(&self) -> Self {
        let mut state = self.lock_state();
        state.process += 1;
        state.powered = true;
        state.armed.clear();
        state.locks.clear();
        state.abandon_what_is_on_its_way();
        state.lose_what_was_not_synced();
        Self { state: Arc::clone(&self.state), process: state.process }
    }

    /// Lets the changing operation (write, fill, sync, create, rename, remove, directory sync)
    /// that comes after `operations` more of them suffer `fault`.
    pub fn arm(&self, operations: u64, fault: Fault) {
        let mut state = self.lock_state();
        let at = state.operations + operations;
        state.armed.insert(at, fault);
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.lock_state().operations
    }

    /// How many bytes files may still grow by, in all; `None`: any number.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.lock_state().free_bytes = free_bytes;
    }

    /// A file's bytes as processes see them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock_state();
        let inode = state.names.get(path)?;
        Some(state.files[inode].cache.clone())
    }

    /// Rots a file: what `change` does to its bytes is durable at once.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock_state();
        let inode = state.names.get(path).copied();
        let file = inode.and_then(|inode| state.files.get_mut(&inode)).expect("no such file");
        change(&mut file.cache);
        file.platter = file.cache.clone();
        file.dirty.clear();
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for an operation that changes nothing.
    fn look(&self, path: &Path, action: &'static str) -> Result<MutexGuard<'_, State>, DiskError> {
        let state = self.lock_state();
        if !state.powered {
            return Err(DiskError::new(path, action, io::Error::other("the power is off")));
        }
        if state.process != self.process {
            return Err(DiskError::new(path, action, io::Error::other("this process was killed")));
        }
        Ok(state)
    }

    /// The state, for an operation that changes something, and the fault it is to suffer.
    fn change(
        &self,
        path: &Path,
        action: &'static str,
    ) -> Result<(MutexGuard<'_, State>, Option<Fault>), DiskError> {
        let mut state = self.look(path, action)?;
        let at = state.operations;
        state.operations += 1;
        let fault = state.armed.remove(&at);
        match fault {
            Some(Fault::PowerLoss) => state.powered = false,
            Some(Fault::Kill) => {
                state.process += 1;
                state.locks.clear();
            }
            fault => return Ok((state, fault)),
        }
        drop(state);
        self.look(path, action).map(|state| (state, None))
    }

    /// As `change`, for an operation on names.
    fn change_names(
        &self,
        path: &Path,
        action: &'static str,
    ) -> Result<MutexGuard<'_, State>, DiskError> {
        match self.change(path, action)? {
            (_, Some(Fault::Eio)) => Err(DiskError::new(path, action, eio())),
            (state, _) => Ok(state),
        }
    }

    fn file(&self, path: &Path, inode: u64, failures: u64) -> SimulatedFile {
        let seen = Mutex::new(failures);
        SimulatedFile { disk: self.clone(), path: path.to_owned(), inode, seen }
    }
}

impl Disk for Simulated {
    type File = SimulatedFile;
    type Lock = SimulatedLock;
    type Queue = SimulatedQueue;

    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        let mut state = self.change_names(dir, "create the directory")?;
        if state.names.contains_key(dir) {
            let error = io::ErrorKind::AlreadyExists.into();
            return Err(DiskError::new(dir, "create the directory", error));
        }
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, DiskError> {
        let state = self.look(dir, "list the directory")?;
        if state.names.contains_key(dir) {
            let error = io::ErrorKind::NotADirectory.into();
            return Err(DiskError::new(dir, "list the directory", error));
        }
        if !state.dirs.contains(dir) {
            return Ok(None);
        }
        let all = state.names.keys().chain(&state.dirs);
        let within = all.filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = within
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort_unstable();
        Ok(Some(names))
    }

    fn create(&self, path: &Path) -> Result<SimulatedFile, DiskError> {
        let action = "create the file";
        let mut state = self.change_names(path, action)?;
        if state.names.contains_key(path) || state.dirs.contains(path) {
            return Err(DiskError::new(path, action, io::ErrorKind::AlreadyExists.into()));
        }
        if !state.dirs.contains(&parent(path)) {
            return Err(DiskError::new(path, action, io::ErrorKind::NotFound.into()));
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.files.insert(inode, Inode::default());
        state.apply(NameChange::Create(path.to_owned(), inode));
        Ok(self.file(path, inode, 0))
    }

    fn open(&self, path: &Path) -> Result<SimulatedFile, DiskError> {
        let state = self.look(path, "open the file")?;
        let Some(inode) = state.names.get(path) else {
            return Err(DiskError::new(path, "open the file", io::ErrorKind::NotFound.into()));
        };
        Ok(self.file(path, *inode, state.files[inode].failures))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut state = self.change_names(from, "rename the file")?;
        if !state.names.contains_key(from) {
            return Err(DiskError::new(from, "rename the file", io::ErrorKind::NotFound.into()));
        }
        state.apply(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.change_names(path, "remove the file")?;
        if !state.names.contains_key(path) {
            return Err(DiskError::new(path, "remove the file", io::ErrorKind::NotFound.into()));
        }
        state.apply(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        let mut state = self.change_names(dir, "sync the directory")?;
        if !state.dirs.contains(dir) {
            return Err(DiskError::new(dir, "sync the directory", io::ErrorKind::NotFound.into()));
        }
        let (here, elsewhere) = std::mem::take(&mut state.unsynced_names)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.dir() == dir);
        state.unsynced_names = elsewhere;
        for change in here {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path, note: &str) -> Result<Option<SimulatedLock>, DiskError> {
        if !self.look(path, "lock the file")?.names.contains_key(path) {
            self.create(path)?;
        }
        let mut state = self.look(path, "lock the file")?;
        if state.locks.contains_key(path) {
            return Ok(None);
        }
        state.locks.insert(path.to_owned(), self.process);
        let inode = state.names[path];
        if let Some(file) = state.files.get_mut(&inode) {
            file.cache = note.as_bytes().to_vec();
        }
        Ok(Some(SimulatedLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn queue(&self, depth: usize) -> Result<SimulatedQueue, DiskError> {
        Ok(SimulatedQueue::new(self.clone(), depth))
    }
}

/// Releases the lock when it is dropped.
pub struct SimulatedLock {
    disk: Simulated,
    path: PathBuf,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.disk.lock_state();
        if state.locks.get(&self.path) == Some(&self.disk.process) {
            state.locks.remove(&self.path);
        }
    }
}

/// A file of a simulated disk.
pub struct SimulatedFile {
    disk: Simulated,
    path: PathBuf,
    inode: u64,
    /// Failed write-backs that this description has reported.
    seen: Mutex<u64>,
}

impl SimulatedFile {
    fn write_or_fill(
        &self,
        action: &'static str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let (mut guard, fault) = self.disk.change(&self.path, action)?;
        let state = &mut *guard;
        let file = state.files.get_mut(&self.inode).expect("open files have an inode");
        let end = offset + bytes.len() as u64;
        let growth = end.saturating_sub(file.cache.len() as u64);
        let full = state.free_bytes.is_some_and(|free| growth > free)
            || (fault == Some(Fault::Enospc) && growth > 0);
        let error = match fault {
            Some(Fault::Eio) => eio(),
            _ if full => io::ErrorKind::StorageFull.into(),
            _ => {
                if let Some(free) = &mut state.free_bytes {
                    *free -= growth;
                }
                file.write(offset, bytes);
                return Ok(());
            }
        };
        // A part of it was done before the error; on a full disk, a part within the file.
        let most = if full { bytes.len().saturating_sub(growth as usize) } else { bytes.len() };
        let done = state.random.random_range(0..=most);
        if done > 0 {
            file.write(offset, &bytes[..done]);
        }
        Err(DiskError::new(&self.path, action, error))
    }
}

impl SimulatedFile {
    /// Makes the bytes of a range durable, and no others.
    fn sync_range(&self, start: u64, end: u64) -> Result<(), DiskError> {
        let (mut guard, fault) = self.disk.change(&self.path, "sync")?;
        let state = &mut *guard;
        let file = state.files.get_mut(&self.inode).expect("open files have an inode");
        let failing = fault == Some(Fault::Eio);
        for sector in file.take_dirty(start, end) {
            if !failing || state.random.random_bool(0.5) {
                file.write_back(sector);
            }
        }
        file.failures += u64::from(failing);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *seen, file.failures) < file.failures {
            return Err(DiskError::new(&self.path, "sync", eio()));
        }
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, DiskError> {
        let state = self.disk.look(&self.path, "stat the file")?;
        Ok(state.files[&self.inode].cache.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let state = self.disk.look(&self.path, "read")?;
        let start = offset as usize;
        let Some(bytes) = state.files[&self.inode].cache.get(start..start + buffer.len()) else {
            return Err(DiskError::new(&self.path, "read", io::ErrorKind::UnexpectedEof.into()));
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_or_fill("write", offset, bytes)
    }

    fn fill_zero(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.write_or_fill("fill with zeros", offset, &vec![0; len as usize])
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.sync_range(0, u64::MAX)
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}
