//! Links by the kernel: a bridge with a veth pair for each host, and `sch_netem` on a device of its
//! own for each direction, between the sender's port and the bridge.
//!
//! ```text
//! n1 eth0 === v-n1 ---> n1-n2 (ifb, netem) ---> |        |
//!                  ---> n1-n3 (ifb, netem) ---> | bridge | ---> v-n2 === eth0 n2
//!                  by the receiver's address    |        |
//! ```
//!
//! Invariants. Loss is beyond the sender's own interface: there the sender's TCP would be told, and
//! would send again as if nothing was lost. A device has one netem: a tree with several may not
//! duplicate packets. Every host sends single packets (no segmentation offload), or one loss would
//! take 64 KiB with it. Every netem has a rate, if only a nominal one: with it packets keep their
//! order. What is not IP (ARP) goes straight to the bridge.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::Lab;
use super::super::iproute::Tool;
use super::{
    Change, Conditions, Direction, Implementation, Links, Loss, Share, Spread, State, Traffic,
};
use crate::Error;

/// The links of one lab; they end with its network namespaces.
pub struct Netem {
    lab: Lab,
    states: BTreeMap<Direction, State>,
}

impl Netem {
    /// Joins the hosts of `lab`.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        let mut netem = Self { lab: lab.clone(), states: BTreeMap::new() };
        match netem.lay() {
            Ok(()) => Ok(netem),
            Err(error) => {
                netem.take_cables_away();
                Err(error)
            }
        }
    }

    fn lay(&mut self) -> Result<(), Error> {
        self.lay_cables()?;
        let mut lines = Vec::new();
        for direction in self.directions() {
            let state = State::Open(Conditions::default());
            lines.push(line(&direction, state, None));
            self.states.insert(direction, state);
        }
        self.tc_or_none(&lines, "sch_netem")
    }

    /// Carries out `lines`, which need `module`.
    fn tc_or_none(&self, lines: &[String], module: &str) -> Result<(), Error> {
        self.lab.in_core(|| Tool::Tc.batch(lines))?.map_err(|error| {
            let reason = match error {
                Error::Iproute { reason, .. } if reason.contains("kind is unknown") => {
                    format!("this kernel has no {module} (a module may be to load, as root)")
                }
                other => other.to_string(),
            };
            Error::NoLinks { implementation: Implementation::Netem.name(), reason }
        })
    }

    fn directions(&self) -> Vec<Direction> {
        let hosts = self.lab.hosts();
        let pairs = hosts.iter().flat_map(|from| hosts.iter().map(move |to| (from, to)));
        pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| Direction { from: from.name().into(), to: to.name().into() })
            .collect()
    }

    fn lay_cables(&self) -> Result<(), Error> {
        let mut core = vec![
            "link add bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0".to_owned(),
            "link set bridge addrgenmode none".into(),
            "link set bridge up".into(),
        ];
        for host in self.lab.hosts() {
            let (port, network) = (port(host.name()), host.network().display());
            core.push(format!("link add {port} type veth peer name eth0 netns {network}"));
            core.push(format!("link set {port} addrgenmode none"));
            core.push(format!("link set {port} master bridge up"));
        }
        for direction in self.directions() {
            let device = device(&direction);
            core.push(format!("link add {device} type ifb"));
            core.push(format!("link set {device} addrgenmode none"));
            core.push(format!("link set {device} up"));
        }
        let no_cables = |error: Error| match error {
            Error::Iproute { reason, .. } => Error::NoLinks {
                implementation: Implementation::Netem.name(),
                reason: format!("no bridge with veth and ifb devices: {reason}"),
            },
            other => other,
        };
        self.lab.in_core(|| Tool::Ip.batch(&core))?.map_err(no_cables)?;
        for host in self.lab.hosts() {
            let lines = [
                "link set eth0 addrgenmode none".to_owned(),
                "link set eth0 gso_max_segs 1".into(),
                format!(
                    "addr add {}/{} dev eth0",
                    host.address(),
                    super::super::layout::PREFIX_BITS
                ),
                "link set eth0 up".into(),
            ];
            host.within(|| Tool::Ip.batch(&lines))?.map_err(no_cables)?;
        }
        let mut lines = Vec::new();
        for host in self.lab.hosts() {
            lines.push(format!("qdisc add dev {} ingress", port(host.name())));
        }
        for direction in self.directions() {
            let receiver = self.lab.host(&direction.to)?.address();
            lines.push(format!(
                "filter add dev {} parent ffff: protocol ip prio 1 u32 match ip dst {receiver}/32 \
                 action mirred egress redirect dev {}",
                port(&direction.from),
                device(&direction)
            ));
        }
        self.tc_or_none(&lines, "sch_ingress, cls_u32 or act_mirred")
    }

    /// So that others can join the hosts instead. Some may not be there.
    fn take_cables_away(&self) {
        let ports = self.lab.hosts().iter().map(|host| port(host.name()));
        let devices = self.directions().into_iter().map(|direction| device(&direction));
        let all = ports.chain(devices).chain(["bridge".to_owned()]);
        let lines: Vec<String> = all.map(|name| format!("link del {name}")).collect();
        self.lab.in_core(|| Tool::Ip.batch_what_works(&lines)).ok();
    }
}

impl Links for Netem {
    fn implementation(&self) -> Implementation {
        Implementation::Netem
    }

