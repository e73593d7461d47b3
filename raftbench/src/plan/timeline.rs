//! A plan as text: what `raftbench plan` prints.

use std::fmt;

use loadgen::spec::Arrivals;

use super::{FaultKind, Plan, Target};

/// The timeline, for `raftbench plan`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, load) = (&self.cluster, &self.load);
        writeln!(f, "{}: {}", self.profile, self.description)?;
        for setting in cluster.unsafe_settings() {
            writeln!(f, "UNSAFE     {setting}")?;
        }
        match &cluster.target {
            Target::External { endpoints } => {
                writeln!(f, "cluster    external at {}", endpoints.join(", "))?;
            }
            target => writeln!(
                f,
                "cluster    {} x {}, heartbeat {} ms, election timeout {} ms",
                cluster.nodes,
                target.name(),
                cluster.heartbeat_ms,
                cluster.election_timeout_ms
            )?,
        }
        if let Some(network) = &cluster.network {
            let by = network.links.map_or("netem or the switch", |links| links.name());
            writeln!(f, "network    {}, by {by}: {}", network.name, network.description)?;
        }
        if let Some(disk) = &cluster.disk {
            let (name, backing, what) = (&disk.name, disk.backing(), &disk.description);
            writeln!(f, "disk       {name}, emulated, its bytes in the host's {backing}: {what}")?;
        }
        match load.arrivals {
            Arrivals::Constant { rate_per_second } => {
                write!(f, "load       {rate_per_second}/s, evenly spaced")?;
            }
            Arrivals::Poisson { rate_per_second } => {
                write!(f, "load       {rate_per_second}/s, Poisson")?;
            }
            Arrivals::Closed { clients } => {
                write!(f, "load       {clients} closed-loop clients (hides stalls)")?;
            }
        }
        writeln!(
            f,
            ", {:.0} % puts of {} bytes, {} keys, {} connections by {}, timeout {} ms",
            load.put_share * 100.0,
            load.value_bytes,
            load.keys.count,
            load.connections,
            self.api.title(),
            load.timeout.as_millis()
        )?;
        if let Some(preload) = &self.preload {
            writeln!(f, "preload    {} keys of {} bytes", preload.keys, preload.value_bytes)?;
        }
        writeln!(f, "seed       {}\n", self.seed)?;
        for (at_s, what) in self.timeline() {
            writeln!(f, "{at_s:>9.3} s  {what}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// What happens when, in seconds from the first intended send of the measured phase.
    pub fn timeline(&self) -> Vec<(f64, String)> {
        let load = &self.load;
        let end = load.measure.as_secs_f64();
        let mut timeline = vec![
            (-load.warmup.as_secs_f64(), "load starts (warm-up)".to_owned()),
            (0.0, "measured phase starts".to_owned()),
            (end, "load ends; answers are awaited".to_owned()),
        ];
        for fault in &self.faults {
            let (at_s, id, target) = (fault.at.as_secs_f64(), &fault.id, &fault.target);
            let (done, undone) = match fault.kind {
                FaultKind::Transfer => {
                    timeline.push((at_s, format!("{id}: hand leadership to {target}")));
                    continue;
                }
                FaultKind::Kill { .. } => {
                    (format!("kill -9 {target}"), "start again what was killed")
                }
                FaultKind::Terminate { .. } => {
                    (format!("SIGTERM to {target}"), "start again what ended")
                }
                FaultKind::Pause { .. } => (format!("pause {target}"), "resume what was paused"),
                FaultKind::Partition(partition) => {
                    (format!("partition {target}: {partition}"), "open the links again")
                }
                FaultKind::Link(link) => {
                    (format!("links of {target}: {link}"), "links as they were")
                }
                FaultKind::Replace { .. } => (
                    format!("kill -9, wipe and remove {target}"),
                    "add and start what takes its place",
                ),
                FaultKind::Disk(fault) => {
                    let (done, undone) = fault.kind.in_words();
                    (format!("{done} {target}"), undone)
                }
            };
            match fault.kind.holds() {
                Some(held) => {
                    timeline.push((at_s, format!("{id}: {done}")));
                    let healed_s = at_s + held.as_secs_f64();
                    timeline.push((healed_s, format!("{id}: {undone}")));
                }
                None => timeline.push((at_s, format!("{id}: {done}, for the rest of the run"))),
            }
        }
        timeline.push((
            end + load.drain.as_secs_f64(),
            match self.checks.audit {
                true => "end; every key is read back (audit)".to_owned(),
                false => "end".to_owned(),
            },
        ));
        timeline.sort_by(|a, b| a.0.total_cmp(&b.0));
        timeline
    }
}
