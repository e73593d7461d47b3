//! Disks in profiles: what is read, what is refused and how, and that the embedded ones are sound.

use chaos::lab::disks::Backing;
use raftbench::plan::{DiskFaultKind, FaultKind, Plan};
use raftbench::profile::embedded::Shelf;
use raftbench::profile::{Change, Profile, ProfileError};

const LEAST: &str = "[load]\nrate_per_second = 100\n[phases]\nmeasure_s = 20\n";

const OWN: &str = r#"
[cluster.disk]
description = "mine"
[cluster.disk.sync]
quantiles_ms = [[0, 1], [0.5, 2], [1, 8]]
kind = "assumed"
source = "a test"
[cluster.disk.write]
quantiles_ms = [[0, 1], [1, 1]]
kind = "assumed"
source = "a test"
[cluster.disk.read]
quantiles_ms = [[0, 1], [1, 1]]
kind = "assumed"
source = "a test"
[cluster.disk.iops]
per_second = 100
burst_per_second = 1000
burst_credits = 5000
credits_at_start = 50
kind = "assumed"
source = "a test"
[cluster.disk.queue]
concurrency = 8
kind = "assumed"
source = "a test"
"#;

fn plan(text: &str, flags: &[&str]) -> Result<Plan, ProfileError> {
    let changes: Vec<Change> =
        flags.iter().map(|flag| Change::set(flag)).collect::<Result<_, _>>()?;
    Profile::from_text("test", "test.toml", text).plan(&changes, 1, "prefix/")
}

fn refused(text: &str, flags: &[&str], parts: &[&str]) {
    let error = plan(text, flags).expect_err("must be refused").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn every_embedded_disk_is_sound_and_survives_the_manifest() {
    let names = Shelf::Disks.names();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        let flag = format!("cluster.disk={name}");
        let plan = plan(LEAST, &[&flag]).expect("sound");
        let disk = plan.cluster.disk.clone().expect("a disk");
        assert_eq!((disk.name.as_str(), disk.spec.backing), (name, Backing::Disk));
        assert!(!disk.description.is_empty(), "{name}");
        let text = toml::to_string(&plan.to_profile()).expect("TOML");
        let again = Profile::from_text("test", "test.toml", &text).plan(&[], 1, "prefix/");
        assert_eq!(again.expect("sound").cluster, plan.cluster, "{name}");
    }
}

#[test]
fn a_disk_of_ones_own_is_read_whole() {
    let plan = plan(&format!("{LEAST}{OWN}"), &["cluster.disk_backing=memory"]).expect("sound");
    let disk = plan.cluster.disk.expect("a disk");
    assert_eq!((disk.name.as_str(), disk.spec.backing), ("own", Backing::Memory));
    assert_eq!(disk.spec.sync.quantile_ms(0.5), 2.0);
    let burst = disk.spec.iops.and_then(|rate| rate.burst).expect("a burst");
    assert_eq!((burst.per_second, burst.credits, burst.starts_with), (1000.0, 5000.0, 50.0));
    assert_eq!((disk.spec.concurrency, disk.spec.largest_request_bytes), (8, 256 << 10));
    assert!(plan.cluster.network.is_some_and(|network| network.is_plain()));
}

#[test]
fn bad_disks_are_refused_with_their_line_and_key() {
    let text = format!("{LEAST}{OWN}");
    refused(LEAST, &["cluster.disk=gp4"], &["`cluster.disk`", "gp3", "io2"]);
    refused(LEAST, &["cluster.disk_backing=memory"], &["only for a cluster with `disk`"]);
    let changed = |from: &str, to: &str| text.replacen(from, to, 1);
    // Without a unit, nobody knows what is meant.
    let unit = changed("quantiles_ms", "quantiles");
    refused(
        &unit,
        &[],
        &["test.toml:9:", "`cluster.disk.sync.quantiles`", "did you mean `quantiles_ms`?"],
    );
    refused(
        &changed("[[0, 1], [0.5, 2], [1, 8]]", "[[0, 1], [0.5, 9], [1, 8]]"),
        &[],
        &["test.toml:9:", "less than the 9 ms before it"],
    );
    refused(&changed("[[0, 1], [0.5, 2], [1, 8]]", "[0.5, 2]"), &[], &["must be pairs of a share"]);
    refused(&changed("[[0, 1], [0.5, 2], [1, 8]]", "[[0, -1], [1, 8]]"), &[], &["has -1 ms"]);
    refused(&changed("kind = \"assumed\"\n", ""), &[], &["`cluster.disk.sync.kind` is missing"]);
    refused(
        &changed("source = \"a test\"\n", ""),
        &[],
        &["source` is missing", "where the numbers"],
    );
    let mean = changed("kind = \"assumed\"", "mean_ms = 9\nkind = \"assumed\"");
    refused(&mean, &[], &["`cluster.disk.sync.mean_ms` is 9", "the mean of quantiles_ms is"]);
    let start = changed("credits_at_start = 50", "credits_at_start = 6000");
    refused(&start, &[], &["`cluster.disk.iops.credits_at_start` is 6000, above burst_credits"]);
    let burst = changed("burst_per_second = 1000", "burst_per_second = 10");
    refused(&burst, &[], &["is 10, below per_second (100)"]);
    refused(&changed("burst_credits = 5000\n", ""), &[], &["burst_credits` is missing"]);
    refused(
        &changed("concurrency = 8", "concurrency = 0"),
        &[],
        &["`cluster.disk.queue.concurrency`"],
    );
    let external = "[cluster]\ntarget = \"external\"\nendpoints = [\"h:1\"]\ndisk = \"gp3\"\n";
    refused(&format!("{LEAST}{external}"), &[], &["`cluster.disk`", "runs already"]);
}

