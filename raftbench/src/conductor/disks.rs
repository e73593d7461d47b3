//! The emulated disks under the nodes of a lab: laid before the nodes start, asked while they run.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use anyhow::Context;
use chaos::lab::Lab;
use chaos::lab::disks::{Disks, Floor, Trouble};

use crate::evidence::{AskedTimes, DiskRecord, DiskSample, HostDisk};
use crate::folder::RunFolder;
use crate::plan::DiskPlan;

/// The disks of one lab, which are taken away with this value.
pub(super) struct LaidDisks {
    pub(super) disks: Arc<Disks>,
    plan: DiskPlan,
    floors: Vec<(String, Floor)>,
}

impl LaidDisks {
    /// A disk over the data directory of each of `hosts`.
    pub(super) fn lay(
        lab: &Lab,
        plan: &DiskPlan,
        hosts: &[String],
        folder: &RunFolder,
    ) -> anyhow::Result<Self> {
        let disks = Disks::of(lab)?;
        let data = std::path::absolute(folder.data())?;
        let mut floors = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let dir = data.join(host);
            // As databases want their directories.
            let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
            made.with_context(|| format!("cannot make {}", dir.display()))?;
            let seed = plan.seed.wrapping_add(number as u64);
            let floor = disks.attach(host, &dir, &plan.spec, seed);
            let floor = floor.with_context(|| format!("no disk like {} for {host}", plan.name))?;
            floors.push((host.clone(), floor));
        }
        Ok(Self { disks: Arc::new(disks), plan: plan.clone(), floors })
    }

    /// Lets every disk serve again, whatever a fault that was broken off left of it: a node that
    /// waits for its disk cannot end.
    pub(super) fn mend(&self) {
        for (host, _) in &self.floors {
            self.disks.set(host, Trouble::default()).ok();
        }
    }

    /// Half of the syncs take no longer, by the profile.
    pub(super) fn median_ms(&self) -> f64 {
        self.plan.spec.sync.quantile_ms(0.5)
    }

    /// What the disk of `node` has counted so far.
    pub(super) fn sample(&self, node: &str) -> Option<DiskSample> {
        let figures = self.disks.figures(node).ok()?;
        Some(DiskSample {
            syncs: figures.syncs,
            synced_bytes: figures.synced_bytes,
            writes: figures.writes,
            written_bytes: figures.written_bytes,
            reads: figures.reads,
            in_flight: figures.in_flight,
            held: figures.held,
            refused: figures.refused_full + figures.refused_error,
            sync_p50_ms: figures.sync_now.p50_ms,
            sync_p99_ms: figures.sync_now.p99_ms,
            sync_max_ms: figures.sync_now.max_ms,
            burst_credits: figures.burst_credits,
        })
    }

    /// What the disks were, and what they did.
    pub(super) fn record(&self) -> anyhow::Result<DiskRecord> {
        let sync = &self.plan.spec.sync;
        let host = |(node, floor): &(String, Floor)| {
            let figures = self.disks.figures(node)?;
            let times = figures.sync_service;
            Ok(HostDisk {
                node: node.clone(),
                transit_ms: floor.transit_ms,
                floor_sync_ms: floor.sync_ms,
                syncs: figures.syncs,
                synced_bytes: figures.synced_bytes,
                timed_syncs: times.count,
                mean_ms: times.mean_ms,
                p25_ms: times.p25_ms,
                p50_ms: times.p50_ms,
                p75_ms: times.p75_ms,
                p99_ms: times.p99_ms,
                max_ms: times.max_ms,
            })
        };
        Ok(DiskRecord {
            name: self.plan.name.clone(),
            backing: self.plan.backing().to_owned(),
            asked: AskedTimes {
                mean_ms: sync.mean_ms(),
                p25_ms: sync.quantile_ms(0.25),
                p50_ms: sync.quantile_ms(0.5),
                p75_ms: sync.quantile_ms(0.75),
                p99_ms: sync.quantile_ms(0.99),
            },
            hosts: self.floors.iter().map(host).collect::<anyhow::Result<_>>()?,
        })
    }
}
