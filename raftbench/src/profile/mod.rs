//! A profile: the text that describes a run, and its way to a [`Plan`].
//!
//! Invariant: every value keeps the line or the flag that it came from until it was checked, so
//! that each refusal names its place; and everything that can be refused is refused here, before
//! anything starts.

mod disk_faults;
mod disks;
pub(crate) mod document;
pub mod embedded;
mod faults;
mod link_faults;
mod networks;
mod random;
pub(crate) mod section;
mod sections;

use std::path::Path;

use crate::plan::Plan;
pub use document::Change;
use document::Document;

/// A profile's text, not yet parsed.
#[derive(Clone, Debug)]
pub struct Profile {
    /// An embedded profile's name, or the file's stem.
    pub name: String,
    /// What errors call it.
    file: String,
    text: String,
}

impl Profile {
    /// The embedded profile of that name, or the file at that path (anything with a `/` or ending
    /// in `.toml`).
    pub fn find(name_or_path: &str) -> Result<Self, ProfileError> {
        if !name_or_path.contains('/') && !name_or_path.ends_with(".toml") {
            return Ok(Self {
                name: name_or_path.to_owned(),
                file: format!("profiles/{name_or_path}.toml"),
                text: embedded::text(name_or_path)?.to_owned(),
            });
        }
        let text = std::fs::read_to_string(name_or_path)
            .map_err(|source| ProfileError::Unreadable { path: name_or_path.to_owned(), source })?;
        let stem = Path::new(name_or_path).file_stem().unwrap_or_default();
        Ok(Self { name: stem.to_string_lossy().into_owned(), file: name_or_path.to_owned(), text })
    }

    /// A profile from text; `file` is what errors call it.
    pub fn from_text(name: &str, file: &str, text: &str) -> Self {
        Self { name: name.to_owned(), file: file.to_owned(), text: text.to_owned() }
    }

    /// Parses and checks it whole. `key_prefix` must be new to the cluster.
    pub fn plan(
        &self,
        changes: &[Change],
        seed: u64,
        key_prefix: &str,
    ) -> Result<Plan, ProfileError> {
        let mut document = Document::parse(&self.file, &self.text)?;
        for change in changes {
            document.apply(change)?;
        }
        sections::plan(&document, &self.name, seed, key_prefix)
    }
}

/// Why a profile was refused. Each message is complete: where, what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No embedded profile has that name.
    #[error(
        "no {what} is called `{name}`{hint}\nthere are: {known}\na {what}'s file is given by its path, as in ./{name}.toml"
    )]
    UnknownName {
        /// `profile`, `network` or `disk`.
        what: &'static str,
        /// As asked.
        name: String,
        /// The nearest, if near.
        hint: String,
        /// All.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read the profile {path}: {source}")]
    Unreadable {
        /// As asked.
        path: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{file}:{line}: not valid TOML: {message}")]
    Syntax {
        /// The profile.
        file: String,
        /// 1-based.
        line: usize,
        /// The parser's word.
        message: String,
    },
    /// A flag that is not of the form it should be.
    #[error("{flag}: {message}")]
    Flag {
        /// As given.
        flag: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A key or its value is not allowed.
    #[error("{place} {message}")]
    Refused {
        /// File, line and key, or the flag.
        place: String,
        /// What is wrong, and what to do.
        message: String,
    },
}

/// "; did you mean `x`?" where one of `known` is near `word`, else nothing.
fn nearest(word: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map_or(String::new(), |(_, candidate)| format!("; did you mean `{candidate}`?"))
}

/// "`a`, `b` or `c`".
fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
