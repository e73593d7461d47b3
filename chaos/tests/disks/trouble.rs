//! Disks that stall, are slow, full or broken; and that nothing remains of one whose lab is killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use chaos::lab::Lab;
use chaos::lab::disks::{DiskSpec, Latency, Slow, Trouble};
use rustix::fs::OFlags;

use crate::stage::{PATIENCE, Stage, open, spec, wait_for};
use crate::{HOLD, again};

pub(crate) fn a_stall_holds_what_arrives(stage: &Stage) {
    let disk = stage.disk(spec());
    let file = open(&disk.path("file"), OFlags::empty());
    disk.set(&disk.name, Trouble { stalled: true, ..Trouble::default() }).expect("set");
    let figures = || disk.figures(&disk.name).expect("told");
    let before = figures().syncs;
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| {
            file.write_all_at(b"x", 0).expect("the page cache takes it");
            let began = Instant::now();
            file.sync_data().expect("synced in the end");
            began.elapsed()
        });
        wait_for("a sync to be held", || figures().held == 1);
        // As long as the test cares to look, it is.
        let looked = Instant::now();
        while looked.elapsed() < Duration::from_millis(200) {
            assert_eq!((figures().held, figures().syncs), (1, before));
        }
        assert!(!synced.is_finished());
        disk.set(&disk.name, Trouble::default()).expect("set");
        let took = synced.join().expect("no panic");
        assert!(took >= Duration::from_millis(200), "{took:?}");
    });
    assert_eq!((figures().held, figures().syncs), (0, before + 1));
}

pub(crate) fn a_slow_disk_is_slower(stage: &Stage) {
    let disk = stage.disk(spec());
    let file = open(&disk.path("file"), OFlags::empty());
    let slow = Some(Slow { factor: 5.0, added_ms: 10.0 });
    disk.set(&disk.name, Trouble { slow, ..Trouble::default() }).expect("set");
    for _ in 0..10 {
        let began = Instant::now();
        file.sync_data().expect("synced");
        assert!(began.elapsed() >= Duration::from_millis(24), "{:?}", began.elapsed());
    }
    let figures = disk.figures(&disk.name).expect("told");
    assert!(figures.sync_now.p50_ms >= 24.0, "{figures:?}");
    assert_eq!(figures.sync_service.count, 0, "what is in trouble says nothing of the model");
}

pub(crate) fn full_and_broken_refuse(stage: &Stage) {
    let disk = stage.disk(spec());
    let file = open(&disk.path("file"), OFlags::empty());
    file.write_all_at(b"before", 0).expect("written");
    let set = |trouble| disk.set(&disk.name, trouble).expect("set");
    let errno = |result: std::io::Result<()>| result.map_err(|error| error.raw_os_error());
    let (nospc, io) = (Err(Some(28)), Err(Some(5)));

    set(Trouble { full: true, ..Trouble::default() });
    assert_eq!(errno(file.write_all_at(b"x", 0)), nospc);
    assert_eq!(errno(fs::write(disk.path("new"), "")), nospc);
    assert_eq!(errno(file.sync_data()), Ok(()));
    set(Trouble { write_error: true, ..Trouble::default() });
    assert_eq!(errno(file.write_all_at(b"x", 0)), io);
    set(Trouble { sync_error: true, ..Trouble::default() });
    assert_eq!(errno(file.write_all_at(b"after!", 0)), Ok(()));
    assert_eq!(errno(file.sync_data()), io);
    set(Trouble::default());
    assert_eq!(fs::read(disk.path("file")).expect("read"), b"after!");
    let figures = disk.figures(&disk.name).expect("told");
    assert!(figures.refused_full >= 2 && figures.refused_error >= 2, "{figures:?}");
    drop(file);
    // What the broken sync did not sync is lost.
    disk.lose_power(&disk.name, chaos::lab::disks::Loss::Whole).expect("lost");
    assert_eq!(fs::read(disk.path("file")).expect("read"), b"before");
}

pub(crate) fn too_fast_is_refused(stage: &Stage) {
    let sync = Latency::constant(0.001).expect("fits");
    let refused = stage.try_disk(DiskSpec { sync, ..spec() }).err().expect("refused").to_string();
    assert!(refused.contains("half of its syncs take 0.001 ms or less"), "{refused}");
}

/// Holds a stalled sync until it is killed.
pub(crate) fn hold(lab: &Lab) -> ExitCode {
    let stage = Stage::new(lab).expect("disks");
    let disk = stage.disk(spec());
    let file = open(&disk.path("file"), OFlags::empty());
    disk.set(&disk.name, Trouble { stalled: true, ..Trouble::default() }).expect("set");
    std::thread::scope(|scope| {
        scope.spawn(|| file.sync_data());
        wait_for("a sync to be held", || disk.figures(&disk.name).expect("told").held == 1);
        println!("held");
        loop {
            std::thread::park();
        }
    })
}

/// A lab whose program gets SIGKILL in the middle of a stalled sync: no process and no mount of it
/// is left.
pub(crate) fn nothing_remains_after_a_kill_in_a_stalled_sync() -> bool {
    let mark = format!("{}-{}", HOLD, std::process::id());
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let before = mounts();
    let mut held = again(&[(HOLD, &mark)], []);
    let mut held = held.stdout(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(held.stdout.take().expect("piped")).lines();
    let said = lines.find_map(|line| line.ok().filter(|line| line == "held"));
    let marked = || {
        let wanted = format!("{HOLD}={mark}").into_bytes();
        let all = procfs::process::all_processes().expect("/proc").flatten();
        all.filter(|process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid()));
            let is_ours = |bytes: Vec<u8>| bytes.split(|byte| *byte == 0).any(|v| v == wanted);
            process.pid() != std::process::id() as i32 && environment.is_ok_and(is_ours)
        })
        .count()
    };
    let there = marked();
    held.kill().expect("killed");
    held.wait().expect("reaped");
    let deadline = Instant::now() + PATIENCE;
    while marked() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (left, unmounted) = (marked(), mounts() == before);
    println!("killed in a stalled sync: {there} processes before, {left} after; {unmounted}");
    said.is_some() && there >= 4 && left == 0 && unmounted
}
