//! The network of a cluster in a lab, resolved to every direction between its hosts.

use chaos::lab::Layout;
use chaos::lab::links::{Conditions, Direction, Implementation};

/// What lies between the hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPlan {
    /// `cross-az`, the file's stem, or its own `name`.
    pub name: String,
    /// Its own sentence.
    pub description: String,
    /// As the profile has it: the name of an embedded one, or the whole.
    pub given: toml::Value,
    /// Who shall carry the packets; `None`: netem where the kernel has it, else the switch.
    pub links: Option<Implementation>,
    /// How many hosts of each kind.
    pub layout: Layout,
    /// Seeds the switch's dice.
    pub seed: u64,
    /// Of every direction that has any.
    pub conditions: Vec<(Direction, Conditions)>,
}

impl NetworkPlan {
    /// Hosts that are joined by links without conditions.
    pub fn plain(nodes: usize) -> Result<Self, chaos::Error> {
        Ok(Self {
            name: "plain".into(),
            description: "hosts of their own, with nothing between them".into(),
            given: toml::Value::Table(toml::Table::new()),
            links: None,
            layout: Layout::new(nodes, 1)?,
            seed: 0,
            conditions: Vec::new(),
        })
    }

    /// Refuses a name that no host has.
    pub fn ensure_host(&self, name: &str) -> Result<(), chaos::Error> {
        let hosts: Vec<String> = self.layout.hosts().into_iter().map(|host| host.name).collect();
        match hosts.iter().any(|host| host == name) {
            true => Ok(()),
            false => {
                Err(chaos::Error::UnknownHost { name: name.to_owned(), known: hosts.join(", ") })
            }
        }
    }

    /// The round trip between two hosts, without what jitter does to it.
    pub fn round_trip_ms(&self, one: &str, other: &str) -> f64 {
        let delay_ms = |from: &str, to: &str| {
            let way = |(direction, _): &&(Direction, Conditions)| {
                direction.from == from && direction.to == to
            };
            let found = self.conditions.iter().find(way);
            found.map_or(0.0, |(_, conditions)| conditions.delay.as_secs_f64() * 1000.0)
        };
        delay_ms(one, other) + delay_ms(other, one)
    }
}
