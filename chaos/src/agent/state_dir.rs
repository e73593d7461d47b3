//! The agent's state directory: its undo journal, held by one process at a time.
//!
//! Invariant: what is noted there and not undone is undone before anything else is done to the host.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::undo::Entry;
use crate::Error;
use crate::journal::{Journal, Noted};

/// What an agent left, and has not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// The fault's id.
    pub fault: String,
    /// What it did, in words.
    pub told: String,
}

/// What became of it.
pub type Healed = (LeftBehind, Result<String, Error>);

/// An open state directory.
pub(super) struct StateDir {
    pub(super) journal: Journal<Entry>,
    pub(super) healed: Vec<Healed>,
}

/// What the agent of the state directory `folder` left behind. Nothing, while an agent holds it: that
/// one undoes its own.
pub fn left_behind(folder: &Path) -> Result<Vec<LeftBehind>, Error> {
    let path = journal_of(folder);
    match path.exists() {
        false => Ok(Vec::new()),
        true => {
            let Some((_journal, open)) = Journal::<Entry>::go_on(&path)? else {
                return Ok(Vec::new());
            };
            Ok(open.iter().map(|(_, entry)| entry.into()).collect())
        }
    }
}

/// Undoes all that is left behind, as an agent would when it starts. Nothing, while an agent holds it.
pub fn heal(folder: &Path) -> Result<Vec<Healed>, Error> {
    match journal_of(folder).exists() {
        false => Ok(Vec::new()),
        true => Ok(StateDir::open(folder)?.map(|state| state.healed).unwrap_or_default()),
    }
}

impl StateDir {
    /// Opens it, or makes it, and undoes what is left behind. `None`: another process holds it.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, Error> {
        check(folder)?;
        let Some((journal, open)) = Journal::<Entry>::go_on(&journal_of(folder))? else {
            return Ok(None);
        };
        let healed = undo_all(&journal, open)?;
        if healed.iter().all(|(_, result)| result.is_ok()) {
            journal.empty()?;
        }
        Ok(Some(Self { journal, healed }))
    }
}

fn undo_all(journal: &Journal<Entry>, open: Vec<(Noted, Entry)>) -> Result<Vec<Healed>, Error> {
    let mut healed = Vec::new();
    // The last one first, as they may lie upon each other.
    for (noted, entry) in open.into_iter().rev() {
        let result = entry.undo();
        if result.is_ok() {
            journal.done(noted)?;
        }
        healed.push(((&entry).into(), result));
    }
    Ok(healed)
}

impl From<&Entry> for LeftBehind {
    fn from(entry: &Entry) -> Self {
        Self { fault: entry.fault.clone(), told: entry.told.clone() }
    }
}

fn journal_of(folder: &Path) -> PathBuf {
    folder.join("undo.jsonl")
}

/// Who can write there can have the agent run what they like.
fn check(folder: &Path) -> Result<(), Error> {
    let failed = |problem: std::io::Error| wrong(folder, problem.to_string());
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let metadata = std::fs::metadata(folder).map_err(failed)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        let reason = "belongs to another user, or others can write to it; the agent does what is \
                      written there: make it its own (chmod 700)";
        return Err(wrong(folder, reason.into()));
    }
    Ok(())
}

fn wrong(path: &Path, reason: String) -> Error {
    Error::StateDir { path: path.to_owned(), reason }
}
