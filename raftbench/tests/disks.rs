//! Runs on emulated disks: that the disks are those asked for, that their faults bite and are caught
//! where they do not, and that what was acknowledged survives a loss of power.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::{Bench, alone, beside_others, profile};
use nix::unistd::{Gid, Uid, chown};
use raftbench::profile::embedded::Shelf;
use serde_json::Value;

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// Slow enough for any machine: a sync takes 2 to 6 ms.
const DISK: &str = r#"
[cluster.disk]
name = "test"
[cluster.disk.sync]
quantiles_ms = [[0, 2], [0.5, 3], [1, 6]]
kind = "assumed"
source = "a test"
[cluster.disk.write]
quantiles_ms = [[0, 1], [1, 2]]
kind = "assumed"
source = "a test"
[cluster.disk.read]
quantiles_ms = [[0, 1], [1, 2]]
kind = "assumed"
source = "a test"
[cluster.disk.queue]
concurrency = 16
kind = "assumed"
source = "a test"
"#;

/// Where there can be disks. Where not, that is said, and fails in CI.
fn has_disks() -> bool {
    let bench = bench("", "");
    let mut tried = harness::raftbench();
    tried.args(["lab", "short.toml", "--host", "n1", "--", "true"]).current_dir(bench.path());
    let tried = tried.env_remove("RAFTBENCH_LAB").output().expect("started");
    if !tried.status.success() {
        harness::not_tried("emulated disks", &String::from_utf8_lossy(&tried.stderr));
    }
    tried.status.success()
}

/// A bench whose profile has the disk, in memory, and `settings` in `[cluster]`.
fn bench(settings: &str, faults: &str) -> Bench {
    let cluster = format!("nodes = 3\ndisk_backing = \"memory\"\n{settings}");
    Bench::with(&profile(&format!("{faults}{DISK}")).replace("nodes = 3", &cluster))
}

fn run(bench: &Bench, target: &str, bug: Option<&str>) -> (Value, String) {
    let mut command = bench.command("run", target);
    command.env_remove("RAFTBENCH_LAB");
    if let Some(bug) = bug {
        command.env("RAFTBENCH_SEEDED_BUG", bug);
    }
    let output = command.output().expect("started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(bench.out().join("summary.json").exists(), "{told}");
    let summary = bench.summary();
    let told = format!("{told}\n{:#}\n{:#}", summary["reasons"], summary["faults"]);
    (summary, told)
}

fn fault(kind: &str, target: &str, rest: &str) -> String {
    format!("\n[[faults]]\nkind = \"{kind}\"\ntarget = \"{target}\"\n{rest}\n")
}

#[test]
fn a_run_has_its_disk_in_the_report_on_both_targets() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    harness::needs_etcd();
    for target in ["bench-node", "etcd"] {
        let bench = bench("", "");
        let (summary, told) = run(&bench, target, None);
        assert_eq!(summary["checks"]["audit"], "pass", "{target}: {told}");
        let disk = &summary["disk"];
        assert_eq!((&disk["name"], &disk["backing"]), (&"test".into(), &"memory".into()), "{told}");
        let hosts = disk["hosts"].as_array().expect("a list");
        assert_eq!(hosts.len(), 3, "{target}: {disk:#}");
        for host in hosts {
            let number = |key: &str| host[key].as_f64().expect("a number");
            assert!(number("timed_syncs") >= 100.0, "{target}: {disk:#}");
            // A busy machine can only be later than the model.
            assert!(number("p50_ms") >= 2.8 && number("p25_ms") >= 2.2, "{target}: {disk:#}");
            assert!(number("max_ms") >= 5.0, "{target}: {disk:#}");
        }
        let page = std::fs::read_to_string(bench.out().join("report.md")).expect("a report");
        assert!(page.contains("Disk: test, emulated, bytes in memory"), "{page}");
        let metrics = std::fs::read_to_string(bench.out().join("metrics.jsonl")).expect("lines");
        let last: Value = serde_json::from_str(metrics.lines().last().expect("one")).expect("JSON");
        assert!(last["disk"]["syncs"].as_u64() > Some(100), "{last:#}");
    }
}

