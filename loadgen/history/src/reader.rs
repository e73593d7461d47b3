//! Reads histories, plain or zstd-compressed, one line at a time.
//!
//! Invariant: what is read is either a sound operation or an error that names file and line, and
//! after an error nothing more is read. Nothing is skipped, so a verdict over a history is a verdict
//! over all of it. Memory is bounded by the longest line, whatever the file holds.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::line::parse;
use crate::{HistoryError, Operation};

/// A line may not be longer than this, so that a file without line ends does not fill the memory.
pub const MAX_LINE_BYTES: usize = 16 << 20;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The operations of a history, in the file's order, each with its line's number (from 1). Lines
/// of white space hold none.
pub struct Reader {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    line: u64,
    ended: bool,
}

impl Reader {
    /// Opens a file. Compression is recognised by the content, not by the name.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let failed = |source| HistoryError::File { path: path.to_owned(), source };
        Self::over(path, BufReader::new(File::open(path).map_err(failed)?))
    }

    /// Reads from anywhere; `path` is what errors call it.
    pub fn over(
        path: &Path,
        mut file: impl BufRead + Send + 'static,
    ) -> Result<Self, HistoryError> {
        let failed = |source| HistoryError::File { path: path.to_owned(), source };
        let compressed = file.fill_buf().map_err(failed)?.starts_with(&ZSTD_MAGIC);
        let text: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(file).map_err(failed)?))
        } else {
            Box::new(file)
        };
        Ok(Self { path: path.to_owned(), text, buffer: Vec::new(), line: 0, ended: false })
    }

    /// The next line that holds something; `None` at the end.
    fn read(&mut self) -> Result<Option<(u64, Operation)>, HistoryError> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.text).take(MAX_LINE_BYTES as u64 + 1);
            let read = limited.read_until(b'\n', &mut self.buffer).map_err(|source| {
                HistoryError::Cut { path: self.path.clone(), line: self.line, source }
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            let at =
                |problem| HistoryError::Line { path: self.path.clone(), line: self.line, problem };
            if read > MAX_LINE_BYTES {
                return Err(at(format!(
                    "is longer than {MAX_LINE_BYTES} bytes; each line is one operation"
                )));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some((self.line, parse(self.buffer.trim_ascii()).map_err(at)?)));
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<(u64, Operation), HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// A whole history in memory.
pub fn read(path: &Path) -> Result<Vec<Operation>, HistoryError> {
    Reader::open(path)?.map(|read| read.map(|(_, operation)| operation)).collect()
}
