//! The lines of a history: what is written is read, and what is wrong is named.

use history::{
    Consistency, HistoryError, Kind, MAX_LINE_BYTES, Operation, Outcome, Reader, read, write,
};

const LINE: &str = r#"{"process": 3, "op": "put", "key": "k", "value": "v", "invoke_ns": -5, "complete_ns": null, "outcome": "unknown"}"#;

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

/// Reads a file that holds a sound line, an empty one, and this.
fn read_with(line: &[u8]) -> Result<Vec<Operation>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.jsonl");
    let text = [LINE.as_bytes(), b"\n\n", line, b"\n"].concat();
    std::fs::write(&path, text).expect("written");
    let place = format!("{}:3: ", path.display());
    read(&path).map_err(|error| {
        let text = error.to_string();
        text.strip_prefix(&place).unwrap_or_else(|| panic!("no place in: {text}")).to_owned()
    })
}

#[test]
fn the_last_four_are_optional() {
    let operations = read_with(LINE.as_bytes()).expect("sound");
    let [_, operation] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!(operation.consistency, Consistency::Linearizable);
    assert_eq!((operation.revision, &operation.node, &operation.error), (None, &None, &None));
    assert_eq!((operation.process, operation.invoke_ns), (3, -5));
}

#[test]
fn what_is_written_is_read_plain_and_compressed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut operations: Vec<_> = (0..1000).map(operation).collect();
    for expected in [None, Some("é\"\\\u{1F600}".to_owned())] {
        operations.push(Operation { op: Kind::Cas, expected, ..operation(7) });
    }
    for name in ["history.jsonl", "history.jsonl.zst"] {
        let path = folder.path().join(name);
        write(&path, &operations).expect("written");
        assert_eq!(read(&path).expect("read"), operations);
    }
    let size = |name: &str| folder.path().join(name).metadata().expect("a file").len();
    assert!(size("history.jsonl.zst") * 5 < size("history.jsonl"));
}

#[test]
fn bad_lines_are_named_with_the_field_and_what_is_allowed() {
    for (from, to, problem) in [
        (r#""key": "k", "#, "", "`key` is missing: a string"),
        (r#""value": "v", "#, "", "`value` is missing: a string or null"),
        (r#""complete_ns": null, "#, "", "`complete_ns` is missing: a whole number of ns, or null"),
        (
            r#""op": "put""#,
            r#""op": "swap""#,
            r#"`op` must be "put", "get", "cas" or "delete", not "swap""#,
        ),
        (
            r#""process": 3"#,
            r#""process": "x""#,
            r#"`process` must be a whole number from 0 to 4294967295, not "x""#,
        ),
        (r#""process": 3"#, r#""process": -1"#, "`process` must be"),
        (r#""invoke_ns": -5"#, r#""invoke_ns": 1.5"#, "`invoke_ns` must be a whole number of ns"),
        (r#""invoke_ns": -5"#, r#""invoke_ns": 9223372036854775808"#, "`invoke_ns` must be"),
        (r#""outcome": "unknown""#, r#""outcome": null"#, "`outcome` must be \"ok\""),
        (
            r#""process": 3"#,
            r#""process": 3, "colour": 1"#,
            "`colour` is no field of an operation; the fields are process, op",
        ),
        (r#""process": 3"#, r#""process": 3, "process": 4"#, "duplicate field `process`"),
        (r#""value": "v""#, r#""value": null"#, "`value` is null; a write needs a string"),
        (r#""op": "put""#, r#""op": "delete""#, "`value` of a delete must be null"),
        (r#""value": "v""#, r#""value": "v", "expected": "x""#, "`expected` is only for a cas"),
        (r#""complete_ns": null"#, r#""complete_ns": -6"#, "`complete_ns` is -6, before"),
        (r#""outcome": "unknown""#, r#""outcome": "ok""#, "`complete_ns` is null; an operation"),
        (r#""op": "put""#, r#""op": "cas""#, "`expected` is missing: a string, or null where"),
        ("}", "", "is not JSON: EOF while parsing an object at column"),
        ("}", "} {}", "is not JSON: trailing characters at column"),
    ] {
        assert!(LINE.contains(from), "{from}");
        let seen = read_with(LINE.replace(from, to).as_bytes()).expect_err(to);
        assert!(seen.contains(problem), "{from} -> {to}: {seen}");
    }
    for (line, problem) in [
        (&b"[1, 2]"[..], "is not a JSON object"),
        (b"\xff\xfe", "is not JSON"),
        (b"{\"key\": \"\xff\"}", "is not JSON"),
        (&[b'['; 4096], "recursion limit"),
    ] {
        let seen = read_with(line).expect_err("no operation");
        assert!(seen.contains(problem), "{seen}");
    }
}

#[test]
fn a_file_without_line_ends_does_not_fill_the_memory() {
    let seen = read_with(&vec![b'x'; MAX_LINE_BYTES + 1]).expect_err("too long");
    assert!(seen.contains("is longer than 16777216 bytes"), "{seen}");
}

#[test]
fn nothing_is_read_after_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.jsonl");
    std::fs::write(&path, format!("{LINE}\nnonsense\n{LINE}\n")).expect("written");
    let mut reader = Reader::open(&path).expect("opened");
    assert!(matches!(reader.next(), Some(Ok((1, _)))));
    assert!(matches!(reader.next(), Some(Err(HistoryError::Line { line: 2, .. }))));
    assert!(reader.next().is_none());
}

#[test]
fn a_missing_file_and_a_cut_archive_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.jsonl.zst");
    let error = read(&path).expect_err("missing").to_string();
    assert!(error.contains("history.jsonl.zst"), "{error}");
    let operations: Vec<_> = (0..1000).map(operation).collect();
    write(&path, &operations).expect("written");
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    let error = read(&path).expect_err("cut").to_string();
    assert!(error.contains("cannot be read on after line"), "{error}");
}
