//! How often each thing happened, and in how many runs: what did not happen was not tested.

use std::collections::BTreeMap;
use std::fmt;

/// Everything that must have happened somewhere in a set of runs.
pub(crate) const EXPECTED: &[&str] = &[
    "fault: message dropped",
    "fault: message duplicated",
    "fault: message late",
    "fault: messages reordered",
    "fault: partition into two sides",
    "fault: member isolated",
    "fault: link cut one way",
    "fault: crash",
    "fault: crash lost whole writes",
    "fault: crash tore a write",
    "fault: crash after a write was durable but not reported",
    "fault: all crashed at once",
    "fault: pause",
    "fault: disk stall",
    "fault: clocks at different rates",
    "fault: connection to a living leader reset",
    "client: proposed",
    "client: refused by a follower",
    "client: told that it is committed",
    "client: asked to read",
    "election: pre-vote won",
    "election: pre-vote lost",
    "election: campaign without pre-vote",
    "election: vote lost",
    "election: timed out and tried again",
    "election: won",
    "election: won by the only voter",
    "election: leader elected while an old one still led",
    "election: two candidates in one term",
    "election: vote given",
    "election: leader lost its quorum",
    "election: leader met a higher term",
    "election: candidate met the leader of its term",
    "election: sender of an old term told so",
    "log: entries written",
    "log: several entries in one append",
    "log: conflicting entries replaced",
    "log: append rejected, log too short",
    "log: append rejected, terms differ",
    "log: peer probed",
    "log: peer probed back over more than one entry at once",
    "log: window full",
    "log: acceptance short of what is in memory",
    "log: committed on a leader before its own disk had it",
    "log: committed entry of an earlier term",
    "log: commit index told by an empty append",
    "log: recovered log longer than what was reported durable",
    "election: begun by the failover hint",
    "transfer: begun",
    "transfer: received",
    "transfer: given up",
    "members: change begun",
    "members: joint configuration",
    "members: learner promoted",
    "members: leader removes itself",
    "members: removed leader stepped down",
    "members: change undone",
    "members: refused by a follower",
    "members: refused, another one under way",
    "members: refused before the first commit of the term",
    "members: refused, learner not caught up",
    "members: refused, nonsense",
    "snapshot: taken",
    "snapshot: sent",
    "snapshot: received",
    "snapshot: restored",
    "read: ready by lease or echo, without a message",
    "read: ready",
    "read: ready, several in one round",
    "read: lost",
    "read: waited for the first entry of the term",
];

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
