//! When a volume is done with a request: slots, limits and latencies together.
//!
//! Invariant: pure. Requests are submitted in the order of their arrival, and the same seed, times
//! and requests give the same answers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::bucket::{Limit, Rate};
use super::latency::Latency;
use super::planted::{Bug, planted};

/// What a disk is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// A sync (fsync, fdatasync, a write with O_DSYNC), however much it has to write.
    pub sync: Latency,
    /// A write past the page cache (O_DIRECT).
    pub write: Latency,
    /// A read that no cache answers.
    pub read: Latency,
    /// How many requests it serves at once; others wait.
    pub concurrency: u32,
    /// Requests per second.
    pub iops: Option<Rate>,
    /// Bytes per second, read and written.
    pub bytes: Option<Rate>,
    /// A larger request counts as several.
    pub largest_request_bytes: u64,
    /// What holds the bytes.
    pub backing: Backing,
}

/// What holds an emulated disk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// The directory itself, on the host's own disk; a sync syncs that too.
    Disk,
    /// Memory; what is on the disk is gone with the lab.
    Memory,
}

/// What is asked of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Sync,
}

/// From when to when a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) start_ns: u64,
    pub(super) due_ns: u64,
}

/// A slower time of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Every time is so many times as long,
    pub factor: f64,
    /// and longer by this.
    pub added_ms: f64,
}

pub(super) struct Volume {
    spec: DiskSpec,
    iops: Option<Limit>,
    bytes: Option<Limit>,
    /// When each slot is free.
    slots: BinaryHeap<Reverse<u64>>,
    random: StdRng,
    slow: Option<Slow>,
}

impl Volume {
    pub(super) fn new(spec: DiskSpec, seed: u64) -> Self {
        Self {
            iops: spec.iops.map(|rate| Limit::new(rate, 1.0)),
            bytes: spec.bytes.map(|rate| Limit::new(rate, spec.largest_request_bytes as f64)),
            slots: (0..spec.concurrency.max(1)).map(|_| Reverse(0)).collect(),
            random: StdRng::seed_from_u64(seed),
            slow: None,
            spec,
        }
    }

    /// For what is submitted from now on.
    pub(super) fn set_slow(&mut self, slow: Option<Slow>) {
        self.slow = slow;
    }

    /// Takes a request of `bytes` at `now_ns`.
    pub(super) fn submit(&mut self, now_ns: u64, kind: Kind, bytes: u64) -> Service {
        let requests = bytes.div_ceil(self.spec.largest_request_bytes.max(1)).max(1);
        let free_ns = self.slots.pop().map_or(0, |Reverse(free_ns)| free_ns);
        let mut start_ns = now_ns.max(free_ns);
        if let Some(limit) = &mut self.iops {
            start_ns = limit.take(start_ns, requests as f64);
        }
        if let Some(limit) = &mut self.bytes {
            start_ns = limit.take(start_ns, bytes as f64);
        }
        let latency = match kind {
            Kind::Read => &self.spec.read,
            Kind::Write => &self.spec.write,
            Kind::Sync => &self.spec.sync,
        };
        let mut ms = latency.draw_ms(&mut self.random);
        if let Some(slow) = self.slow {
            ms = ms * slow.factor + slow.added_ms;
        }
        if planted(Bug::LatencyIgnored) {
            ms = 0.0;
        }
        let due_ns = start_ns + (ms * 1e6) as u64;
        self.slots.push(Reverse(due_ns));
        Service { start_ns, due_ns }
    }

    /// Requests that could still be served at the burst rate, where there is one.
    pub(super) fn burst_credits(&self, now_ns: u64) -> Option<f64> {
        self.iops.as_ref().and_then(|limit| limit.credits(now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn spec() -> DiskSpec {
        DiskSpec {
            sync: Latency::constant(2.0).expect("fits"),
            write: Latency::constant(1.0).expect("fits"),
            read: Latency::constant(0.5).expect("fits"),
            concurrency: 2,
            iops: None,
            bytes: None,
            largest_request_bytes: 256 << 10,
            backing: Backing::Memory,
        }
    }

    #[test]
    fn each_kind_takes_its_own_time() {
        let mut volume = Volume::new(spec(), 1);
        for (kind, ms) in [(Kind::Read, 0.5), (Kind::Write, 1.0), (Kind::Sync, 2.0)] {
            let service = volume.submit(10_000 * MS, kind, 4096);
            assert_eq!(service.start_ns, 10_000 * MS);
            assert_eq!((service.due_ns - service.start_ns) as f64, ms * 1e6);
            volume = Volume::new(spec(), 1);
        }
    }

    #[test]
    fn what_finds_no_slot_waits_for_one() {
        let mut volume = Volume::new(spec(), 1);
        let due = |service: Service| service.due_ns / MS;
        assert_eq!(due(volume.submit(0, Kind::Sync, 0)), 2);
        assert_eq!(due(volume.submit(0, Kind::Write, 0)), 1);
        assert_eq!(due(volume.submit(0, Kind::Write, 0)), 2);
        assert_eq!(due(volume.submit(0, Kind::Write, 0)), 3);
    }

    #[test]
    fn large_requests_count_as_several_and_bytes_are_limited_too() {
        let rate = |per_second| Some(Rate { per_second, burst: None });
        let mut by_requests = Volume::new(DiskSpec { iops: rate(100.0), ..spec() }, 1);
        by_requests.submit(0, Kind::Write, 10 * (256 << 10));
        let next = by_requests.submit(0, Kind::Write, 1).start_ns;
        assert!((95 * MS..=110 * MS).contains(&next), "{next}");
        let mut by_bytes = Volume::new(DiskSpec { bytes: rate(1e6), ..spec() }, 1);
        by_bytes.submit(0, Kind::Write, 1_000_000);
        let next = by_bytes.submit(0, Kind::Write, 1).start_ns;
        assert!((700 * MS..=1000 * MS).contains(&next), "{next}");
    }

    #[test]
    fn a_slow_disk_is_slower_by_its_factor_and_more() {
        let mut volume = Volume::new(spec(), 1);
        volume.set_slow(Some(Slow { factor: 10.0, added_ms: 5.0 }));
        assert_eq!(volume.submit(0, Kind::Sync, 0).due_ns, 25 * MS);
        volume.set_slow(None);
        assert_eq!(volume.submit(100 * MS, Kind::Sync, 0).due_ns, 102 * MS);
    }
}
