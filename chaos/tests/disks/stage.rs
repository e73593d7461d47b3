//! What the trials share: a disk over a fresh directory, and files opened in every way.

use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chaos::lab::Lab;
use chaos::lab::disks::{Backing, DiskSpec, Disks, Floor, Latency};
use rustix::fs::OFlags;

/// A trial.
pub(crate) type Body = fn(&Stage);

/// Another number tries other work.
pub(crate) const SEED: u64 = 20_261_124;

/// How long anything may take that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The lab's disks, one for each trial.
pub(crate) struct Stage {
    disks: Disks,
    last: AtomicU32,
}

impl Stage {
    /// Tries whether there are disks.
    pub(crate) fn new(lab: &Lab) -> Result<Self, chaos::Error> {
        let stage = Self { disks: Disks::of(lab)?, last: AtomicU32::new(0) };
        drop(stage.try_disk(spec())?);
        Ok(stage)
    }

    pub(crate) fn disk(&self, spec: DiskSpec) -> TestDisk<'_> {
        self.try_disk(spec).expect("a disk")
    }

    pub(crate) fn try_disk(&self, spec: DiskSpec) -> Result<TestDisk<'_>, chaos::Error> {
        let name = format!("d{}", self.last.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join(&name);
        std::fs::create_dir(&dir).expect("made");
        let floor = self.disks.attach(&name, &dir, &spec, SEED)?;
        Ok(TestDisk { disks: &self.disks, name, dir, floor, folder: Some(folder) })
    }

    /// One that takes no time of its own, in a folder in `place`.
    pub(crate) fn untimed_disk(&self, spec: DiskSpec, place: &Path) -> TestDisk<'_> {
        let name = format!("d{}", self.last.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir_in(place).expect("a folder");
        let dir = folder.path().join(&name);
        std::fs::create_dir(&dir).expect("made");
        let floor = self.disks.attach_untimed(&name, &dir, &spec, SEED).expect("a disk");
        TestDisk { disks: &self.disks, name, dir, floor, folder: Some(folder) }
    }
}

/// A disk of one trial.
pub(crate) struct TestDisk<'a> {
    disks: &'a Disks,
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) floor: Floor,
    folder: Option<tempfile::TempDir>,
}

impl Deref for TestDisk<'_> {
    type Target = Disks;

    fn deref(&self) -> &Disks {
        self.disks
    }
}

impl TestDisk<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn sync_dir(&self) {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).expect("synced");
    }
}

impl Drop for TestDisk<'_> {
    fn drop(&mut self) {
        self.disks.detach(&self.name).expect("detached");
        self.folder.take();
    }
}

/// A disk in memory whose syncs take 3 ms, and all else nearly nothing.
pub(crate) fn spec() -> DiskSpec {
    let constant = |ms| Latency::constant(ms).expect("fits");
    DiskSpec {
        sync: constant(3.0),
        write: constant(0.01),
        read: constant(0.01),
        concurrency: 64,
        iops: None,
        bytes: None,
        largest_request_bytes: 256 << 10,
        backing: Backing::Memory,
    }
}

/// A file opened for reading and writing, made where it is not there.
pub(crate) fn open(path: &Path, flags: OFlags) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(flags.bits() as i32);
    options.open(path).expect("opened")
}

/// Waits for what should happen soon.
pub(crate) fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
