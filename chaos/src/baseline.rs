//! Before a fault of links: what the hosts measure while the links are still as it will find them.
//!
//! A connection's smoothed round trip, and more so its deviation, keeps for a while what an earlier
//! fault made of it (RFC 6298), and an end that sends little payload, or none, keeps it for long. So the hosts are asked
//! for some time before, and a connection counts from when it has sent enough since its link last
//! changed; it does so under the fault, too, so that the same ones are compared.
//!
//! Invariant: where a pair of hosts has no connection that has come to rest, those count that were
//! used shortly before, as they are. What an earlier fault left in them can only hide the next one, and
//! never makes up for half of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Error;
use crate::lab::Lab;
use crate::lab::ledger::{Ledger, Look, Measured};
use crate::lab::links::{Direction, Network};

/// For how long before a fault the hosts are best asked: a peer that sends only heartbeats, ten a
/// second, has then sent enough.
pub const BASELINE: Duration = Duration::from_secs(4);

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is known of the hosts' connections before a fault.
pub struct Baseline {
    ledger: Ledger,
    network: Arc<Mutex<Network>>,
    /// How often each direction had changed by the last look.
    changes: BTreeMap<Direction, u64>,
    measured: BTreeMap<Direction, Measured>,
}

impl Baseline {
    /// Begins to look at the hosts of `lab`, between which `network` lies.
    pub fn open(lab: &Lab, network: Arc<Mutex<Network>>) -> Result<Self, Error> {
        let changes = changes(&network);
        let (mut ledger, _) = Ledger::open(lab)?;
        ledger.mark();
        Ok(Self { ledger, network, changes, measured: BTreeMap::new() })
    }

    /// Looks again and again until `until`.
    pub fn watch(&mut self, until: Instant) -> Result<(), Error> {
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            sleep(left.min(LOOK_EVERY));
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Error> {
        let look = self.ledger.look()?;
        let now = changes(&self.network);
        let changed = |way: &Direction| {
            let since = |way: &Direction| now.get(way) != self.changes.get(way);
            since(way) || since(&back(way))
        };
        self.ledger.mark_where(changed);
        self.measured.retain(|way, _| !changed(way));
        for (way, measured) in look.measured.into_iter().filter(|(way, _)| !changed(way)) {
            let all = self.measured.entry(way).or_default();
            all.round_trips_us.extend(measured.round_trips_us);
            all.deviations_us.extend(measured.deviations_us);
        }
        self.changes = now;
        Ok(())
    }

    /// The account, open, and what it came to.
    pub(crate) fn close(mut self) -> Result<(Ledger, Look), Error> {
        self.look()?;
        let mut look = self.ledger.look_at_recent()?;
        let at_rest = self.measured;
        let has_rested =
            |way: &Direction| at_rest.contains_key(way) || at_rest.contains_key(&back(way));
        look.measured.retain(|way, _| !has_rested(way));
        look.measured.extend(at_rest);
        Ok((self.ledger, look))
    }
}

fn changes(network: &Mutex<Network>) -> BTreeMap<Direction, u64> {
    network.lock().unwrap_or_else(PoisonError::into_inner).changes().clone()
}

fn back(way: &Direction) -> Direction {
    Direction { from: way.to.clone(), to: way.from.clone() }
}