/// Every fault, one after the other, each on a node that is whole again.
fn every_fault() -> String {
    [
        fault("disk_stall", "follower", "at_s = 0.2\nheal_after_s = 1"),
        fault("disk_slow", "follower", "at_s = 1.6\nfactor = 8\nheal_after_s = 1"),
        fault("power_loss", "leader", "at_s = 3\nrestart_after_s = 0.5\ntorn = true"),
        fault("disk_error", "n1", "at_s = 5.2\nat = \"sync\"\nheal_after_s = 0.7"),
        fault("disk_full", "n2", "at_s = 6.1\nheal_after_s = 0.7"),
    ]
    .concat()
}

#[test]
fn every_fault_of_a_disk_bites() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    let bench = bench("", &every_fault());
    let (summary, told) = run(&bench, "bench-node", None);
    assert_eq!(summary["checks"]["audit"], "pass", "{told}");
    let faults = summary["faults"].as_array().expect("a list");
    assert_eq!(faults.len(), 5, "{told}");
    let proofs =
        ["held, none served", "were asked for", "its disk lost", "with EIO", "with ENOSPC"];
    for (fault, proof) in faults.iter().zip(proofs) {
        assert_eq!(fault["effective"], true, "{proof}: {told}");
        assert!(fault["proof"].as_str().expect("text").contains(proof), "{proof}: {told}");
        assert!(fault["healed_s"].is_number(), "{proof}: {told}");
    }
}

#[test]
fn a_fault_of_a_disk_that_does_nothing_or_half_makes_the_run_invalid() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    for (bug, faults) in [("fault-does-nothing", every_fault()), ("fault-does-half", halves())] {
        let (summary, told) = run(&bench("", &faults), "bench-node", Some(bug));
        assert_eq!(summary["verdict"], "invalid", "{bug}: {told}");
        for fault in summary["faults"].as_array().expect("a list") {
            assert_eq!(fault["effective"], false, "{bug}: {told}");
        }
    }
}

/// Those of which half can be done.
fn halves() -> String {
    fault("disk_slow", "follower", "at_s = 1\nfactor = 8\nheal_after_s = 2")
        + &fault("power_loss", "leader", "at_s = 4\nrestart_after_s = 0.5")
}

#[test]
fn a_disk_that_ignores_its_latency_makes_the_run_invalid() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    let (summary, told) = run(&bench("", ""), "bench-node", Some("disk-latency-ignored"));
    assert_eq!(summary["verdict"], "invalid", "{told}");
    assert!(told.contains("was no test: p25 of its"), "{told}");
}

/// The power of all goes at the same moment, in the midst of a sync: only what is on the disks is left.
/// Five times, whole and torn in turns; in full, a hundred.
#[test]
fn acknowledged_writes_survive_a_loss_of_power() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    for round in 0..if harness::full() { 20 } else { 1 } {
        let losses = [1.0, 3.5, 6.0, 8.5, 11.0].into_iter().zip([true, false].into_iter().cycle());
        let losses: Vec<_> = losses.map(|(at_s, torn)| in_a_sync(at_s, torn)).collect();
        let (summary, told) = run(&lasting(14, "", &losses.concat()), "bench-node", None);
        assert_eq!(summary["checks"]["audit"], "pass", "round {round}: {told}");
        let faults = summary["faults"].as_array().expect("a list");
        assert_eq!(faults.len(), 5, "round {round}: {told}");
        for fault in faults {
            assert_eq!(fault["effective"], true, "round {round}: {told}");
        }
    }
}

