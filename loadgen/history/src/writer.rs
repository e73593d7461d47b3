//! Writes histories, plain or zstd-compressed, as they come.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::{HistoryError, Operation};

const ZSTD_LEVEL: i32 = 3;

/// Writes a history, one operation a line; compressed if the name ends in `.zst`.
pub fn write<O: Borrow<Operation>>(
    path: &Path,
    operations: impl IntoIterator<Item = O>,
) -> Result<(), HistoryError> {
    let failed = |source| HistoryError::File { path: path.to_owned(), source };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    if path.extension().is_some_and(|extension| extension == "zst") {
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(failed)?;
        write_lines(&mut encoder, operations).map_err(failed)?;
        encoder.finish().and_then(|mut file| file.flush()).map_err(failed)
    } else {
        write_lines(&mut file, operations).and_then(|()| file.flush()).map_err(failed)
    }
}

fn write_lines<O: Borrow<Operation>>(
    to: &mut impl Write,
    operations: impl IntoIterator<Item = O>,
) -> io::Result<()> {
    for operation in operations {
        serde_json::to_writer(&mut *to, operation.borrow())?;
        to.write_all(b"\n")?;
    }
    Ok(())
}
