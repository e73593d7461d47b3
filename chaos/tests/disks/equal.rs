//! That a disk is a file system like the host's own: the same work on both, compared byte by byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::stage::{SEED, Stage, open, spec};

/// How a file is written to.
const WAYS: [OFlags; 4] =
    [OFlags::empty(), OFlags::DIRECT, OFlags::DSYNC, OFlags::DIRECT.union(OFlags::DSYNC)];

pub(crate) fn random_work_is_equal_to_the_hosts(stage: &Stage) {
    for number in 0..4 {
        let seed = SEED + number;
        let disk = stage.disk(spec());
        let host = tempfile::tempdir().expect("a folder");
        let mut random = StdRng::seed_from_u64(seed);
        for step in 0..400 {
            let work = Work::draw(&mut random);
            let (there, here) = (work.clone().on(&disk.dir), work.clone().on(host.path()));
            assert_eq!(there, here, "seed {seed}, step {step}: {work:?}");
        }
        assert_eq!(tree(&disk.dir), tree(host.path()), "seed {seed}");
        // Also what others see, once the power has gone after a sync of everything.
        for path in tree(&disk.dir).into_keys() {
            let file = File::open(disk.dir.join(path)).expect("opened");
            file.sync_all().expect("synced");
        }
        disk.sync_dir();
        disk.lose_power(&disk.name, chaos::lab::disks::Loss::Whole).expect("lost");
        assert_eq!(tree(&disk.dir), tree(host.path()), "after the power went, seed {seed}");
    }
}

/// One step, the same on both sides.
#[derive(Clone, Debug)]
enum Work {
    Write { file: u8, way: usize, offset: u64, bytes: Vec<u8> },
    Append { file: u8, bytes: Vec<u8> },
    Read { file: u8, way: usize, offset: u64, len: usize },
    SetLen { file: u8, len: u64 },
    Allocate { file: u8, keep: bool, offset: u64, len: u64 },
    Punch { file: u8, offset: u64, len: u64 },
    Sync { file: u8 },
    Rename { from: u8, to: u8 },
    Remove { file: u8 },
    Link { from: u8, to: u8 },
    MakeDir { dir: u8 },
    RemoveDir { dir: u8 },
    List { dir: u8 },
}

impl Work {
    fn draw(random: &mut StdRng) -> Self {
        let file = random.random_range(0..8);
        let offset = random.random_range(0..40_000);
        let len = random.random_range(0..20_000);
        let way = random.random_range(0..WAYS.len());
        let mut bytes = || vec![random.random(); random.random_range(1..9000)];
        let bytes = bytes();
        let other = random.random_range(0..8);
        match random.random_range(0..20) {
            0..6 => Work::Write { file, way, offset, bytes },
            6 => Work::Append { file, bytes },
            7..10 => Work::Read { file, way, offset, len: len as usize },
            10 => Work::SetLen { file, len },
            11 => Work::Allocate { file, keep: random.random(), offset, len: len + 1 },
            12 => Work::Punch { file, offset, len: len + 1 },
            13 => Work::Sync { file },
            14 => Work::Rename { from: file, to: other },
            15 => Work::Remove { file },
            16 => Work::Link { from: file, to: other },
            17 => Work::MakeDir { dir: file % 2 },
            18 => Work::RemoveDir { dir: file % 2 },
            _ => Work::List { dir: file % 3 },
        }
    }

