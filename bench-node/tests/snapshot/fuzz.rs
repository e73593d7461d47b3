//! Bytes that no snapshot has, made of those that one has: read without panic, and never into
//! another store.

use std::path::Path;

use bench_node::disk::{Disk, DiskFile, Simulated};
use bench_node::snapshot::{SavedStream, SnapshotError, load_saved};
use raft::EntryId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{GROUP, meta, open, replay, same, seeds, small, store, write};

/// Changes bytes as a rotting or foreign file might have them.
pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let len = bytes.len().max(1);
        let at = random.random_range(0..len);
        let to = random.random_range(at..len) + 1;
        match random.random_range(0..8) {
            0 | 1 => {
                bytes[at..(at + 1).min(len)].iter_mut().for_each(|byte| *byte ^= 1 << (to % 8))
            }
            2 => bytes.truncate(at),
            3 => bytes[at..to.min(at + 600)].fill(random.random()),
            4 => {
                let copy = bytes[at..to.min(at + 3_000)].to_vec();
                let into = random.random_range(0..len);
                bytes.splice(into..into, copy);
            }
            5 => drop(bytes.drain(at..to.min(at + 3_000))),
            // A number, as lengths and counts are.
            6 if at + 8 <= len => {
                let number = [0, 1, u64::MAX, 1 << 31, random.random()][random.random_range(0..5)];
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ => bytes.extend((0..to % 50).map(|_| random.random::<u8>())),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// Puts the right checksums where parts begin, so that what they cover is read although it changed.
fn mend_checksums(bytes: &mut [u8]) {
    let crc_of = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
    };
    if let Some(header) = bytes.get(12..number(bytes, 16) as usize) {
        let crc = crc_of(header);
        bytes[8..12].copy_from_slice(&crc);
    }
    for at in 0..bytes.len() {
        let end = match bytes[at..].first_chunk() {
            Some(b"RBSB") => at + 24 + number(bytes, at + 8) as usize,
            Some(b"RBSE") if at + 40 <= bytes.len() => {
                let crc = crc_of(&bytes[..at]);
                bytes[at + 24..at + 32].copy_from_slice(&(at as u64 + 40).to_le_bytes());
                bytes[at + 32..at + 36].copy_from_slice(&crc);
                at + 40
            }
            _ => continue,
        };
        if let Some(part) = bytes.get(at + 8..end) {
            let crc = crc_of(part);
            bytes[at + 4..at + 8].copy_from_slice(&crc);
        }
    }
}

#[test]
fn no_bytes_make_reading_panic_or_give_another_store() {
    let origin = store(2, 60);
    let disk = Simulated::new(1);
    let snapshot = write(&open(&disk), 10, &origin);
    let whole = disk.bytes(&snapshot.path).unwrap();
    let (mut refused, mut read) = (0, 0);
    for seed in seeds(6_000) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        mutate(&mut bytes, &mut random);
        let mended = random.random_bool(0.5);
        if mended {
            mend_checksums(&mut bytes);
        }
        disk.corrupt(&snapshot.path, |file| *file = bytes);
        match open(&disk).load(GROUP, EntryId::default()) {
            Ok(found) => match found.latest {
                Some((_, loaded)) => {
                    read += 1;
                    // With checksums that were made to match, other records are what it says.
                    let unchanged = same(&loaded, &origin);
                    assert!(mended || unchanged, "another store\n{}", replay(seed, "fuzz"));
                }
                None => refused += 1,
            },
            Err(SnapshotError::Version { .. }) => refused += 1,
            Err(error) => panic!("{error}\n{}", replay(seed, "fuzz")),
        }
    }
    println!("{refused} refused, {read} read");
    if std::env::var_os("RAFTBENCH_SEED").is_none() {
        assert!(refused > 3_000 && read > 10, "{refused} refused, {read} read");
    }
}

#[test]
fn no_bytes_make_loading_a_saved_file_panic() {
    let disk = Simulated::new(1);
    disk.create_dir_all(Path::new("/")).unwrap();
    let path = Path::new("/saved.db");
    let store = store(5, 40);
    let whole: Vec<_> = SavedStream::new(meta(7, &store), store.freeze(), &small()).collect();
    disk.create(path).unwrap().write_at(0, &whole.concat()).unwrap();
    for seed in seeds(2_000) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = whole.concat();
        mutate(&mut bytes, &mut random);
        // The digest is made to match, so that what is behind it is read.
        bytes.resize((bytes.len() / 512).max(1) * 512, 0);
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
        bytes.extend_from_slice(&digest);
        disk.corrupt(path, |file| *file = bytes);
        if let Ok((_, loaded)) = load_saved(&disk, path) {
            assert!(same(&loaded, &store), "another store\n{}", replay(seed, "fuzz"));
        }
    }
}
