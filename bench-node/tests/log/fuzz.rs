//! Bytes that no log has, made of those that one has: recovery reads them without panic, and gives
//! back nothing that never was.

use std::path::{Path, PathBuf};

use bench_node::disk::{Disk, DiskFile, Simulated};
use bench_node::wal::inspect::inspect;
use bench_node::wal::{self, Options, WalError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::lives::{replay, seeds};
use crate::model::{State, small};

const DIR: &str = "/wal";
const BLOCK_BYTES: usize = 4096;

/// A log with several starts, groups and bases, recycled segments and spares; its files, and all
/// the states that it ever held.
struct Corpus {
    files: Vec<(PathBuf, Vec<u8>)>,
    states: Vec<State>,
}

fn corpus() -> Corpus {
    let disk = Simulated::new(8);
    let mut random = StdRng::seed_from_u64(8);
    let mut state = State::default();
    let mut states = vec![state.clone()];
    for start in 0..3 {
        let options = Options { segment_bytes: 24 << 10, generation_seed: start, ..small() };
        let (mut log, recovered) = wal::open(disk.clone(), Path::new(DIR), options).unwrap();
        assert_eq!(State::of(&recovered), state);
        for id in 1..60 {
            let write = state.next_write(&mut random, id % 2, id);
            log.append(std::slice::from_ref(&write)).unwrap();
            state.apply(&write);
            states.push(state.clone());
        }
    }
    let names = disk.list(Path::new(DIR)).unwrap().unwrap();
    let files: Vec<_> = names
        .into_iter()
        .map(|name| {
            let path = Path::new(DIR).join(name);
            let bytes = disk.bytes(&path).unwrap();
            (path, bytes)
        })
        .collect();
    let segments = inspect(&disk, Path::new(DIR)).unwrap();
    assert!(segments.len() > 3 && segments.iter().any(|segment| segment.stale_bytes > 0));
    assert!(segments[0].number > 1, "its beginning was released");
    Corpus { files, states }
}

/// Changes the files as rot, a foreign program or a bad copy might.
fn mutate(files: &mut Vec<(PathBuf, Vec<u8>)>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..files.len());
        let other = random.random_range(0..files.len());
        let kind = random.random_range(0..12);
        if kind == 0 && files.len() > 1 {
            files.remove(at);
            continue;
        }
        if kind == 1 {
            // One file's bytes under another one's name.
            files[at].1 = files[other].1.clone();
            continue;
        }
        let blocks = files[other].1.len() / BLOCK_BYTES;
        let copied = (blocks > 0).then(|| {
            let from = random.random_range(0..blocks) * BLOCK_BYTES;
            files[other].1[from..from + BLOCK_BYTES].to_vec()
        });
        let bytes = &mut files[at].1;
        // Mostly where something is.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 1);
        let byte = random.random_range(0..used.max(1));
        let block = byte / BLOCK_BYTES * BLOCK_BYTES;
        match kind {
            2 => bytes.truncate(byte),
            3 => bytes[byte..(byte + 700).min(used)].fill(random.random()),
            4 | 5 => {
                let Some(copied) = copied.filter(|_| block + BLOCK_BYTES <= bytes.len()) else {
                    continue;
                };
                bytes[block..block + BLOCK_BYTES].copy_from_slice(&copied);
            }
            // A field of a batch's header or of its first records.
            6..=8 if block + 96 <= bytes.len() => {
                let field = block + 8 * random.random_range(0..12);
                let number =
                    [0, 1, 7, 1 << 32, u64::MAX, random.random()][random.random_range(0..6)];
                bytes[field..field + 8].copy_from_slice(&u64::to_le_bytes(number));
            }
            _ if byte < bytes.len() => bytes[byte] ^= 1 << random.random_range(0..8),
            _ => {}
        }
    }
}

/// Puts the right checksums where parts begin, so that what they cover is read although it changed.
fn mend_checksums(bytes: &mut [u8]) {
    for at in (0..bytes.len() / BLOCK_BYTES * BLOCK_BYTES).step_by(BLOCK_BYTES) {
        let number =
            |at: usize| bytes[at..at + 4].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let (crc_at, from, to) = match &bytes[at..at + 8] {
            b"RBLOGSEG" => (at + 8, at + 12, at + BLOCK_BYTES),
            [b'R', b'B', b'L', b'B', ..] => (at + 4, at + 8, at + 56 + number(at + 8) as usize),
            _ => continue,
        };
        if let Some(covered) = bytes.get(from..to) {
            let crc = crc32c::crc32c(covered).to_le_bytes();
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc);
        }
    }
}

#[test]
fn no_bytes_make_recovery_panic_or_give_back_what_never_was() {
    let Corpus { files, states } = corpus();
    let (mut refused, mut opened, mut senseless) = (0, 0, 0);
    for seed in seeds(5_000) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut files = files.clone();
        mutate(&mut files, &mut random);
        let mended = random.random_bool(0.4);
        let disk = Simulated::new(seed);
        disk.create_dir_all(Path::new(DIR)).unwrap();
        for (path, bytes) in &mut files {
            if mended {
                mend_checksums(bytes);
            }
            disk.create(path).unwrap().write_at(0, bytes).unwrap();
        }
        inspect(&disk, Path::new(DIR)).map(|segments| segments.len()).unwrap_or_default();
        match wal::open(disk, Path::new(DIR), small()) {
            Ok((_, recovered)) => {
                opened += 1;
                // With checksums that were made to match, anything may be what it says.
                let was = states.contains(&State::of(&recovered));
                assert!(mended || was, "a state that never was\n{}", replay(seed, "fuzz"));
            }
            Err(WalError::Damaged { kind: wal::DamageKind::Content { .. }, .. }) => senseless += 1,
            Err(WalError::Damaged { .. } | WalError::Version { .. }) => refused += 1,
            Err(error) => panic!("{error}\n{}", replay(seed, "fuzz")),
        }
    }
    println!("{refused} refused, {senseless} senseless, {opened} opened");
    if std::env::var_os("RAFTBENCH_SEED").is_none() {
        assert!(refused > 1_000 && opened > 500 && senseless > 50);
    }
}
