//! What is lost when the power goes, and what is not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use chaos::lab::disks::{DiskSpec, Latency, Loss, Moment, SECTOR_BYTES};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::OFlags;

use crate::stage::{SEED, Stage, open, spec, wait_for};

pub(crate) fn exactly_what_was_not_synced(stage: &Stage) {
    let mut lost_some = 0;
    for number in 0..12 {
        let seed = SEED + number;
        let mut random = StdRng::seed_from_u64(seed);
        let disk = stage.disk(spec());
        let (mut now, mut durable) = (BTreeMap::new(), BTreeMap::new());
        let files: Vec<File> = (0..3)
            .map(|file| {
                let way = if file == 2 { OFlags::DIRECT } else { OFlags::empty() };
                let opened = open(&disk.path(&file.to_string()), way);
                opened.sync_all().expect("synced");
                now.insert(file, Vec::new());
                durable.insert(file, Vec::new());
                opened
            })
            .collect();
        for _ in 0..random.random_range(10..120) {
            let file: usize = random.random_range(0..3);
            let content = now.get_mut(&file).expect("known");
            match random.random_range(0..8) {
                0 => {
                    files[file].sync_data().expect("synced");
                    durable.insert(file, content.clone());
                }
                1 => {
                    let len = random.random_range(0..30_000);
                    files[file].set_len(len).expect("cut");
                    content.resize(len as usize, 0);
                }
                _ => {
                    let offset = random.random_range(0..20_000);
                    let bytes = vec![random.random(); random.random_range(1..6000)];
                    files[file].write_all_at(&bytes, offset as u64).expect("written");
                    let end = offset + bytes.len();
                    content.resize(content.len().max(end), 0);
                    content[offset..end].copy_from_slice(&bytes);
                }
            }
        }
        drop(files);
        let lost = disk.lose_power(&disk.name, Loss::Whole).expect("lost");
        for (file, content) in &durable {
            let seen = fs::read(disk.path(&file.to_string())).expect("its name was synced");
            assert_eq!(seen.len(), content.len(), "seed {seed}, file {file}: {lost:?}");
            assert!(seen == *content, "seed {seed}, file {file}: {lost:?}");
        }
        lost_some += u64::from(lost.lost_bytes > 0);
        assert_eq!(lost.lost_bytes, lost.unsynced_bytes, "seed {seed}");
    }
    assert!(lost_some > 6, "only {lost_some} losses took anything");
}

pub(crate) fn names_are_lost_until_they_are_synced(stage: &Stage) {
    let disk = stage.disk(spec());
    let write = |name: &str| fs::write(disk.path(name), name).expect("written");
    let sync = |name: &str| File::open(disk.path(name)).unwrap().sync_all().expect("synced");
    for name in ["removed", "removed-synced", "moved", "replaced", "replacing"] {
        write(name);
        sync(name);
    }
    fs::remove_file(disk.path("removed-synced")).expect("removed");
    disk.sync_dir();

    fs::remove_file(disk.path("removed")).expect("removed");
    fs::rename(disk.path("moved"), disk.path("moved-to")).expect("moved");
    fs::rename(disk.path("replacing"), disk.path("replaced")).expect("moved");
    write("made");
    write("made-and-synced");
    sync("made-and-synced");
    fs::create_dir(disk.path("dir")).expect("made");
    write("dir/made-and-synced");
    sync("dir/made-and-synced");
    write("dir/made");
    fs::create_dir(disk.path("dir-alone")).expect("made");

    let lost = disk.lose_power(&disk.name, Loss::Whole).expect("lost");
    let mut names = Vec::new();
    for dir in ["", "dir"] {
        for entry in fs::read_dir(disk.path(dir)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&disk.dir).expect("inside").to_string_lossy().into_owned();
            let content = fs::read_to_string(&path).unwrap_or_default();
            names.push(format!("{name}={content}"));
        }
    }
    names.sort();
    let wanted = [
        "dir/made-and-synced=dir/made-and-synced",
        "dir=",
        "made-and-synced=made-and-synced",
        "moved=moved",
        "removed=removed",
        "replaced=replaced",
        "replacing=replacing",
    ];
    assert_eq!(names, wanted, "{lost:?}");
    // The disk works on.
    write("later");
    assert_eq!(fs::read_to_string(disk.path("later")).expect("read"), "later");
}

/// The sync is never answered, and what it was to make durable is gone; a disk beside it stops at the
/// same moment.
pub(crate) fn power_goes_in_a_sync(stage: &Stage) {
    let sync = Latency::constant(400.0).expect("fits");
    let (syncing, idle) = (stage.disk(DiskSpec { sync, ..spec() }), stage.disk(spec()));
    let files = [&syncing, &idle].map(|disk| {
        let file = open(&disk.path("file"), OFlags::empty());
        file.write_all_at(b"old", 0).expect("written");
        file.sync_all().expect("synced");
        file
    });
    let has_power = || [&syncing, &idle].map(|disk| disk.has_power(&disk.name).expect("told"));
    let names = [syncing.name.clone(), idle.name.clone()];
    syncing.cut_power(&names, Moment::InSync { share: 0.5 }).expect("armed");
    // Without anything to make durable it is none.
    files[0].sync_data().expect("synced");
    assert_eq!(has_power(), [true, true]);

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            files[0].write_all_at(b"new", 0).expect("the page cache takes it");
            files[0].sync_data()
        });
        wait_for("the power to go", || has_power() == [false, false]);
        assert!(!waiting.is_finished());
        let lost = syncing.lose_power(&syncing.name, Loss::Whole).expect("lost");
        assert_eq!((lost.unsynced_writes, lost.lost_bytes), (1, 3));
        waiting.join().expect("no panic").expect_err("it was answered");
        let lost = idle.lose_power(&idle.name, Loss::Whole).expect("lost");
        assert_eq!(lost.unsynced_writes, 0);
    });
    for disk in [&syncing, &idle] {
        assert_eq!(fs::read(disk.path("file")).expect("read"), b"old");
        fs::write(disk.path("later"), "served again").expect("written");
    }
    assert_eq!(has_power(), [true, true]);
}

pub(crate) fn torn_writes_are_torn_at_sectors(stage: &Stage) {
    let sector = SECTOR_BYTES as usize;
    let mut torn = 0;
    for seed in 0..8 {
        let disk = stage.disk(spec());
        let file = open(&disk.path("file"), OFlags::empty());
        file.write_all_at(&vec![1; 64 * sector], 0).expect("written");
        file.sync_all().expect("synced");
        file.write_all_at(&vec![2; 32 * sector + 100], 16 * sector as u64).expect("written");
        drop(file);
        let lost = disk.lose_power(&disk.name, Loss::Torn { seed }).expect("lost");
        let seen = fs::read(disk.path("file")).expect("read");
        assert_eq!(seen.len(), 64 * sector);
        let (mut old, mut new) = (0, 0);
        for (number, bytes) in seen.chunks(sector).enumerate() {
            match number {
                0..16 | 49.. => assert!(bytes.iter().all(|byte| *byte == 1), "sector {number}"),
                48 => assert!(bytes[100..].iter().all(|byte| *byte == 1), "sector {number}"),
                _ if bytes.iter().all(|byte| *byte == 1) => old += 1,
                _ if bytes.iter().all(|byte| *byte == 2) => new += 1,
                _ => panic!("sector {number} is neither: {lost:?}"),
            }
        }
        torn += usize::from(old > 0 && new > 0);
    }
    assert!(torn >= 6, "only {torn} of 8 were torn");
}
