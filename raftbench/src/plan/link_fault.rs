//! Faults of links, as a plan has them: partitions, and links that get worse. What they come to is
//! told when they start, from the victims that were chosen then.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chaos::Flap;
use chaos::lab::links::{
    Conditions, Direction, Loss, Others, Overlay, Partition, Spread, Way, directions,
};
use toml::{Table, Value};

/// Hosts that cannot reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionPlan {
    /// Who cannot reach whom.
    pub shape: Shape,
    /// Of `isolate` and the one-way shapes: from whom the victims are cut off.
    pub from: Others,
    /// It comes and goes.
    pub flap: Option<Flap>,
    /// From the injection.
    pub heal_after: Duration,
}

/// The shapes of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each victim is cut off, in both directions.
    Isolate,
    /// What the victims send does not arrive.
    OneWayOut,
    /// What is sent to the victims does not arrive.
    OneWayIn,
    /// The victims on one side, the other nodes on the other; clients reach all.
    Halves,
    /// The nodes fall into two halves, and only the victim reaches both.
    Bridge,
    /// Each node reaches only the two beside it.
    Ring,
}

/// Links that get worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkPlan {
    /// Over what the network gives them.
    pub overlay: Overlay,
    /// The victims' links to whom.
    pub from: Others,
    /// Seen from the victims.
    pub way: Way,
    /// From the injection.
    pub heal_after: Duration,
}

impl Shape {
    /// All, as profiles have them.
    pub const ALL: [(&'static str, Shape); 6] = [
        ("isolate", Shape::Isolate),
        ("one-way-out", Shape::OneWayOut),
        ("one-way-in", Shape::OneWayIn),
        ("halves", Shape::Halves),
        ("bridge", Shape::Bridge),
        ("ring", Shape::Ring),
    ];

    /// As profiles have it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    /// It is cut from `from`, and not from all that there are.
    pub fn takes_others(self) -> bool {
        matches!(self, Shape::Isolate | Shape::OneWayOut | Shape::OneWayIn)
    }
}

impl PartitionPlan {
    /// What it cuts between `hosts`, with these `victims`.
    pub fn cuts(
        &self,
        hosts: &[String],
        victims: &[String],
    ) -> Result<BTreeSet<Direction>, chaos::Error> {
        let of_victims = |way| Ok(directions(hosts, victims, self.from, way));
        match self.shape {
            Shape::Isolate => of_victims(Way::Both),
            Shape::OneWayOut => of_victims(Way::Out),
            Shape::OneWayIn => of_victims(Way::In),
            Shape::Halves => Partition::Halves(victims.to_vec()).cuts(hosts),
            Shape::Bridge => {
                Partition::Bridge(victims.first().cloned().unwrap_or_default()).cuts(hosts)
            }
            Shape::Ring => Partition::Ring.cuts(hosts),
        }
    }

    /// The victims are no part of the quorum while it holds.
    pub fn takes_out(&self) -> bool {
        match self.shape {
            Shape::Isolate | Shape::OneWayOut | Shape::OneWayIn => self.from != Others::Clients,
            Shape::Halves => true,
            Shape::Bridge | Shape::Ring => false,
        }
    }

    /// A leader among `victims` of `nodes` does not stay one: the others hear nothing of it, and
    /// are enough to elect another.
    pub fn deposes(&self, victims: usize, nodes: usize) -> bool {
        let unheard = match self.shape {
            Shape::Isolate | Shape::OneWayOut => self.from != Others::Clients,
            Shape::Halves => true,
            Shape::OneWayIn | Shape::Bridge | Shape::Ring => false,
        };
        unheard && self.flap.is_none() && nodes - victims > nodes / 2
    }

    pub(super) fn fill(&self, table: &mut Table) {
        table.insert("shape".into(), self.shape.name().into());
        if self.shape.takes_others() {
            table.insert("from".into(), self.from.name().into());
        }
        if let Some(Flap { down, up }) = self.flap {
            table.insert("flap_down_s".into(), down.as_secs_f64().into());
            table.insert("flap_up_s".into(), up.as_secs_f64().into());
        }
    }
}

impl LinkPlan {
    /// The links that get worse between `hosts`, with these `victims`.
    pub fn directions(&self, hosts: &[String], victims: &[String]) -> BTreeSet<Direction> {
        directions(hosts, victims, self.from, self.way)
    }

    pub(super) fn fill(&self, table: &mut Table) {
        table.insert("from".into(), self.from.name().into());
        table.insert("way".into(), self.way.name().into());
        for (key, value) in keys(&self.overlay) {
            table.insert(key.into(), value);
        }
    }
}

/// The keys that a profile has for an overlay.
fn keys(overlay: &Overlay) -> Vec<(&'static str, Value)> {
    let ms = |time: Duration| Value::from(time.as_secs_f64() * 1e3);
    // Rounded, so that 0.07 of a hundred reads 7.
    let percent =
        |share: chaos::lab::links::Share| Value::from((share.as_percent() * 1e9).round() / 1e9);
    let mut keys = Vec::new();
    let mut given = |key, value: Option<Value>| keys.extend(value.map(|value| (key, value)));
    given("delay_ms", overlay.delay.map(ms));
    given("jitter_ms", overlay.jitter.map(ms));
    given(
        "jitter_spread",
        overlay.spread.map(|spread| {
            Value::from(match spread {
                Spread::Uniform => "uniform",
                Spread::Normal => "normal",
                Spread::Pareto => "pareto",
            })
        }),
    );
    match overlay.loss {
        None => {}
        Some(Loss::None) => given("loss_percent", Some(0.0.into())),
        Some(Loss::Independent(share)) => given("loss_percent", Some(percent(share))),
        Some(Loss::Bursts(bursts)) => {
            let table = [
                ("turns_bad_percent", bursts.turns_bad),
                ("turns_good_percent", bursts.turns_good),
                ("while_bad_percent", bursts.loss_while_bad),
                ("while_good_percent", bursts.loss_while_good),
            ];
            let table: Table =
                table.into_iter().map(|(key, share)| (key.to_owned(), percent(share))).collect();
            given("loss_bursts", Some(Value::Table(table)));
        }
    }
    given("duplicate_percent", overlay.duplicate.map(percent));
    given("reorder_percent", overlay.reorder.map(percent));
    given("corrupt_percent", overlay.corrupt.map(percent));
    let megabits = |rate: u64| Value::from(rate as f64 / 1e6);
    given("rate_mbit_per_second", overlay.rate_bits_per_second.map(megabits));
    keys
}

/// "one-way-out from peers, 0.5 s down and 1 s up".
impl fmt::Display for PartitionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shape.name())?;
        if self.shape.takes_others() {
            write!(f, " from {}", self.from.name())?;
        }
        if let Some(Flap { down, up }) = self.flap {
            write!(f, ", {} s down and {} s up", down.as_secs_f64(), up.as_secs_f64())?;
        }
        Ok(())
    }
}

/// "delay_ms = 40, loss_percent = 1 to peers, both ways".
impl fmt::Display for LinkPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> =
            keys(&self.overlay).iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let way = match self.way {
            Way::Both => "both ways",
            Way::Out => "outwards",
            Way::In => "inwards",
        };
        write!(f, "{} with {}, {way}", keys.join(", "), self.from.name())
    }
}

/// Refuses an overlay that makes no sense over one of `links`.
pub(crate) fn check_over(
    overlay: &Overlay,
    mut links: impl Iterator<Item = Conditions>,
) -> Result<(), chaos::Error> {
    links.try_for_each(|link| overlay.over(link).check())
}
