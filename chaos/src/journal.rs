//! The undo journal: a line of JSON for each fault, written and synced before the fault is
//! applied, and one more when it is undone. What a run that was cut short left broken is what is
//! noted and not done.
//!
//! Invariant: a [`Noted`] exists only for an entry that is on disk.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::{Error, Victim};

/// What undoes a fault.
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

/// A line that says what to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts the entries of one journal.
    pub entry: u64,
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
enum Line {
    Entry(Entry),
    Done { done: u64 },
}

/// An open journal.
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    next: u64,
}

impl Journal {
    /// Begins the journal of a run at `path`, which must not exist.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Journal { path: path.to_owned(), source };
        let file = OpenOptions::new().create_new(true).append(true).open(path).map_err(failed)?;
        // The name must be as durable as the lines.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        folder.sync_all().map_err(failed)?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { file, next: 1 }) })
    }

    /// Writes down how the fault `fault` on `victim` is undone, and syncs it.
    pub fn note(&self, fault: &str, victim: &Victim, undo: Undo) -> Result<Noted, Error> {
        let stat = victim.proc()?.stat().map_err(|error| victim.proc_error(error))?;
        self.append(|number| {
            Line::Entry(Entry {
                entry: number,
                fault: fault.to_owned(),
                node: victim.name().to_owned(),
                pid: victim.pid(),
                started_ticks: stat.starttime,
                undo,
            })
        })
        .map(|entry| Noted { entry })
    }

    /// Writes down that it was undone.
    pub fn done(&self, noted: Noted) -> Result<(), Error> {
        self.append(|_| Line::Done { done: noted.entry }).map(drop)
    }

    fn append(&self, line: impl FnOnce(u64) -> Line) -> Result<u64, Error> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let number = state.next;
        state.next += 1;
        let written = serde_json::to_string(&line(number)).map_err(std::io::Error::from).and_then(
            |mut text| {
                text.push('\n');
                state.file.write_all(text.as_bytes())?;
                state.file.sync_data()
            },
        );
        written.map_err(|source| Error::Journal { path: self.path.clone(), source })?;
        Ok(number)
    }
}

/// The faults of the journal at `path` that were never undone. A torn last line is one that was
/// never synced, so its fault was never applied.
pub fn not_undone(path: &Path) -> Result<Vec<Entry>, Error> {
    let failed = |source| Error::Journal { path: path.to_owned(), source };
    let lines: Vec<String> = BufReader::new(File::open(path).map_err(failed)?)
        .lines()
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let mut open = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(Line::Entry(entry)) => drop(open.insert(entry.entry, entry)),
            Ok(Line::Done { done }) => drop(open.remove(&done)),
            Err(_) if index + 1 == lines.len() => break,
            Err(error) => {
                let (path, reason) = (path.to_owned(), error.to_string());
                return Err(Error::JournalLine { path, line: index + 1, reason });
            }
        }
    }
    Ok(open.into_values().collect())
}