    fn set(&mut self, changes: &[Change]) -> Result<(), Error> {
        let before = |change: &Change| self.states.get(&change.direction).copied();
        let lines: Vec<_> =
            changes.iter().map(|c| line(&c.direction, c.state, before(c))).collect();
        if let Err(error) = self.lab.in_core(|| Tool::Tc.batch(&lines))? {
            // Back to what was; where a line was not reached yet, that is what is.
            let undo = changes.iter().filter_map(|c| Some(line(&c.direction, before(c)?, None)));
            let undo: Vec<_> = undo.collect();
            self.lab.in_core(|| Tool::Tc.batch(&undo))??;
            return Err(error);
        }
        for change in changes {
            self.states.insert(change.direction.clone(), change.state);
        }
        Ok(())
    }

    fn traffic(&mut self) -> Result<Vec<Traffic>, Error> {
        let shown = self.lab.in_core(|| Tool::Tc.json(&["-s", "-j", "qdisc", "show"]))??;
        let shown: Vec<Qdisc> = serde_json::from_str(&shown).map_err(|error| Error::Iproute {
            program: "tc",
            reason: format!("its JSON is not as expected: {error}"),
        })?;
        let traffic = self.directions().into_iter().map(|direction| {
            let device = device(&direction);
            let qdisc = shown.iter().find(|qdisc| qdisc.dev == device);
            Traffic {
                direction,
                delivered_packets: qdisc.map_or(0, |qdisc| qdisc.packets),
                dropped_packets: qdisc.map_or(0, |qdisc| qdisc.drops),
            }
        });
        Ok(traffic.collect())
    }

    fn about(&mut self) -> Result<String, Error> {
        let traffic = self.traffic()?;
        let all = |count: fn(&Traffic) -> u64| traffic.iter().map(count).sum::<u64>();
        Ok(format!(
            "tc netem in the kernel, on a bridge: {} packets through its queues, {} more dropped there",
            all(|t| t.delivered_packets),
            all(|t| t.dropped_packets)
        ))
    }
}

#[derive(Deserialize)]
struct Qdisc {
    dev: String,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    drops: u64,
}

/// A host's end at the bridge.
fn port(host: &str) -> String {
    format!("v-{host}")
}

/// The device that a direction passes through.
fn device(direction: &Direction) -> String {
    format!("{}-{}", direction.from, direction.to)
}

/// What `tc` does to give `direction` its new state.
fn line(direction: &Direction, state: State, before: Option<State>) -> String {
    let spread = |state| match state {
        State::Open(conditions) => conditions.spread,
        State::Cut => Spread::default(),
    };
    // netem cannot exchange its table of jitter: another one needs a new netem, under a new handle.
    let same = before.is_some_and(|before| spread(before) == spread(state));
    format!(
        "qdisc {} dev {} root handle {:x}: netem {}",
        if same { "change" } else { "replace" },
        device(direction),
        1 + spread(state) as usize,
        options(state)
    )
}

/// netem's options on the command line of `tc`. All of them, each time: `change` keeps most of what is
/// not said.
pub(crate) fn options(state: State) -> String {
    let conditions = match state {
        State::Open(conditions) => conditions,
        State::Cut => {
            let loss = Loss::Independent(Share::ALL);
            Conditions { loss, ..Conditions::default() }
        }
    };
    let micros = |time: std::time::Duration| format!("{}us", time.as_micros());
    let percent = |share: Share| format!("{}%", share.as_percent());
    let mut options = format!("limit {} ", conditions.queue_packets());
    options += &format!("delay {}", micros(conditions.delay));
    if !conditions.jitter.is_zero() {
        options += &format!(" {}", micros(conditions.jitter));
        options += match conditions.spread {
            Spread::Uniform => "",
            Spread::Normal => " distribution normal",
            Spread::Pareto => " distribution pareto",
        };
    }
    options += &match conditions.loss {
        Loss::None => " loss random 0%".into(),
        Loss::Independent(share) => format!(" loss random {}", percent(share)),
        Loss::Bursts(bursts) => format!(
            " loss gemodel {} {} {} {}",
            percent(bursts.turns_bad),
            percent(bursts.turns_good),
            percent(bursts.loss_while_bad),
            percent(bursts.loss_while_good)
        ),
    };
    options += &format!(" corrupt {}", percent(conditions.corrupt));
    for (word, share) in [("duplicate", conditions.duplicate), ("reorder", conditions.reorder)] {
        // Absent is none for these two, and `reorder 0%` would not be.
        if share > Share::default() {
            options += &format!(" {word} {}", percent(share));
        }
    }
    let nominal = 1_000_000_000_000;
    options += &format!(" rate {}bit", conditions.rate_bits_per_second.unwrap_or(nominal));
    options
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn conditions_become_options_of_tc() {
        let percent = |percent| Share::percent("share", percent).expect("a share");
        let conditions = Conditions {
            delay: Duration::from_micros(250),
            jitter: Duration::from_micros(50),
            spread: Spread::Pareto,
            loss: Loss::Independent(percent(1.0)),
            duplicate: percent(0.5),
            reorder: percent(2.0),
            corrupt: Share::default(),
            rate_bits_per_second: Some(10_000_000),
        };
        assert_eq!(
            options(State::Open(conditions)),
            "limit 1084 delay 250us 50us distribution pareto loss random 1% corrupt 0% \
             duplicate 0.5% reorder 2% rate 10000000bit"
        );
        assert!(options(State::Cut).contains("loss random 100%"));
    }
}
