//! What the faults of links share: whose links, where, and the hosts' own account of what passes.
//!
//! Invariant: what was under way when a fault began is not held against it: the account that counts
//! begins when that has arrived.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::baseline::Baseline;
use crate::fault::Finding;
use crate::lab::Lab;
use crate::lab::ledger::{Ledger, Look, Passed};
use crate::lab::links::{Direction, Network};
use crate::{Error, Victim};

/// How often the hosts are asked.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a packet may take beyond its link's own time: turns of a busy machine, and a full buffer.
pub(crate) const UNDER_WAY: Duration = Duration::from_millis(150);

/// The links that a fault changes.
pub struct Scene {
    /// At least one; the first stands for all where one is named.
    pub(crate) victims: Vec<Victim>,
    lab: Lab,
    network: Arc<Mutex<Network>>,
    pub(crate) directions: BTreeSet<Direction>,
    /// How long the fault is to hold.
    pub(crate) holds: Duration,
    baseline: Option<Baseline>,
    account: Option<Account>,
}

/// The hosts' account, from before the fault on.
struct Account {
    ledger: Ledger,
    before: Look,
    /// When what was under way has arrived.
    settled: Option<(Instant, Look)>,
}

impl Scene {
    /// `directions` of `network`, for `holds`, on behalf of `victims`, which live in `lab`. `None`
    /// where there are no victims.
    pub fn of(
        victims: Vec<Victim>,
        lab: Lab,
        network: Arc<Mutex<Network>>,
        directions: BTreeSet<Direction>,
        holds: Duration,
    ) -> Option<Self> {
        let any = !victims.is_empty();
        let (baseline, account) = (None, None);
        any.then_some(Self { victims, lab, network, directions, holds, baseline, account })
    }

    /// With what was measured before the fault, over some time; without it, what is measured at its
    /// beginning has to do.
    pub fn with_baseline(mut self, baseline: Option<Baseline>) -> Self {
        self.baseline = baseline;
        self
    }

    pub(crate) fn victim(&self) -> &Victim {
        &self.victims[0]
    }

    pub(crate) fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shared_network(&self) -> Arc<Mutex<Network>> {
        self.network.clone()
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Opens the account.
    pub(crate) fn look_before(&mut self) -> Result<(), Error> {
        let (ledger, before) = match self.baseline.take() {
            Some(baseline) => baseline.close()?,
            None => Ledger::open(&self.lab)?,
        };
        self.account = Some(Account { ledger, before, settled: None });
        Ok(())
    }

    /// The first look of all.
    pub(crate) fn before(&self) -> Option<&Look> {
        self.account.as_ref().map(|account| &account.before)
    }

    /// Waits until what was under way has arrived, and takes that look. `longest` is the longest
    /// time that a packet is on a link now.
    pub(crate) fn settle(&mut self, longest: Duration) -> Result<(), Error> {
        std::thread::sleep(longest + UNDER_WAY);
        let Some(account) = &mut self.account else { return Ok(()) };
        let look = account.ledger.look()?;
        account.ledger.mark();
        account.settled = Some((Instant::now(), look));
        Ok(())
    }

    /// A look now, with the one that counts as the beginning and the time since then; `None` before
    /// that.
    pub(crate) fn look(&mut self) -> Result<Option<(Look, Look, Duration)>, Error> {
        let Some(account) = &mut self.account else { return Ok(None) };
        let now = account.ledger.look()?;
        Ok(account.settled.clone().map(|(since, settled)| (settled, now, since.elapsed())))
    }

    /// The longest time on the fault's links, beside jitter and its own queue.
    pub(crate) fn longest(&self) -> Duration {
        let network = self.network();
        let on_link = |direction| {
            let conditions = network.conditions(direction);
            conditions.delay + 4 * conditions.jitter
        };
        self.directions.iter().map(on_link).max().unwrap_or_default()
    }

    /// Pairs of hosts whose links the fault changes, each once, in the order of names.
    pub(crate) fn pairs(&self) -> BTreeSet<(String, String)> {
        let pair = |direction: &Direction| {
            let (one, other) = (direction.from.clone(), direction.to.clone());
            if one < other { (one, other) } else { (other, one) }
        };
        self.directions.iter().map(pair).collect()
    }

    /// Those of them that sent each other something so shortly before the fault that they should
    /// while it holds.
    pub(crate) fn talking(&self) -> BTreeSet<(String, String)> {
        let Some(before) = self.before() else { return BTreeSet::new() };
        let patience = (self.holds / 2).as_millis() as u32;
        let talks = |(one, other): &(String, String)| {
            let way = |from: &str, to: &str| Direction { from: from.into(), to: to.into() };
            let idle =
                [way(one, other), way(other, one)].map(|way| before.idle_ms.get(&way).copied());
            idle.into_iter().flatten().any(|idle_ms| idle_ms <= patience)
        };
        self.pairs().into_iter().filter(talks).collect()
    }
}

/// "n1 to n2".
pub(crate) fn named(direction: &Direction) -> String {
    format!("{} to {}", direction.from, direction.to)
}

/// Both ways of a pair.
pub(crate) fn ways((one, other): &(String, String)) -> [Direction; 2] {
    let way = |from: &String, to: &String| Direction { from: from.clone(), to: to.clone() };
    [way(one, other), way(other, one)]
}

pub(crate) fn total(passed: impl Iterator<Item = Passed>) -> Passed {
    passed.fold(Passed::default(), |sum, passed| Passed {
        sent: sum.sent + passed.sent,
        data_sent: sum.data_sent + passed.data_sent,
        again: sum.again + passed.again,
        arrived: sum.arrived + passed.arrived,
        arrived_bytes: sum.arrived_bytes + passed.arrived_bytes,
    })
}

/// The finding of a fault that could not be looked at.
pub(crate) fn unseen(error: &Error) -> Finding {
    Finding { effective: false, seen: error.to_string() }
}
