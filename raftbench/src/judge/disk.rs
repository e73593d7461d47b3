//! Whether the disks were what the profile asked for: each node's own syncs against the model.
//!
//! Compared are the quartiles of the time from when a sync's turn came to its answer, under no fault
//! of the disk; the p99 is looked at too, but a busy machine alone may spoil it.

use crate::evidence::{AskedTimes, DiskRecord, HostDisk};

/// With fewer syncs quartiles say nothing.
const LEAST_SYNCS: u64 = 100;

/// A quartile may be off by this share, or by so many ms, whichever is more.
const SHARE: f64 = 0.10;
const LEAST_MS: f64 = 0.1;

/// Above so many times the model's, a p99 is told of.
const P99_SHARE: f64 = 1.25;

/// Why the disks were not those of the profile; empty: they were.
pub(super) fn off_the_model(disk: Option<&DiskRecord>) -> Vec<String> {
    let Some(disk) = disk else { return Vec::new() };
    disk.hosts.iter().filter_map(|host| off(disk, host)).collect()
}

fn off(disk: &DiskRecord, host: &HostDisk) -> Option<String> {
    if host.timed_syncs < LEAST_SYNCS {
        return None;
    }
    let asked = disk.asked;
    let quartiles = [
        ("p25", host.p25_ms, asked.p25_ms),
        ("p50", host.p50_ms, asked.p50_ms),
        ("p75", host.p75_ms, asked.p75_ms),
    ];
    let off = |seen: f64, asked: f64| (seen - asked).abs() > (SHARE * asked).max(LEAST_MS);
    let (name, seen, asked) = quartiles.into_iter().find(|(_, seen, asked)| off(*seen, *asked))?;
    Some(format!(
        "the disk of {} was no {}: {name} of its {} syncs was {seen:.3} ms, and {asked:.3} ms were \
         asked for ({:.0} % or {LEAST_MS} ms are allowed)",
        host.node,
        disk.name,
        host.timed_syncs,
        SHARE * 100.0
    ))
}

/// What a reader of the report should know of them.
pub(super) fn warnings(disk: Option<&DiskRecord>) -> Vec<String> {
    let Some(disk) = disk else { return Vec::new() };
    let mut warnings = Vec::new();
    if disk.backing == "memory" {
        warnings.push(format!(
            "the bytes of the emulated disk ({}) were in memory: its times are the profile's alone",
            disk.name
        ));
    }
    let AskedTimes { p99_ms, .. } = disk.asked;
    for host in &disk.hosts {
        if host.timed_syncs < LEAST_SYNCS {
            warnings.push(format!(
                "the disk of {} had only {} syncs to be judged by; below {LEAST_SYNCS} its quartiles \
                 say nothing",
                host.node, host.timed_syncs
            ));
        } else if host.p99_ms > P99_SHARE * p99_ms {
            warnings.push(format!(
                "the disk of {}: p99 of its syncs was {:.2} ms, and {p99_ms:.2} ms were asked for; \
                 the rest is this machine's",
                host.node, host.p99_ms
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(p50_ms: f64, timed_syncs: u64) -> DiskRecord {
        DiskRecord {
            name: "gp3".into(),
            backing: "disk".into(),
            asked: AskedTimes { mean_ms: 2.1, p25_ms: 1.5, p50_ms: 2.0, p75_ms: 2.5, p99_ms: 5.0 },
            hosts: vec![HostDisk {
                node: "n1".into(),
                timed_syncs,
                p25_ms: 1.5,
                p50_ms,
                p75_ms: 2.5,
                p99_ms: 5.1,
                ..HostDisk::default()
            }],
        }
    }

    #[test]
    fn a_disk_within_its_tolerance_is_one_and_one_outside_is_told() {
        for (p50_ms, fits) in [(2.0, true), (2.19, true), (1.81, true), (2.21, false), (1.0, false)]
        {
            let told = off_the_model(Some(&record(p50_ms, 1000)));
            assert_eq!(told.is_empty(), fits, "{p50_ms}: {told:?}");
        }
        let told = off_the_model(Some(&record(1.0, 1000))).remove(0);
        assert!(
            told.contains("the disk of n1 was no gp3: p50 of its 1000 syncs was 1.000 ms"),
            "{told}"
        );
        assert!(off_the_model(Some(&record(1.0, 99))).is_empty());
        assert!(warnings(Some(&record(2.0, 99)))[0].contains("only 99 syncs"));
        assert!(off_the_model(None).is_empty());
    }
}
