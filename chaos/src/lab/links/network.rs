//! The links of a lab with what lies over them: conditions, layers of other conditions, and
//! partitions; all of these may overlap.
//!
//! Invariant: a direction is cut exactly while at least one partition that cuts it holds; healed of
//! all, and with every layer lifted, it has its conditions back.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change, Conditions, Direction, Implementation, Links, Overlay, Partition, State, Traffic,
    check_direction,
};
use crate::Error;

/// The links of one lab.
pub struct Network {
    links: Box<dyn Links>,
    hosts: Vec<String>,
    laid: Laid,
    changes: BTreeMap<Direction, u64>,
    next: u64,
}

/// A partition that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutId(u64);

/// Conditions that lie over others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerId(u64);

/// All that determines the directions' states.
#[derive(Clone, Default)]
struct Laid {
    conditions: BTreeMap<Direction, Conditions>,
    /// A later one has the last word.
    layers: BTreeMap<LayerId, (BTreeSet<Direction>, Overlay)>,
    cuts: BTreeMap<CutId, BTreeSet<Direction>>,
}

impl Laid {
    fn conditions(&self, direction: &Direction) -> Conditions {
        let layers = self.layers.values().filter(|(over, _)| over.contains(direction));
        let link = self.conditions.get(direction).copied().unwrap_or_default();
        layers.fold(link, |link, (_, overlay)| overlay.over(link))
    }

    fn state(&self, direction: &Direction) -> State {
        match self.cuts.values().any(|cut| cut.contains(direction)) {
            true => State::Cut,
            false => State::Open(self.conditions(direction)),
        }
    }
}

impl Network {
    /// Of `links` between `hosts`, as they begin.
    pub fn new(links: Box<dyn Links>, hosts: Vec<String>) -> Self {
        Self { links, hosts, laid: Laid::default(), changes: BTreeMap::new(), next: 0 }
    }

    /// Who carries the packets.
    pub fn implementation(&self) -> Implementation {
        self.links.implementation()
    }

    /// The hosts' names.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// What `direction` is like where it is not cut.
    pub fn conditions(&self, direction: &Direction) -> Conditions {
        self.laid.conditions(direction)
    }

    /// How often each direction's state has changed, where it has.
    pub(crate) fn changes(&self) -> &BTreeMap<Direction, u64> {
        &self.changes
    }

    /// Gives these directions new conditions; a cut one gets them once it is healed.
    pub fn set(&mut self, conditions: &[(Direction, Conditions)]) -> Result<(), Error> {
        let mut after = self.laid.clone();
        after.conditions.extend(conditions.iter().cloned());
        let touched = conditions.iter().map(|(direction, _)| direction.clone()).collect();
        self.change(&touched, after)
    }

    /// Lays `overlay` over these directions' conditions.
    pub fn lay_over(
        &mut self,
        directions: &BTreeSet<Direction>,
        overlay: Overlay,
    ) -> Result<LayerId, Error> {
        let id = LayerId(self.next);
        let mut after = self.laid.clone();
        after.layers.insert(id, (directions.clone(), overlay));
        self.change(directions, after)?;
        self.next += 1;
        Ok(id)
    }

    /// Takes a layer away; one that was taken away already is left so.
    pub fn lift(&mut self, id: LayerId) -> Result<(), Error> {
        let mut after = self.laid.clone();
        let Some((directions, _)) = after.layers.remove(&id) else { return Ok(()) };
        self.change(&directions, after)
    }

    /// Begins a partition.
    pub fn cut(&mut self, partition: &Partition) -> Result<CutId, Error> {
        let directions = partition.cuts(&self.hosts)?;
        self.cut_directions(&directions)
    }

    /// Begins a partition that cuts `directions`.
    pub fn cut_directions(&mut self, directions: &BTreeSet<Direction>) -> Result<CutId, Error> {
        let id = CutId(self.next);
        let mut after = self.laid.clone();
        after.cuts.insert(id, directions.clone());
        self.change(directions, after)?;
        self.next += 1;
        Ok(id)
    }

    /// Ends a partition; one that was ended already is left so.
    pub fn heal(&mut self, id: CutId) -> Result<(), Error> {
        let mut after = self.laid.clone();
        let Some(directions) = after.cuts.remove(&id) else { return Ok(()) };
        self.change(&directions, after)
    }

    /// What every direction has carried.
    pub fn traffic(&mut self) -> Result<Vec<Traffic>, Error> {
        self.links.traffic()
    }

    /// See [`Links::about`].
    pub fn about(&mut self) -> Result<String, Error> {
        self.links.about()
    }

