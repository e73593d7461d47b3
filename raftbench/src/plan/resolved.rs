//! A plan as a profile again: what the manifest keeps, so that a run can be repeated.
//!
//! Invariant: reading it gives the same plan, but for the seed and the key prefix, which are the
//! run's.

use std::time::Duration;

use loadgen::spec::{Arrivals, Consistency, KeyDistribution};
use toml::{Table, Value};

use super::{FaultKind, FaultPlan, FaultTarget, Plan, Shape, Target};

impl Plan {
    /// The profile as resolved: every value stated, every flag in it.
    pub fn to_profile(&self) -> Table {
        let mut profile = table([
            ("description", Value::from(self.description.clone())),
            ("cluster", Value::Table(self.cluster_table())),
            ("load", Value::Table(self.load_table())),
            (
                "phases",
                Value::Table(table([
                    ("warmup_s", seconds(self.load.warmup)),
                    ("measure_s", seconds(self.load.measure)),
                    ("drain_s", seconds(self.load.drain)),
                ])),
            ),
            (
                "checks",
                Value::Table(table([
                    ("audit", Value::from(self.checks.audit)),
                    ("linearizable", Value::from(self.checks.linearizable)),
                ])),
            ),
            (
                "limits",
                Value::Table(table([
                    ("leader_changes_per_minute", self.limits.leader_changes_per_minute.into()),
                    ("wal_fsync_p99_ms", self.limits.wal_fsync_p99_ms.into()),
                    ("commit_p99_ms", self.limits.commit_p99_ms.into()),
                    ("follower_lag_entries", whole(self.limits.follower_lag_entries)),
                    ("term_growth_per_minute", self.limits.term_growth_per_minute.into()),
                ])),
            ),
            ("expect", Value::Table(self.expect_table())),
        ]);
        if !self.faults.is_empty() {
            let faults = self.faults.iter().map(|fault| Value::Table(fault.to_table())).collect();
            profile.insert("faults".into(), Value::Array(faults));
        }
        profile
    }

    fn cluster_table(&self) -> Table {
        let cluster = &self.cluster;
        let mut out = table([("target", Value::from(cluster.target.name()))]);
        if let Target::External { endpoints } = &cluster.target {
            out.insert("endpoints".into(), Value::from(endpoints.clone()));
            return out;
        }
        out.insert("nodes".into(), whole(cluster.nodes as u64));
        out.insert("heartbeat_ms".into(), whole(cluster.heartbeat_ms));
        out.insert("election_timeout_ms".into(), whole(cluster.election_timeout_ms));
        if let Some(disk) = &cluster.disk {
            out.insert("disk".into(), disk.given.clone());
            out.insert("disk_backing".into(), disk.backing().into());
        }
        if let Some(network) = cluster.network.as_ref().filter(|network| !network.is_plain()) {
            out.insert("network".into(), network.given.clone());
            if let Some(links) = network.links {
                out.insert("links".into(), links.name().into());
            }
        }
        // The other target's settings too: the profile stays the one that was read.
        if !cluster.bench_node.is_empty() {
            out.insert("bench_node".into(), Value::Table(cluster.bench_node.clone()));
        }
        if !cluster.etcd_flags.is_empty() {
            let flags = table([("flags", Value::from(cluster.etcd_flags.clone()))]);
            out.insert("etcd".into(), Value::Table(flags));
        }
        out
    }

    fn load_table(&self) -> Table {
        let load = &self.load;
        let mut out = match load.arrivals {
            Arrivals::Constant { rate_per_second } => table([
                ("arrivals", "constant".into()),
                ("rate_per_second", rate_per_second.into()),
            ]),
            Arrivals::Poisson { rate_per_second } => {
                table([("arrivals", "poisson".into()), ("rate_per_second", rate_per_second.into())])
            }
            Arrivals::Closed { clients } => {
                table([("arrivals", "closed".into()), ("clients", whole(clients as u64))])
            }
        };
        if !matches!(load.arrivals, Arrivals::Closed { .. }) {
            out.insert("max_outstanding".into(), whole(load.max_outstanding as u64));
        }
        out.insert("connections".into(), whole(load.connections as u64));
        out.insert("timeout_ms".into(), whole(load.timeout.as_millis() as u64));
        let reads = match load.reads {
            Consistency::Linearizable => "linearizable",
            Consistency::Serializable => "serializable",
        };
        out.insert("reads".into(), reads.into());
        out.insert("api".into(), self.api.name().into());
        // Rounded, so that 1 - 0.9 reads 0.1.
        let get_share = ((1.0 - load.put_share) * 1e9).round() / 1e9;
        let mix = table([("put", load.put_share.into()), ("get", get_share.into())]);
        out.insert("mix".into(), Value::Table(mix));
        let mut keys = table([("count", whole(load.keys.count.into()))]);
        match load.keys.distribution {
            KeyDistribution::Uniform => {
                keys.insert("distribution".into(), "uniform".into());
            }
            KeyDistribution::Zipfian { exponent } => {
                keys.insert("distribution".into(), "zipfian".into());
                keys.insert("exponent".into(), exponent.into());
            }
        }
        out.insert("keys".into(), Value::Table(keys));
        let values = table([("bytes", whole(load.value_bytes as u64))]);
        out.insert("values".into(), Value::Table(values));
        if let Some(preload) = &self.preload {
            let preload = table([
                ("keys", whole(preload.keys.into())),
                ("bytes", whole(preload.value_bytes as u64)),
            ]);
            out.insert("preload".into(), Value::Table(preload));
        }
        out
    }

    fn expect_table(&self) -> Table {
        let mut out = Table::new();
        if let Some(limit) = self.expect.max_outage_ms {
            out.insert("max_outage_ms".into(), limit.into());
        }
        if let Some(limit) = self.expect.late_after_ms {
            out.insert("late_after_ms".into(), limit.into());
        }
        if let Some(required) = &self.expect.required {
            out.insert("required".into(), Value::from(required.clone()));
        }
        out
    }
}

impl FaultPlan {
    fn to_table(&self) -> Table {
        let target = match &self.target {
            FaultTarget::Names(names) => Value::from(names.clone()),
            other => Value::from(other.to_string()),
        };
        let mut out = table([
            ("kind", self.kind.name().into()),
            ("target", target),
            ("at_s", seconds(self.at)),
        ]);
        let undo = match self.kind {
            FaultKind::Pause { .. } => Some("resume_after_s"),
            FaultKind::Disk(fault) => {
                let keys = fault.kind.keys().into_iter();
                out.extend(keys.map(|(key, value)| (key.to_owned(), value)));
                Some(fault.kind.undo_key())
            }
            FaultKind::Kill { .. } | FaultKind::Terminate { .. } => Some("restart_after_s"),
            FaultKind::Replace { .. } => Some("rejoin_after_s"),
            FaultKind::Transfer => None,
            FaultKind::Partition(partition) => {
                partition.fill(&mut out);
                if partition.shape == Shape::Ring {
                    out.remove("target");
                }
                Some("heal_after_s")
            }
            FaultKind::Link(link) => {
                link.fill(&mut out);
                Some("heal_after_s")
            }
        };
        if let (Some(undo), Some(held)) = (undo, self.kind.holds()) {
            out.insert(undo.into(), seconds(held));
        }
        out
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn seconds(duration: Duration) -> Value {
    Value::from(duration.as_secs_f64())
}

fn whole(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}
