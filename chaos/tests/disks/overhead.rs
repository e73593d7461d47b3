//! What the emulation costs where it takes no time of its own, by fio: a write of 4 KiB and its
//! fdatasync, through the disk and beside it, in turns. By hand: it proves nothing, and wants the
//! machine for itself.

use std::path::Path;
use std::process::Command;

use chaos::lab::disks::{Backing, DiskSpec};

use crate::stage::{Stage, spec};

const ROUNDS: usize = 5;

pub(crate) fn report(stage: &Stage) {
    for (backing, beside) in [(Backing::Disk, "/var/tmp"), (Backing::Memory, "/dev/shm")] {
        let disk = stage.untimed_disk(DiskSpec { backing, ..spec() }, Path::new(beside));
        let plain = tempfile::tempdir_in(beside).expect("a folder");
        let (mut through, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            through.push(fio(&disk.dir));
            without.push(fio(plain.path()));
        }
        let median = |rounds: &mut Vec<(f64, f64)>, pick: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[ROUNDS / 2]
        };
        let p50 = |rounds: &mut Vec<_>| median(rounds, |round| round.0);
        let p99 = |rounds: &mut Vec<_>| median(rounds, |round| round.1);
        println!(
            "{backing:?}: fdatasync p50 {:.3} ms through the disk, {:.3} ms beside it; p99 {:.3} and \
             {:.3} ms; a call there and back {:.3} ms",
            p50(&mut through),
            p50(&mut without),
            p99(&mut through),
            p99(&mut without),
            disk.floor.transit_ms
        );
    }
}

/// p50 and p99 of fdatasync, in ms.
fn fio(dir: &Path) -> (f64, f64) {
    let output = Command::new("fio")
        .arg(format!("--directory={}", dir.display()))
        .args(["--name=sync", "--rw=write", "--bs=4k", "--size=2m", "--fdatasync=1"])
        .args(["--ioengine=psync", "--output-format=json"])
        .output()
        .expect("fio (apt-get install fio)");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let percentile = &told["jobs"][0]["sync"]["lat_ns"]["percentile"];
    let ms = |key: &str| percentile[key].as_f64().expect("a number") / 1e6;
    (ms("50.000000"), ms("99.000000"))
}
