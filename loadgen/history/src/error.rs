//! Why a history could not be read or written.

use std::io;
use std::path::PathBuf;

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be opened or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read to its end: a damaged or cut archive, for example.
    #[error("{}: cannot be read on after line {line}: {source}", path.display())]
    Cut {
        /// Which.
        path: PathBuf,
        /// The last line that could be read, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A line is not an operation.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// In which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong with it, with the field's name, and what is allowed.
        problem: String,
    },
}
