//! One log, torn in every way that a crash can tear it.

use std::path::{Path, PathBuf};

use bench_node::disk::{BLOCK_BYTES, Disk, DiskFile, Simulated};
use bench_node::wal::{self, Options};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{GROUP, State, small, write};

const DIR: &str = "/wal";
/// Bytes of a batch with one entry, but for the entry's data: two headers, kind and group, term,
/// index, length.
const USED: usize = 56 + 2 + 8 + 8 + 4;

/// A log of one segment: its bytes after each batch, and what it then holds. Only the opening
/// batch is durable; the others record no more than that, as batches do that are on their way
/// together.
struct InFlight {
    path: PathBuf,
    images: Vec<Vec<u8>>,
    states: Vec<State>,
    offsets: Vec<usize>,
}

fn in_flight(lengths: &[usize]) -> InFlight {
    let disk = Simulated::new(1);
    let options = Options { unsafe_no_fsync: true, segment_bytes: 1 << 20, ..small() };
    let (mut log, _) = wal::open(disk.clone(), Path::new(DIR), options).unwrap();
    let path = PathBuf::from(DIR).join("segment-0000000000000001");
    let mut images = vec![disk.bytes(&path).unwrap()];
    let mut states = vec![State::default()];
    let mut offsets = vec![2 * BLOCK_BYTES];
    for (at, length) in lengths.iter().enumerate() {
        let id = at as u64 + 1;
        let write = write(id, 1, id, *length);
        let appended = log.append(std::slice::from_ref(&write)).unwrap();
        offsets.push(offsets[at] + appended.bytes as usize);
        let mut state = states[at].clone();
        state.apply(&write);
        states.push(state);
        images.push(disk.bytes(&path).unwrap());
    }
    InFlight { path, images, states, offsets }
}

impl InFlight {
    fn last(&self) -> &[u8] {
        self.images.last().expect("the opening batch is there")
    }

    /// Starts on `bytes`, expects the first `batches` batches, and that what was cut stays cut:
    /// over the next starts, and over new batches of the size of the lost ones.
    fn holds(&self, bytes: &[u8], batches: usize, what: &str) {
        let disk = Simulated::new(2);
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let file = disk.create(&self.path).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();

        let mut expected = self.states[batches].clone();
        for start in 0..3_u64 {
            let (mut log, recovered) = wal::open(disk.clone(), Path::new(DIR), small()).unwrap();
            assert_eq!(State::of(&recovered), expected, "{what}, start {start}");
            let index = expected.group(GROUP).last_index() + 1;
            let next = write(100 + start, 2, index, 100);
            log.append(std::slice::from_ref(&next)).unwrap();
            expected.apply(&next);
        }
    }
}

#[test]
fn a_batch_torn_at_any_byte_is_cut() {
    let log = in_flight(&[10, 6000]);
    let (start, end) = (log.offsets[1], log.offsets[2]);
    let used = start + USED + 6000;
    for torn_at in start..=end {
        let mut bytes = log.images[1].clone();
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..torn_at].copy_from_slice(&log.last()[start..torn_at]);
        log.holds(&bytes, 1 + usize::from(torn_at >= used), &format!("torn at {torn_at}"));
        // The same with a file that ends there.
        if torn_at % 61 == 0 || torn_at.abs_diff(used) < 3 {
            bytes.truncate(torn_at);
            log.holds(&bytes, 1 + usize::from(torn_at >= used), &format!("ends at {torn_at}"));
        }
    }
}

#[test]
fn of_batches_on_their_way_together_the_whole_ones_before_the_first_gap_are_kept() {
    let lengths = [10, 5000, 10, 9000, 300];
    let log = in_flight(&lengths);
    for landed in 0..1_u32 << lengths.len() {
        let mut bytes = log.images[0].clone();
        bytes.resize(log.last().len(), 0);
        for batch in (0..lengths.len()).filter(|batch| landed & (1 << batch) != 0) {
            let range = log.offsets[batch]..log.offsets[batch + 1];
            bytes[range.clone()].copy_from_slice(&log.last()[range]);
        }
        let whole = landed.trailing_ones() as usize;
        log.holds(&bytes, whole, &format!("batches {landed:05b} landed"));
    }
}

