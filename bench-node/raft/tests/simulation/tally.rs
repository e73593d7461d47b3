//! How often each thing happened, and in how many runs: what did not happen was not tested.
//!
//! The simulation of whole nodes has this file, too, with an `expected` of its own.

use std::collections::BTreeMap;
use std::fmt;

use crate::expected::EXPECTED;

#[derive(Default)]
pub(crate) struct Tally {
    counts: BTreeMap<&'static str, (u64, u64)>,
}

impl Tally {
    pub(crate) fn note(&mut self, what: &'static str) {
        debug_assert!(EXPECTED.contains(&what), "{what} is not expected");
        self.counts.entry(what).or_insert((0, 1)).0 += 1;
    }

    pub(crate) fn merge(&mut self, run: Tally) {
        for (what, (times, runs)) in run.counts {
            let total = self.counts.entry(what).or_default();
            total.0 += times;
            total.1 += runs;
        }
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        EXPECTED.iter().filter(|what| !self.counts.contains_key(*what)).copied().collect()
    }

    /// The table, given the number of runs.
    pub(crate) fn table(&self, runs: u64) -> impl fmt::Display + '_ {
        struct Table<'a>(&'a Tally, u64);
        impl fmt::Display for Table<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                writeln!(f, "{:>12}  {:>5}  what", "times", "runs")?;
                for what in EXPECTED {
                    let (times, runs) = self.0.counts.get(what).copied().unwrap_or_default();
                    let share = 100.0 * runs as f64 / self.1.max(1) as f64;
                    writeln!(f, "{times:>12}  {share:>4.0}%  {what}")?;
                }
                Ok(())
            }
        }
        Table(self, runs)
    }
}
