//! The undo journal: a line of JSON for each fault, written and synced before the fault is
//! applied, and one more when it is undone. What was cut short and left broken is what is noted and
//! not done.
//!
//! What an entry says is its owner's: that of a run names a process ([`Entry`]), and ends with the
//! run; that of the agent ([`crate::agent`]) says what undoes it on the host, and outlives the agent.
//!
//! Invariant: a [`Noted`] exists only for an entry that is on disk.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::is_planted;
use crate::{Error, Victim};

/// What undoes a fault of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Start the process again.
    Restart,
    /// Let the process go on.
    Resume,
    /// Let its disk serve again, and start it again where that ended it.
    MendDisk,
    /// Give the links back what they had. They are the lab's, and end with it.
    OpenLinks,
}

/// A fault whose undo is on disk.
#[derive(Debug)]
pub struct Noted {
    entry: u64,
}

/// What a run's journal says to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The fault's id in its plan.
    pub fault: String,
    /// Its victim.
    pub node: String,
    /// The victim's process then.
    pub pid: i32,
    /// When that process started, in ticks since boot: with the pid it names one process for good.
    pub started_ticks: u64,
    /// What undoes it.
    pub undo: Undo,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line<E> {
    Entry {
        /// Counts the entries of one journal.
        entry: u64,
        #[serde(flatten)]
        what: E,
    },
    Done {
        done: u64,
    },
}

/// What a journal says to undo.
pub type ToUndo<E> = Vec<(Noted, E)>;

/// An open journal, whose entries are of type `E`.
pub struct Journal<E = Entry> {
    path: PathBuf,
    state: Mutex<State>,
    entries: PhantomData<fn(E)>,
}

struct State {
    file: File,
    next: u64,
}

impl Journal {
    /// Begins the journal of a run at `path`, which must not exist.
    pub fn create(path: &Path) -> Result<Self, Error> {
        Self::begin(path)
    }

    /// Writes down how the fault `fault` on `victim` is undone, and syncs it.
    pub fn note(&self, fault: &str, victim: &Victim, undo: Undo) -> Result<Noted, Error> {
        let (fault, node) = (fault.to_owned(), victim.name().to_owned());
        let started_ticks = victim.started_ticks()?;
        self.write_down(Entry { fault, node, pid: victim.pid(), started_ticks, undo })
    }
}

impl<E: Serialize + DeserializeOwned> Journal<E> {
    fn begin(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Journal { path: path.to_owned(), source };
        let file = OpenOptions::new().create_new(true).append(true).open(path).map_err(failed)?;
        // The name must be as durable as the lines.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        folder.sync_all().map_err(failed)?;
        Ok(Self::of(path, file, 1))
    }

    /// Goes on with the journal at `path`, or begins it, for this process alone; `None`: another
    /// process holds it. Also what it says to undo.
    pub fn go_on(path: &Path) -> Result<Option<(Self, ToUndo<E>)>, Error> {
        let failed = |source| Error::Journal { path: path.to_owned(), source };
        match Self::begin(path) {
            Err(Error::Journal { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
        if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return match errno {
                rustix::io::Errno::WOULDBLOCK => Ok(None),
                _ => Err(failed(errno.into())),
            };
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let read = read(path, &bytes)?;
        // A torn line would spoil the one that is written next.
        file.set_len(read.whole_bytes as u64).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let next = read.open.keys().last().map_or(1, |last| last + 1);
        let open = read.open.into_iter().map(|(entry, what)| (Noted { entry }, what)).collect();
        Ok(Some((Self::of(path, file, next), open)))
    }

    /// Writes down how a fault is undone, and syncs it.
    pub fn write_down(&self, what: E) -> Result<Noted, Error> {
        let mut state = self.state();
        let entry = state.next;
        state.next += 1;
        if !is_planted("undo-is-not-noted") {
            self.append(&mut state.file, &Line::Entry { entry, what })?;
        }
        Ok(Noted { entry })
    }

    /// Writes down that it was undone.
    pub fn done(&self, noted: Noted) -> Result<(), Error> {
        self.append(&mut self.state().file, &Line::Done { done: noted.entry })
    }

    /// Forgets all entries, which must be done.
    pub fn empty(&self) -> Result<(), Error> {
        let failed = |source| Error::Journal { path: self.path.clone(), source };
        let state = self.state();
        state.file.set_len(0).and_then(|()| state.file.sync_all()).map_err(failed)
    }

    fn of(path: &Path, file: File, next: u64) -> Self {
        let state = Mutex::new(State { file, next });
        Self { path: path.to_owned(), state, entries: PhantomData }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, file: &mut File, line: &Line<E>) -> Result<(), Error> {
        let written =
            serde_json::to_string(line).map_err(std::io::Error::from).and_then(|mut text| {
                text.push('\n');
                file.write_all(text.as_bytes())?;
                file.sync_data()
            });
        written.map_err(|source| Error::Journal { path: self.path.clone(), source })
    }
}

/// The faults of a run's journal at `path` that were never undone. A torn last line is one that was
/// never synced, so its fault was never applied.
pub fn not_undone(path: &Path) -> Result<Vec<Entry>, Error> {
    open_entries(path)
}

/// What the journal at `path`, whose entries are of type `E`, notes and has not as done.
pub(crate) fn open_entries<E: DeserializeOwned>(path: &Path) -> Result<Vec<E>, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Journal { path: path.to_owned(), source })?;
    Ok(read(path, &bytes)?.open.into_values().collect())
}

/// A journal as it was found.
struct Found<E> {
    /// Noted and not done.
    open: BTreeMap<u64, E>,
    /// What comes after them is torn.
    whole_bytes: usize,
}

fn read<E: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Found<E>, Error> {
    let mut found = Found { open: BTreeMap::new(), whole_bytes: 0 };
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let is_last = found.whole_bytes + line.len() == bytes.len();
        match serde_json::from_slice(line) {
            Ok(_) if !line.ends_with(b"\n") => break,
            Ok(Line::Entry { entry, what }) => drop(found.open.insert(entry, what)),
            Ok(Line::Done { done }) => drop(found.open.remove(&done)),
            Err(_) if is_last => break,
            Err(error) => {
                let (path, reason) = (path.to_owned(), error.to_string());
                return Err(Error::JournalLine { path, line: index + 1, reason });
            }
        }
        found.whole_bytes += line.len();
    }
    Ok(found)
}
