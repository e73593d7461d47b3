//! A log that overtakes its filler: zeros that were on their way must not land on batches.

use std::path::Path;
use std::time::Duration;

use bench_node::disk::{Disk, DiskError, DiskFile, OneByOne, Simulated};
use bench_node::wal::{self, Options};

use crate::model::{State, small, write};

/// A disk on which zeros take their time.
#[derive(Clone)]
struct SlowFill(Simulated);

struct SlowFillFile(<Simulated as Disk>::File);

#[test]
fn zeros_never_land_on_a_batch() {
    let disk = Simulated::new(1);
    let options = Options { fill_in_background: true, ..small() };
    let (mut log, _) = wal::open(SlowFill(disk.clone()), Path::new("/wal"), options).unwrap();
    let mut expected = State::default();
    for id in 1..=200 {
        let write = write(id, 1, id, 100);
        expected.apply(&write);
        log.append(&[write]).unwrap();
    }
    drop(log);
    let (_log, recovered) = wal::open(disk, Path::new("/wal"), small()).unwrap();
    assert_eq!(State::of(&recovered), expected);
}

impl Disk for SlowFill {
    type File = SlowFillFile;
    type Lock = <Simulated as Disk>::Lock;
    type Queue = OneByOne<SlowFillFile>;

    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        self.0.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, DiskError> {
        self.0.list(dir)
    }
    fn create(&self, path: &Path) -> Result<SlowFillFile, DiskError> {
        self.0.create(path).map(SlowFillFile)
    }
    fn open(&self, path: &Path) -> Result<SlowFillFile, DiskError> {
        self.0.open(path).map(SlowFillFile)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, path: &Path, note: &str) -> Result<Option<Self::Lock>, DiskError> {
        self.0.lock(path, note)
    }
    fn queue(&self, _depth: usize) -> Result<OneByOne<SlowFillFile>, DiskError> {
        Ok(OneByOne::default())
    }
}

impl DiskFile for SlowFillFile {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> Result<u64, DiskError> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.write_at(offset, bytes)
    }
    fn fill_zero(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        // Long enough for the log to overtake. What the test asserts holds however long it is.
        std::thread::sleep(Duration::from_millis(2));
        self.0.fill_zero(offset, len)
    }
    fn sync(&self) -> Result<(), DiskError> {
        self.0.sync()
    }
}