#[test]
fn sectors_that_land_in_any_order_leave_a_prefix() {
    let lengths = [10, 5000, 10, 9000, 300];
    let log = in_flight(&lengths);
    for seed in 0..1000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = log.images[0].clone();
        bytes.resize(log.last().len(), 0);
        let keep = random.random_range(0.8..1.0);
        for sector in log.offsets[0] / 512..bytes.len() / 512 {
            if random.random_bool(keep) {
                let range = sector * 512..(sector + 1) * 512;
                bytes[range.clone()].copy_from_slice(&log.last()[range]);
            }
        }
        let used = |batch: usize| {
            let start = log.offsets[batch];
            start..start + USED + lengths[batch]
        };
        let whole = (0..lengths.len())
            .take_while(|&batch| bytes[used(batch)] == log.last()[used(batch)])
            .count();
        log.holds(&bytes, whole, &format!("seed {seed}"));
    }
}

#[test]
fn a_segment_whose_first_batch_is_torn_is_told_and_kept() {
    let disk = Simulated::new(4);
    let (mut log, _) = wal::open(disk.clone(), Path::new(DIR), small()).unwrap();
    log.append(&[write(1, 1, 1, 40_000)]).unwrap();
    log.append(&[write(2, 1, 2, 20_000)]).unwrap();
    drop(log);
    let path = PathBuf::from(DIR).join("segment-0000000000000002");
    disk.corrupt(&path, |bytes| bytes[BLOCK_BYTES + 100] ^= 1);

    let (log, recovered) = wal::open(disk.clone(), Path::new(DIR), small()).unwrap();
    assert_eq!(recovered[&GROUP].entries.len(), 1);
    let cut = log.cut().expect("it is told");
    assert_eq!((&cut.path, cut.offset), (&path, BLOCK_BYTES as u64));
    drop(log);
    let (log, _) = wal::open(disk.clone(), Path::new(DIR), small()).unwrap();
    assert!(log.cut().is_none(), "it is told once");
    assert!(disk.bytes(&path).is_some(), "it is kept");
}

/// Neither what a client stores nor what an earlier use of the file left behind is taken for a
/// batch, even if it was one, records a large durable prefix, and lies at the start of a block.
#[test]
fn a_batch_of_another_generation_is_none() {
    let foreign = {
        let disk = Simulated::new(3);
        let options = Options { segment_bytes: 1 << 20, generation_seed: 99, ..small() };
        let (mut log, _) = wal::open(disk.clone(), Path::new(DIR), options).unwrap();
        for id in 1..=20 {
            log.append(&[write(id, 1, id, 10)]).unwrap();
        }
        let bytes = disk.bytes(&PathBuf::from(DIR).join("segment-0000000000000001")).unwrap();
        bytes[15 * BLOCK_BYTES..16 * BLOCK_BYTES].to_vec()
    };
    assert_eq!(foreign[..4], *b"RBLB", "the bytes are a batch");

    let log = in_flight(&[10, 3 * BLOCK_BYTES, 10]);
    for block in 0..=4 {
        let mut bytes = log.images[1].clone();
        let at = log.offsets[1] + block * BLOCK_BYTES;
        bytes.resize(bytes.len().max(at + BLOCK_BYTES), 0);
        bytes[at..at + BLOCK_BYTES].copy_from_slice(&foreign);
        log.holds(&bytes, 1, &format!("a foreign batch {block} blocks behind the end"));
        let mut bytes = log.last().to_vec();
        bytes[at..at + BLOCK_BYTES].copy_from_slice(&foreign);
        let whole = if block == 4 { 2 } else { 1 };
        log.holds(&bytes, whole, &format!("a foreign batch over block {block}"));
    }
}

/// What a killed process had on its way may land when the next one has started: in a segment that is
/// cut by then, under numbers that were given anew. It must not speak for those.
#[test]
fn what_lands_after_the_next_start_has_looked_is_void() {
    let options = Options { segment_bytes: 1 << 20, ..small() };
    let disk = Simulated::new(1);
    let (mut log, _) = wal::open(disk.clone(), Path::new(DIR), options.clone()).unwrap();
    let path = PathBuf::from(DIR).join("segment-0000000000000001");
    let (mut early, mut expected) = (Vec::new(), State::default());
    for id in 1..=10 {
        let write = write(id, 1, id, 100);
        log.append(std::slice::from_ref(&write)).unwrap();
        if id <= 6 {
            expected.apply(&write);
            early = disk.bytes(&path).unwrap();
        }
    }
    let late = disk.bytes(&path).unwrap();

    let disk = Simulated::new(2);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let file = disk.create(&path).unwrap();
    let land = |bytes: &[u8]| {
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
    };
    land(&early);
    drop(wal::open(disk.clone(), Path::new(DIR), options.clone()).unwrap());
    land(&late);
    for start in 0..3 {
        let (log, recovered) = wal::open(disk.clone(), Path::new(DIR), options.clone())
            .unwrap_or_else(|error| panic!("start {start}: {error}"));
        assert_eq!(State::of(&recovered), expected, "start {start}");
        drop(log);
    }
}