    /// Applies what differs in `touched`, and keeps `after` if that went well.
    fn change(&mut self, touched: &BTreeSet<Direction>, after: Laid) -> Result<(), Error> {
        for direction in touched {
            check_direction(direction, &self.hosts)?;
            after.conditions(direction).check()?;
        }
        let changes: Vec<Change> = touched
            .iter()
            .filter(|direction| after.state(direction) != self.laid.state(direction))
            .map(|direction| Change { state: after.state(direction), direction: direction.clone() })
            .collect();
        if !changes.is_empty() {
            self.links.set(&changes)?;
        }
        for Change { direction, .. } in changes {
            *self.changes.entry(direction).or_default() += 1;
        }
        self.laid = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::{Loss, Share};
    use super::*;

    /// Remembers what it was told.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Links for Told {
        fn implementation(&self) -> Implementation {
            Implementation::Switch
        }

        fn set(&mut self, changes: &[Change]) -> Result<(), Error> {
            let text = |change: &Change| {
                let Direction { from, to } = &change.direction;
                match change.state {
                    State::Cut => format!("{from}>{to} cut"),
                    State::Open(conditions) => format!("{from}>{to} {:?}", conditions.delay),
                }
            };
            self.0.lock().expect("sound").extend(changes.iter().map(text));
            Ok(())
        }

        fn traffic(&mut self) -> Result<Vec<Traffic>, Error> {
            Ok(Vec::new())
        }

        fn about(&mut self) -> Result<String, Error> {
            Ok(String::new())
        }
    }

    fn network() -> (Network, Told) {
        let told = Told::default();
        let hosts = ["n1", "n2", "c1"].map(str::to_owned).to_vec();
        (Network::new(Box::new(told.clone()), hosts), told)
    }

    impl Told {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().expect("sound"))
        }
    }

    fn way(from: &str, to: &str) -> Direction {
        Direction { from: from.into(), to: to.into() }
    }

    #[test]
    fn overlapping_partitions_heal_when_the_last_one_ends() {
        let (mut network, told) = network();
        let delay = Duration::from_millis(5);
        let slow = Conditions { delay, ..Default::default() };
        network.set(&[(way("n1", "n2"), slow)]).expect("set");
        assert_eq!(told.take(), ["n1>n2 5ms"]);
        let first = network.cut(&Partition::Halves(vec!["n1".into()])).expect("cut");
        assert_eq!(told.take(), ["n1>n2 cut", "n2>n1 cut"]);
        let one_way = Partition::OneWay { from: vec!["n1".into()], to: vec!["n2".into()] };
        let second = network.cut(&one_way).expect("cut");
        assert_eq!(told.take(), [""; 0]);
        network.heal(first).expect("healed");
        assert_eq!(told.take(), ["n2>n1 0ns"]);
        network.heal(second).expect("healed");
        network.heal(second).expect("healed");
        assert_eq!(told.take(), ["n1>n2 5ms"]);
    }

    #[test]
    fn layers_lie_over_each_other_and_leave_what_was_there() {
        let (mut network, told) = network();
        let ms = |ms| Some(Duration::from_millis(ms));
        let delayed = |delay| Overlay { delay, ..Default::default() };
        let ways = BTreeSet::from([way("n1", "n2"), way("n2", "n1")]);
        let slow = network.lay_over(&ways, delayed(ms(5))).expect("laid");
        assert_eq!(told.take(), ["n1>n2 5ms", "n2>n1 5ms"]);
        let one = BTreeSet::from([way("n1", "n2")]);
        let slower = network.lay_over(&one, delayed(ms(9))).expect("laid");
        let lossy = Overlay { loss: Some(Loss::Independent(Share::ALL)), ..Default::default() };
        let lossy = network.lay_over(&one, lossy).expect("laid");
        assert_eq!(told.take(), ["n1>n2 9ms", "n1>n2 9ms"]);
        network.lift(slow).expect("lifted");
        assert_eq!(told.take(), ["n2>n1 0ns"]);
        network.lift(slower).expect("lifted");
        network.lift(lossy).expect("lifted");
        network.lift(lossy).expect("lifted");
        assert_eq!(told.take(), ["n1>n2 0ns", "n1>n2 0ns"]);
        assert_eq!(network.conditions(&way("n1", "n2")), Conditions::default());
    }

    #[test]
    fn a_change_that_is_refused_changes_nothing() {
        let (mut network, told) = network();
        let reorder = super::super::Share::ALL;
        let wrong = Conditions { reorder, ..Default::default() };
        let right = Conditions { delay: Duration::from_millis(1), ..Default::default() };
        for second in [(way("n1", "n9"), right), (way("n1", "n1"), right), (way("n2", "n1"), wrong)]
        {
            assert!(network.set(&[(way("n1", "n2"), right), second]).is_err());
        }
        assert_eq!(told.take(), [""; 0]);
        network.set(&[(way("n1", "n2"), right)]).expect("set");
        assert_eq!(told.take(), ["n1>n2 1ms"]);
    }
}