#[test]
fn faults_of_disks_have_keys_of_their_own() {
    let with = |fault: &str| {
        format!("{LEAST}[cluster]\ndisk = \"gp3\"\n[[faults]]\ntarget = \"one\"\nat_s = 2\n{fault}")
    };
    let kind = |fault: &str| match plan(&with(fault), &[]).expect("sound").faults[0].kind {
        FaultKind::Disk(fault) => fault.kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind("kind = \"disk_stall\"\nheal_after_s = 3"), DiskFaultKind::Stall);
    assert_eq!(
        kind("kind = \"disk_slow\"\nfactor = 10\nheal_after_s = 3"),
        DiskFaultKind::Slow { factor: 10.0, added_ms: 0.0 }
    );
    assert_eq!(kind("kind = \"disk_full\"\nheal_after_s = 3"), DiskFaultKind::Full);
    assert_eq!(
        kind("kind = \"disk_error\"\nat = \"both\"\nheal_after_s = 3"),
        DiskFaultKind::Error { writes: true, syncs: true }
    );
    assert_eq!(
        kind("kind = \"power_loss\"\ntorn = true\nin_sync = true\nrestart_after_s = 3"),
        DiskFaultKind::PowerLoss { torn: true, in_sync: true }
    );
    refused(&with("kind = \"disk_slow\"\nheal_after_s = 3"), &[], &["makes nothing slower"]);
    refused(&with("kind = \"disk_slow\"\nfactor = 0.5\nheal_after_s = 3"), &[], &["from 1 to"]);
    refused(&with("kind = \"disk_stall\""), &[], &["`faults.f1.heal_after_s` is missing"]);
    refused(&with("kind = \"disk_stal\""), &[], &["did you mean `disk_stall`?"]);
    let late = with("kind = \"disk_full\"\nheal_after_s = 30");
    refused(&late, &[], &["`faults.f1.heal_after_s`", "shorten it"]);
    let no_disk = with("kind = \"disk_full\"\nheal_after_s = 3").replace("disk = \"gp3\"\n", "");
    refused(&no_disk, &[], &["only for a cluster on emulated disks", "cluster.disk"]);
}

#[test]
fn a_plan_with_faults_of_disks_survives_the_manifest() {
    let text = format!(
        "{LEAST}[cluster]\ndisk = \"gp2\"\n{}",
        [
            "kind = \"disk_stall\"\nat_s = 1\nheal_after_s = 1",
            "kind = \"disk_slow\"\nat_s = 3\nfactor = 4\nadded_ms = 2.5\nheal_after_s = 1",
            "kind = \"disk_error\"\nat_s = 5\nat = \"write\"\nheal_after_s = 1",
            "kind = \"power_loss\"\nat_s = 7\ntorn = true\nrestart_after_s = 1",
        ]
        .map(|fault| format!("[[faults]]\ntarget = \"leader\"\n{fault}\n"))
        .concat()
    );
    let plan = plan(&text, &[]).expect("sound");
    let manifest = toml::to_string(&plan.to_profile()).expect("TOML");
    let again = Profile::from_text("test", "test.toml", &manifest).plan(&[], 1, "prefix/");
    assert_eq!(again.expect("sound").faults, plan.faults);
    let told = plan.to_string();
    assert!(told.contains("disk       gp2, emulated"), "{told}");
    assert!(told.contains("f4: cut the power of leader"), "{told}");
}