#[test]
fn writes_that_were_acknowledged_and_not_synced_are_lost_with_the_power() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    let once = fault("power_loss", "all", "at_s = 2\nrestart_after_s = 0.3");
    let never_synced = ("bench_node = { unsafe_no_fsync = true }", once);
    let mut wrong = vec![never_synced];
    // It syncs all the same, and soon: only the midst of a sync shows it.
    #[cfg(feature = "seeded-bugs")]
    wrong.push((
        "bench_node = { seeded_bug = \"acknowledge-before-sync\" }",
        [1.0, 3.5].map(|at_s| in_a_sync(at_s, false)).concat(),
    ));
    for (settings, losses) in wrong {
        let (summary, told) = run(&lasting(5, settings, &losses), "bench-node", None);
        assert_eq!(summary["checks"]["audit"], "fail", "{settings}: {told}");
        assert!(summary["checks"]["lost_writes"].as_u64() > Some(0), "{settings}: {told}");
    }
}

fn in_a_sync(at_s: f64, torn: bool) -> String {
    let rest = format!("at_s = {at_s:?}\nrestart_after_s = 0.3\nin_sync = true\ntorn = {torn}");
    fault("power_loss", "all", &rest)
}

/// A bench that measures for so long.
fn lasting(measure_s: u32, settings: &str, faults: &str) -> Bench {
    let bench = bench(settings, faults);
    let profile = bench.path().join("short.toml");
    let text = std::fs::read_to_string(&profile).expect("written");
    let text = text.replace("measure_s = 7", &format!("measure_s = {measure_s}"));
    std::fs::write(profile, text).expect("ours");
    bench
}

#[test]
fn a_disk_that_this_host_cannot_be_is_refused() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    let profile = profile("").replace("nodes = 3", "nodes = 3\ndisk = \"nvme-plp\"");
    let output = Bench::with(&profile).command("run", "bench-node").output().expect("started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for part in ["no disk like nvme-plp for n1", "too fast for this host", "disk_backing"] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// `raftbench lab short.toml --host n1 -- sh -c SCRIPT` as an ordinary user, for whom root has made
/// device nodes in mounts of its own; `open`: also of FUSE.
fn as_nobody(open: bool, script: &str) -> Output {
    let bench = bench("", "");
    let program = bench.path().join("raftbench");
    std::fs::copy(env!("CARGO_BIN_EXE_raftbench"), &program).expect("copied");
    for path in [bench.path(), &program] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("opened");
        chown(path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).expect("ours");
    }
    let mode = if open { "0666" } else { "0600" };
    let devices = format!(
        "mount -t tmpfs -o mode=755 none /mnt && mknod -m 0666 /mnt/tun c 10 200 && \
         mount --bind /mnt/tun /dev/net/tun && mknod -m {mode} /mnt/fuse c 10 229 && \
         mount --bind /mnt/fuse /dev/fuse && umount -l /mnt && \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &devices, "sh"]).arg(Path::new(&program));
    command.args(["lab", "short.toml", "--host", "n1", "--", "sh", "-c", script]);
    command.current_dir(bench.path()).env_remove("RAFTBENCH_LAB").stdin(Stdio::null());
    command.output().expect("started")
}

#[test]
fn an_ordinary_user_has_disks_where_fuse_is_open_and_is_told_where_not() {
    let _beside = beside_others();
    if !has_disks() {
        return;
    }
    if !Uid::effective().is_root() {
        return harness::not_tried("an ordinary user with device nodes of its own", "not root");
    }
    let output = as_nobody(true, "echo text > file && sync file && cat file && stat -f -c %T .");
    let told = format!("{output:?}");
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "text\nfuseblk\n", "{told}");
    let output = as_nobody(false, "true");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("/dev/fuse: Permission denied"), "{error}");
    assert!(error.contains("chmod 0666 /dev/fuse"), "{error}");
}