    /// What came of it, as far as both sides must agree.
    fn on(self, root: &Path) -> Result<Vec<u8>, Option<i32>> {
        let path = |file: u8| place(root, file);
        let errno = |error: std::io::Error| error.raw_os_error();
        let existing = |file: u8, way: OFlags| {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).custom_flags(way.bits() as i32).open(path(file))
        };
        // The host's O_DIRECT wants aligned memory, which is not what is compared here.
        let is_host = !mounted(root);
        let flags = |way: usize| if is_host { WAYS[way] - OFlags::DIRECT } else { WAYS[way] };
        let nothing = |()| Vec::new();
        match self {
            Work::Write { file, way, offset, bytes } => {
                let parent = path(file);
                if !parent.parent().is_some_and(Path::is_dir) {
                    return Ok(Vec::new());
                }
                open(&parent, flags(way)).write_all_at(&bytes, offset).map(nothing).map_err(errno)
            }
            Work::Append { file, bytes } => {
                use std::io::Write;
                let opened = fs::OpenOptions::new().append(true).open(path(file));
                opened.and_then(|mut f| f.write_all(&bytes)).map(nothing).map_err(errno)
            }
            Work::Read { file, way, offset, len } => {
                let file = existing(file, flags(way)).map_err(errno)?;
                let mut bytes = vec![0; len];
                let mut done = 0;
                while done < len {
                    match file.read_at(&mut bytes[done..], offset + done as u64).map_err(errno)? {
                        0 => break,
                        count => done += count,
                    }
                }
                bytes.truncate(done);
                Ok(bytes)
            }
            Work::SetLen { file, len } => existing(file, OFlags::empty())
                .and_then(|file| file.set_len(len))
                .map(nothing)
                .map_err(errno),
            Work::Allocate { file, keep, offset, len } => {
                let file = existing(file, OFlags::empty()).map_err(errno)?;
                let mode = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
                fallocate(&file, mode, offset, len).map(nothing).map_err(|e| Some(e.raw_os_error()))
            }
            Work::Punch { file, offset, len } => {
                let file = existing(file, OFlags::empty()).map_err(errno)?;
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&file, mode, offset, len).map(nothing).map_err(|e| Some(e.raw_os_error()))
            }
            Work::Sync { file } => existing(file, OFlags::empty())
                .and_then(|file| file.sync_all())
                .map(nothing)
                .map_err(errno),
            Work::Rename { from, to } => {
                fs::rename(path(from), path(to)).map(nothing).map_err(errno)
            }
            Work::Remove { file } => fs::remove_file(path(file)).map(nothing).map_err(errno),
            Work::Link { from, to } => {
                fs::hard_link(path(from), path(to)).map(nothing).map_err(errno)
            }
            Work::MakeDir { dir } => {
                fs::create_dir(root.join(format!("dir{dir}"))).map(nothing).map_err(errno)
            }
            Work::RemoveDir { dir } => {
                fs::remove_dir(root.join(format!("dir{dir}"))).map(nothing).map_err(errno)
            }
            Work::List { dir } => {
                let dir = if dir == 2 { root.to_owned() } else { root.join(format!("dir{dir}")) };
                let mut names: Vec<String> = fs::read_dir(dir)
                    .map_err(errno)?
                    .map(|entry| {
                        let entry = entry.expect("an entry");
                        let kind = entry.file_type().expect("a kind");
                        format!("{} {kind:?}\n", entry.file_name().to_string_lossy())
                    })
                    .collect();
                names.sort();
                Ok(names.concat().into_bytes())
            }
        }
    }
}

/// The disk under test, and not the folder beside it.
fn mounted(root: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    root.parent().is_some_and(|parent| device(root) != device(parent))
}

/// Some files lie at the top, some in directories that come and go.
fn place(root: &Path, file: u8) -> PathBuf {
    match file {
        0..4 => root.join(format!("file{file}")),
        _ => root.join(format!("dir{}", file % 2)).join(format!("file{file}")),
    }
}

/// Every file with its content; directories with none.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut wanted = vec![root.to_owned()];
    while let Some(dir) = wanted.pop() {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("inside").to_owned();
            let content = match path.is_dir() {
                true => None,
                false => Some(fs::read(&path).expect("read")),
            };
            if content.is_none() {
                wanted.push(path);
            }
            all.insert(name, content);
        }
    }
    all
}

pub(crate) fn fio_verifies_io_uring_and_mappings(stage: &Stage) {
    let disk = stage.disk(spec());
    let ways = [
        ("io_uring", "1", "512-16k"),
        ("io_uring", "0", "512-16k"),
        ("mmap", "0", "4k-16k"),
        ("psync", "1", "512-16k"),
    ];
    for (engine, direct, sizes) in ways {
        let mut fio = Command::new("fio");
        fio.arg(format!("--directory={}", disk.dir.display()));
        fio.args(["--name=verify", "--rw=randwrite", "--size=4m", "--iodepth=16"]);
        fio.args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fsync=64"]);
        fio.args([format!("--ioengine={engine}"), format!("--direct={direct}")]);
        fio.arg(format!("--bs={sizes}")).arg("--minimal");
        let output = match fio.output() {
            Ok(output) => output,
            Err(error) => {
                println!("\n*** NOT TRIED: fio ({error}) ***\n");
                assert!(std::env::var_os("CI").is_none(), "fio: {error} (apt-get install fio)");
                return;
            }
        };
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{engine}, direct={direct}: {told}");
    }
}
