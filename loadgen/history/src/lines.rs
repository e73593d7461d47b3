//! Reads and writes histories: one JSON object a line, plain or zstd-compressed.
//!
//! Invariant: what is read is either a sound operation or an error that names file and line.
//! Nothing is skipped, so a verdict over a history is a verdict over all of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Kind, Operation, Outcome};

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
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
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads a whole history. Compression is recognised by the content, not by the name.
pub fn read(path: &Path) -> Result<Vec<Operation>, HistoryError> {
    let failed = |source| HistoryError::File { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let compressed = file.fill_buf().map_err(failed)?.starts_with(&ZSTD_MAGIC);
    let reader: Box<dyn Read> = if compressed {
        Box::new(zstd::Decoder::with_buffer(file).map_err(failed)?)
    } else {
        Box::new(file)
    };
    let mut operations = Vec::new();
    for (index, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let operation = parse(&line).map_err(|problem| HistoryError::Line {
            path: path.to_owned(),
            line: index as u64 + 1,
            problem,
        })?;
        operations.push(operation);
    }
    Ok(operations)
}

/// Writes a history; compressed if the name ends in `.zst`.
pub fn write<'a>(
    path: &Path,
    operations: impl IntoIterator<Item = &'a Operation>,
) -> Result<(), HistoryError> {
    let failed = |source| HistoryError::File { path: path.to_owned(), source };
    let file = BufWriter::new(File::create(path).map_err(failed)?);
    if path.extension().is_some_and(|extension| extension == "zst") {
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(failed)?;
        write_lines(&mut encoder, operations).map_err(failed)?;
        encoder.finish().and_then(|mut file| file.flush()).map_err(failed)
    } else {
        let mut file = file;
        write_lines(&mut file, operations).and_then(|()| file.flush()).map_err(failed)
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_LEVEL: i32 = 3;
/// The keys a line must have; the last four of the format, and `expected`, are optional.
const REQUIRED: [&str; 7] =
    ["process", "op", "key", "value", "invoke_ns", "complete_ns", "outcome"];

fn write_lines<'a>(
    to: &mut impl Write,
    operations: impl IntoIterator<Item = &'a Operation>,
) -> io::Result<()> {
    for operation in operations {
        serde_json::to_writer(&mut *to, operation)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// One line, or what is wrong with it.
fn parse(line: &str) -> Result<Operation, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
    if let Some(missing) = REQUIRED.iter().find(|key| !fields.contains_key(**key)) {
        return Err(format!("`{missing}` is missing"));
    }
    let cas_without_expected = !fields.contains_key("expected");
    let operation =
        Operation::deserialize(Value::Object(fields)).map_err(|error| error.to_string())?;
    check(&operation, cas_without_expected)?;
    Ok(operation)
}

fn check(operation: &Operation, no_expected: bool) -> Result<(), String> {
    let Operation { op, value, expected, invoke_ns, complete_ns, outcome, .. } = operation;
    match (op, value, expected) {
        (Kind::Put | Kind::Cas, None, _) => return Err("`value`: a write needs one".to_owned()),
        (Kind::Delete, Some(_), _) => return Err("`value`: a delete has none".to_owned()),
        (Kind::Cas, ..) if no_expected => {
            return Err(
                "`expected` is missing: a cas needs it (null: the key had to be absent)".to_owned()
            );
        }
        (Kind::Put | Kind::Get | Kind::Delete, _, Some(_)) => {
            return Err("`expected`: only a cas has one".to_owned());
        }
        _ => {}
    }
    match complete_ns {
        Some(complete_ns) if complete_ns < invoke_ns => {
            Err(format!("`complete_ns`: {complete_ns} lies before `invoke_ns` {invoke_ns}"))
        }
        None if *outcome == Outcome::Ok => {
            Err("`complete_ns`: an operation that ended ok completed at some time".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Consistency;

    const LINE: &str = r#"{"process": 3, "op": "put", "key": "k", "value": "v", "invoke_ns": -5, "complete_ns": null, "outcome": "unknown"}"#;

    fn problem_of(line: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        std::fs::write(&path, format!("{LINE}\n{line}\n")).unwrap();
        let problem = read(&path).unwrap_err().to_string();
        let place = format!("{}:2: ", path.display());
        problem.strip_prefix(&place).unwrap_or_else(|| panic!("no place in: {problem}")).to_owned()
    }

    fn operation(process: u32) -> Operation {
        Operation {
            process,
            op: Kind::Get,
            key: "k".to_owned(),
            value: Some("v".to_owned()),
            expected: None,
            invoke_ns: 1,
            complete_ns: Some(2),
            outcome: Outcome::Ok,
            consistency: Consistency::Serializable,
            revision: Some(7),
            node: Some("n1".to_owned()),
            error: None,
        }
    }

    #[test]
    fn the_last_four_are_optional() {
        let operation = parse(LINE).unwrap();
        assert_eq!(operation.consistency, Consistency::Linearizable);
        assert_eq!((operation.revision, operation.node, operation.error), (None, None, None));
        assert_eq!((operation.process, operation.invoke_ns), (3, -5));
    }

    #[test]
    fn what_is_written_is_read_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let operations: Vec<_> = (0..1000).map(operation).collect();
        for name in ["history.jsonl", "history.jsonl.zst"] {
            let path = folder.path().join(name);
            write(&path, &operations).unwrap();
            assert_eq!(read(&path).unwrap(), operations);
        }
        let size = |name: &str| folder.path().join(name).metadata().unwrap().len();
        assert!(size("history.jsonl.zst") * 5 < size("history.jsonl"));
    }

    #[test]
    fn bad_lines_are_named() {
        for (from, to, problem) in [
            (r#""key": "k", "#, "", "`key` is missing"),
            (r#""op": "put""#, r#""op": "swap""#, "unknown variant `swap`"),
            (r#""process": 3"#, r#""process": "x""#, "invalid type"),
            (r#""process": 3"#, r#""process": 3, "colour": 1"#, "unknown field `colour`"),
            (r#""value": "v""#, r#""value": null"#, "`value`: a write needs one"),
            (r#""complete_ns": null"#, r#""complete_ns": -6"#, "lies before"),
            (r#""outcome": "unknown""#, r#""outcome": "ok""#, "`complete_ns`"),
            (r#""op": "put""#, r#""op": "cas""#, "`expected` is missing"),
            ("}", "", "not a JSON object"),
        ] {
            assert!(LINE.contains(from), "{from}");
            let seen = problem_of(&LINE.replace(from, to));
            assert!(seen.contains(problem), "{from} -> {to}: {seen}");
        }
    }

    #[test]
    fn a_missing_file_and_a_cut_archive_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl.zst");
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("history.jsonl.zst"), "{error}");
        let operations: Vec<_> = (0..1000).map(operation).collect();
        write(&path, &operations).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(read(&path), Err(HistoryError::File { .. })));
    }
}