/// What fio measured on a disk of that profile, its bytes in memory.
fn fio(disk: &str, arguments: &[&str]) -> Value {
    let bench = Bench::with(&profile(""));
    let mut command = harness::raftbench();
    command.args(["lab", "short.toml", "--set"]).arg(format!("cluster.disk={disk}"));
    command.args(["--set", "cluster.disk_backing=memory", "--host", "n1", "--"]);
    // Before whoever else is busy here: the disk is measured, and not they.
    command.args(["chrt", "-f", "1", "fio", "--name=x", "--output-format=json"]).args(arguments);
    let output = command.current_dir(bench.path()).env_remove("RAFTBENCH_LAB").output();
    let output = output.expect("started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "fio (apt-get install fio) on {disk}: {told}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    told["jobs"][0].clone()
}

/// A write of 4 KiB and its fdatasync, again and again.
const SYNCS: &[&str] = &["--rw=write", "--bs=4k", "--fdatasync=1", "--ioengine=psync"];

/// The first of three measurements within the bound, or the last: what a busy machine adds is not the
/// disk's.
fn off_by(bound: f64, measure: impl Fn() -> f64) -> f64 {
    let mut off = f64::INFINITY;
    for _ in 0..3 {
        off = measure();
        if off <= bound {
            break;
        }
    }
    off
}

/// One disk; in full, all.
#[test]
fn fio_sees_the_times_that_the_profiles_state() {
    let _alone = alone();
    if !has_disks() {
        return;
    }
    for name in Shelf::Disks.names() {
        // Faster than what this machine can be.
        let tried = if harness::full() { name != "nvme-plp" } else { name == "gp3" };
        if !tried {
            continue;
        }
        let text = Shelf::Disks.text(name).expect("embedded");
        let plan: toml::Table = text.parse().expect("TOML");
        let points = plan["sync"]["quantiles_ms"].clone().try_into().expect("pairs");
        let model = chaos::lab::disks::Latency::new(points).expect("sound");
        let (wanted_ms, wanted_p99_ms) = (model.mean_ms(), model.quantile_ms(0.99));
        // Four seconds of it.
        let size = format!("--size={}k", 4 * (4000.0 / wanted_ms) as u64);
        let off = off_by(0.1, || {
            let seen = &fio(name, &[SYNCS, &[&size]].concat())["sync"]["lat_ns"];
            let ms = |ns: &Value| ns.as_f64().expect("a number") / 1e6;
            let (mean_ms, p99_ms) = (ms(&seen["mean"]), ms(&seen["percentile"]["99.000000"]));
            println!(
                "{name}: mean {mean_ms:.3} ms of {wanted_ms:.3}, p99 {p99_ms:.3} ms of \
                 {wanted_p99_ms:.3}"
            );
            (mean_ms / wanted_ms - 1.0).abs()
        });
        assert!(off <= 0.1, "{name}: the mean is off by {:.1} %", 100.0 * off);
    }
}

/// One that spends its burst credits; in full, also some that have only a limit.
#[test]
fn fio_sees_the_limits_that_the_profiles_state() {
    let _alone = alone();
    if !has_disks() {
        return;
    }
    let random = ["--rw=randwrite", "--bs=4k", "--size=8m", "--direct=1", "--ioengine=io_uring"];
    let deep = ["--iodepth=32", "--time_based", "--runtime=6"];
    // Of gp2-spent, 6,000 credits and 300 a second, over 6 s.
    let limits = [
        ("gp2-spent", 6000.0 / 6.0 + 300.0),
        ("gp3", 3000.0),
        ("pd-balanced", 3600.0),
        ("gp2", 3000.0),
    ];
    for (name, limit) in &limits[..if harness::full() { limits.len() } else { 1 }] {
        let off = off_by(0.05, || {
            let seen = fio(name, &[&random[..], &deep[..]].concat());
            let iops = seen["write"]["iops"].as_f64().expect("a number");
            println!("{name}: {iops:.0} requests/s of {limit}");
            (iops / limit - 1.0).abs()
        });
        assert!(off <= 0.05, "{name}: off by {:.1} %", 100.0 * off);
    }
}
