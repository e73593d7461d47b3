//! Links between the hosts of a lab: what happens to packets from one host to another, for each
//! direction of each pair by itself, changed while running.
//!
//! [`Links`] has two implementations with one conformance suite: [`netem`], by the kernel, and
//! [`switch`], by a process, for kernels without it. [`Network`] is what others use: conditions
//! with partitions laid over them.
//!
//! Invariant: a change is checked whole before any of it is applied, and applied whole or not at
//! all.

mod conditions;
pub mod flapping;
pub mod netem;
mod network;
mod overlay;
mod partition;
pub mod switch;

use serde::{Deserialize, Serialize};

pub use conditions::{Bursts, Conditions, Loss, Share, Spread, millis};
pub use network::{CutId, LayerId, Network};
pub use overlay::{Others, Overlay, Way, directions};
pub use partition::Partition;

use super::Lab;
use super::inside::names;
use crate::Error;

/// The way from one host to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Direction {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
}

/// What a direction is like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Packets travel under these conditions.
    Open(Conditions),
    /// No packet that is sent from now on arrives. What was under way does.
    Cut,
}

/// A new state of one direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Of which.
    pub direction: Direction,
    /// What it is like from now on.
    pub state: State,
}

/// What a direction has carried since the lab began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Which.
    pub direction: Direction,
    /// Packets that arrived, copies too.
    pub delivered_packets: u64,
    /// Packets that were taken and did not arrive: lost, cut off, or too many for the queue.
    pub dropped_packets: u64,
}

/// The links of one lab. All begin open, with no conditions. They end with this value.
pub trait Links: Send {
    /// Which of the two.
    fn implementation(&self) -> Implementation;

    /// Puts all of `changes` into force. Their hosts are of this lab, and their conditions checked.
    fn set(&mut self, changes: &[Change]) -> Result<(), Error>;

    /// Every direction's traffic.
    fn traffic(&mut self) -> Result<Vec<Traffic>, Error>;

    /// What else is to be told of it at the end of a run, such as its own speed.
    fn about(&mut self) -> Result<String, Error>;
}

/// Who carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Implementation {
    /// The kernel's `sch_netem`.
    Netem,
    /// A process of ours, over TUN devices.
    Switch,
}

impl Implementation {
    /// As profiles and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Implementation::Netem => "netem",
            Implementation::Switch => "switch",
        }
    }
}

/// Joins the hosts of `lab`: as asked, or by netem where this kernel has it, else by the switch.
/// The switch's dice are thrown from `seed`; netem has none.
pub fn lay(lab: &Lab, asked: Option<Implementation>, seed: u64) -> Result<Box<dyn Links>, Error> {
    let switch = || Ok::<Box<dyn Links>, Error>(Box::new(switch::Switch::start(lab, seed)?));
    match asked {
        Some(Implementation::Netem) => Ok(Box::new(netem::Netem::start(lab)?)),
        Some(Implementation::Switch) => switch(),
        None => match netem::Netem::start(lab) {
            Ok(netem) => Ok(Box::new(netem)),
            Err(Error::NoLinks { reason: no_netem, .. }) => switch().map_err(|error| match error {
                Error::NoLinks { implementation, reason } => {
                    let reason = format!("{reason} (and netem is not: {no_netem})");
                    Error::NoLinks { implementation, reason }
                }
                other => other,
            }),
            Err(other) => Err(other),
        },
    }
}

/// Refuses a host that is not of the lab, or a way from a host to itself.
fn check_direction(direction: &Direction, hosts: &[String]) -> Result<(), Error> {
    check_hosts([&direction.from, &direction.to], hosts)?;
    match direction.from == direction.to {
        false => Ok(()),
        true => Err(Error::Condition {
            what: "a direction",
            value: format!("from {0} to {0}", direction.from),
            wanted: "between two hosts",
        }),
    }
}

fn check_hosts<'a>(
    asked: impl IntoIterator<Item = &'a String>,
    hosts: &[String],
) -> Result<(), Error> {
    match asked.into_iter().find(|name| !hosts.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::UnknownHost {
            name: name.clone(),
            known: names(hosts.iter().map(String::as_str)),
        }),
    }
}
