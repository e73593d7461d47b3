//! What is to happen in a simulated world, and when.
//!
//! Invariant: what is due earlier comes earlier; what is due at the same moment, in the order in which
//! it was put down. So a seed always gives the same run. The simulation of whole nodes has it, too.

use std::collections::BTreeMap;

pub(crate) struct Agenda<T> {
    due: BTreeMap<(u64, u64), T>,
    put_down: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), put_down: 0 }
    }
}

impl<T> Agenda<T> {
    /// How much was put down so far.
    pub(crate) fn put_down(&self) -> u64 {
        self.put_down
    }

    pub(crate) fn put(&mut self, at_us: u64, what: T) {
        self.put_down += 1;
        self.due.insert((at_us, self.put_down), what);
    }

    /// When the next thing is due.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at_us, _), _)| *at_us)
    }

    /// Takes the next thing, and when it is due.
    pub(crate) fn take(&mut self) -> Option<(u64, T)> {
        self.due.pop_first().map(|((at_us, _), what)| (at_us, what))
    }
}
