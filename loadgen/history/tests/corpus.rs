//! Bytes from outside: whatever a history's file holds, reading it ends in operations or in an error
//! with its place, and what was read can be checked and drawn. Never a panic.
//!
//! The corpus is `tests/corpus`: files that are read to their end, and `bad-*`, which are refused.
//! It is replayed as it is, and then changed by a seeded generator. A file that once broke something
//! belongs into it.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use history::linearizability::{CheckProgress, CheckReport, Checker, Limits, Verdict};
use history::{HistoryError, Reader, timeline};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// `HISTORY_ROUNDS=1000000` goes further, `HISTORY_ROUND=7` does one again.
const ROUNDS: u64 = 40_000;

/// What a line is made of, so that changes come upon what means something.
const WORDS: [&str; 32] = [
    "\"process\":",
    "\"op\":",
    "\"key\":",
    "\"value\":",
    "\"expected\":",
    "\"invoke_ns\":",
    "\"complete_ns\":",
    "\"outcome\":",
    "\"put\"",
    "\"get\"",
    "\"cas\"",
    "\"delete\"",
    "\"ok\"",
    "\"fail\"",
    "\"unknown\"",
    "null",
    "\"a\"",
    "\"b\"",
    "0",
    "5",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e400",
    ",",
    "}",
    "{",
    "\n",
    "[[[[[[[[",
    "\\ud800",
    "\u{0}",
];

#[test]
fn the_corpus_is_read_or_refused_as_its_names_say() {
    for (path, bytes) in corpus() {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let read = outcome(&bytes);
        match (name.starts_with("bad-"), read) {
            (true, Err(HistoryError::Line { line, problem, .. })) => {
                assert!(line > 0 && !problem.is_empty(), "{name}");
            }
            (true, Err(HistoryError::Cut { .. })) => {}
            (false, Ok(_)) => {}
            (_, read) => panic!("{name}: {read:?}"),
        }
    }
    let verdict = |name: &str| {
        let (_, bytes) = corpus().into_iter().find(|(path, _)| path.ends_with(name)).expect(name);
        outcome(&bytes).expect(name).verdict
    };
    assert_eq!(verdict("sound.jsonl"), Verdict::Pass);
    assert_eq!(verdict("two-frames.jsonl.zst"), Verdict::Fail);
    assert_eq!(verdict("stale.jsonl"), Verdict::Fail);
}

#[test]
fn changed_files_are_read_or_refused() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let rounds = match number("HISTORY_ROUND") {
        Some(round) => round..round + 1,
        None => 0..number("HISTORY_ROUNDS").unwrap_or(ROUNDS),
    };
    let files: Vec<Vec<u8>> = corpus().into_iter().map(|(_, bytes)| bytes).collect();
    let (mut read, mut refused, mut failed) = (0, 0, 0);
    for round in rounds.clone() {
        let bytes = changed(&files, round);
        let outcome = catch_unwind(|| outcome(&bytes)).unwrap_or_else(|_| {
            let file = std::env::temp_dir().join(format!("history-round-{round}"));
            std::fs::write(&file, &bytes).expect("written");
            panic!(
                "HISTORY_ROUND={round} cargo test --release -p history --test corpus changed\n\
                 the file is {}",
                file.display()
            )
        });
        match outcome {
            Ok(report) => {
                read += 1;
                failed += u64::from(report.verdict == Verdict::Fail);
            }
            Err(_) => refused += 1,
        }
    }
    println!("{read} read, {failed} of them not linearizable; {refused} refused");
    // The changes reach all there is to reach.
    let whole = rounds.end - rounds.start;
    assert!(whole == 1 || (read > whole / 20 && refused > whole / 20 && failed > whole / 100));
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    let bytes = |path: &PathBuf| std::fs::read(path).expect("readable");
    paths.into_iter().map(|path| (path.clone(), bytes(&path))).collect()
}

/// Reads, checks and draws.
fn outcome(bytes: &[u8]) -> Result<CheckReport, HistoryError> {
    let mut checker = Checker::default();
    for read in Reader::over(Path::new("history"), Cursor::new(bytes.to_vec()))? {
        let (line, operation) = read?;
        checker.add(line, &operation);
    }
    let limits = Limits { time: Duration::from_secs(10), memory_bytes: 1 << 20 };
    let report = checker.check(&limits, &CheckProgress::default());
    assert!(timeline(&report.violations).ends_with("</svg>\n"));
    Ok(report)
}

fn changed(files: &[Vec<u8>], round: u64) -> Vec<u8> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(round);
    let mut bytes = files.choose(&mut rng).expect("some").clone();
    // Half of them stay histories: what is checked and drawn is then reached too.
    if rng.random_bool(0.5) {
        (0..rng.random_range(1..=6)).for_each(|_| change_a_field(&mut rng, &mut bytes));
        return bytes;
    }
    let was_compressed = bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(0..40)).min(bytes.len());
        match rng.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            3 => bytes.insert(at, rng.random()),
            4 => {
                // Lines and parts of lines from another file.
                let other = files.choose(&mut rng).expect("some");
                let from = rng.random_range(0..=other.len());
                let to = rng.random_range(from..=other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => replace_value(&mut rng, &mut bytes, at),
        }
    }
    // What is inside an archive is reached by packing it anew.
    if !was_compressed && rng.random_bool(0.2) {
        bytes = zstd::encode_all(bytes.as_slice(), 1).expect("compressed");
    }
    bytes
}

/// Puts what a field may hold in the place of what one of its kind holds somewhere.
fn change_a_field(rng: &mut Xoshiro256PlusPlus, bytes: &mut Vec<u8>) {
    const FIELDS: [(&[u8], [&str; 5]); 6] = [
        (b"\"op\": ", ["\"put\"", "\"get\"", "\"get\"", "\"cas\"", "\"delete\""]),
        (b"\"key\": ", ["\"k\"", "\"k\"", "\"d\"", "\"\"", "\"<&>\""]),
        (b"\"value\": ", ["\"a\"", "\"b\"", "\"c\"", "\"\"", "null"]),
        (b"\"expected\": ", ["\"a\"", "\"b\"", "\"c\"", "\"\"", "null"]),
        (b"\"invoke_ns\": ", ["-9223372036854775808", "0", "3", "6", "9"]),
        (b"\"complete_ns\": ", ["9", "12", "15", "30", "9223372036854775807"]),
    ];
    let (field, values) = FIELDS.choose(rng).expect("some");
    let found: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(field))
        .map(|at| at + field.len())
        .collect();
    let Some(start) = found.choose(rng).copied() else { return };
    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b'\n');
    let end = bytes[start..].iter().position(ends).map_or(bytes.len(), |found| start + found);
    bytes.splice(start..end, values.choose(rng).expect("some").bytes());
}

/// Puts a word in place of the one that stands after a colon or a comma.
fn replace_value(rng: &mut Xoshiro256PlusPlus, bytes: &mut Vec<u8>, at: usize) {
    let ends = |byte: &u8| matches!(byte, b',' | b':' | b'}' | b'\n');
    let start = bytes[at..].iter().position(ends).map_or(bytes.len(), |found| at + found + 1);
    let start = start.min(bytes.len());
    let end = bytes[start..].iter().position(ends).map_or(bytes.len(), |found| start + found);
    let word = WORDS.choose(rng).expect("some");
    bytes.splice(start..end, word.bytes());
}
