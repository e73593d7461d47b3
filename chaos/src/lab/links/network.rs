//! The links of a lab with what lies over them: conditions, and partitions that may overlap.
//!
//! Invariant: a direction is cut exactly while at least one partition that cuts it holds; healed of
//! all, it has its conditions back.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change, Conditions, Direction, Implementation, Links, Partition, State, Traffic,
    check_direction,
};
use crate::Error;

/// The links of one lab.
pub struct Network {
    links: Box<dyn Links>,
    hosts: Vec<String>,
    conditions: BTreeMap<Direction, Conditions>,
    cuts: BTreeMap<CutId, BTreeSet<Direction>>,
    next: u64,
}

/// A partition that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutId(u64);

impl Network {
    /// Of `links` between `hosts`, as they begin.
    pub fn new(links: Box<dyn Links>, hosts: Vec<String>) -> Self {
        Self { links, hosts, conditions: BTreeMap::new(), cuts: BTreeMap::new(), next: 0 }
    }

    /// Who carries the packets.
    pub fn implementation(&self) -> Implementation {
        self.links.implementation()
    }

    /// The hosts' names.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Gives these directions new conditions; a cut one gets them once it is healed.
    pub fn set(&mut self, conditions: &[(Direction, Conditions)]) -> Result<(), Error> {
        for (direction, conditions) in conditions {
            check_direction(direction, &self.hosts)?;
            conditions.check()?;
        }
        let mut after = self.conditions.clone();
        after.extend(conditions.iter().cloned());
        let touched = conditions.iter().map(|(direction, _)| direction.clone()).collect();
        self.change(touched, after, self.cuts.clone())
    }

    /// Begins a partition.
    pub fn cut(&mut self, partition: &Partition) -> Result<CutId, Error> {
        let directions = partition.cuts(&self.hosts)?;
        let id = CutId(self.next);
        let mut after = self.cuts.clone();
        after.insert(id, directions.clone());
        self.change(directions, self.conditions.clone(), after)?;
        self.next += 1;
        Ok(id)
    }

    /// Ends a partition; one that was ended already is left so.
    pub fn heal(&mut self, id: CutId) -> Result<(), Error> {
        let mut after = self.cuts.clone();
        let Some(directions) = after.remove(&id) else { return Ok(()) };
        self.change(directions, self.conditions.clone(), after)
    }

    /// What every direction has carried.
    pub fn traffic(&mut self) -> Result<Vec<Traffic>, Error> {
        self.links.traffic()
    }

    /// See [`Links::about`].
    pub fn about(&mut self) -> Result<String, Error> {
        self.links.about()
    }

    /// Applies what differs in `touched`, and keeps the new state if that went well.
    fn change(
        &mut self,
        touched: BTreeSet<Direction>,
        conditions: BTreeMap<Direction, Conditions>,
        cuts: BTreeMap<CutId, BTreeSet<Direction>>,
    ) -> Result<(), Error> {
        let state = |direction: &Direction| match cuts.values().any(|cut| cut.contains(direction)) {
            true => State::Cut,
            false => State::Open(conditions.get(direction).copied().unwrap_or_default()),
        };
        let changes: Vec<Change> = touched
            .into_iter()
            .filter(|direction| state(direction) != self.state(direction))
            .map(|direction| Change { state: state(&direction), direction })
            .collect();
        if !changes.is_empty() {
            self.links.set(&changes)?;
        }
        (self.conditions, self.cuts) = (conditions, cuts);
        Ok(())
    }

    fn state(&self, direction: &Direction) -> State {
        match self.cuts.values().any(|cut| cut.contains(direction)) {
            true => State::Cut,
            false => State::Open(self.conditions.get(direction).copied().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

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
