//! What passed between the hosts of a lab since the ledger was opened, by the account of the hosts'
//! own kernels: what a sender sent beside what its receiver got.
//!
//! Invariant: counts of one direction only grow; a connection that has ended keeps what was seen of
//! it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::Lab;
use super::flows::Flow;
use super::links::Direction;
use crate::Error;

/// What a connection that was used so shortly before measured is still so.
const RECENT_MS: u32 = 1000;

/// A smoothed round trip has come close to a new one after so many segments with payload: each moves it
/// by an eighth of the way (RFC 6298). An end that only acknowledges measures nothing, and keeps for
/// good what it measured when the connection was made.
pub(crate) const CONVERGED_SEGMENTS: u64 = 32;

/// An open account of every direction.
pub(crate) struct Ledger {
    lab: Lab,
    seen: HashMap<(String, [u8; 8]), Flow>,
    /// As they were when the links had changed.
    marked: Option<HashMap<(String, [u8; 8]), Flow>>,
    passed: BTreeMap<Direction, Passed>,
}

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Segments that the sender sent.
    pub(crate) sent: u64,
    /// Those of them with payload.
    pub(crate) data_sent: u64,
    /// Those of them that were sent before.
    pub(crate) again: u64,
    /// Segments that the receiver got.
    pub(crate) arrived: u64,
    /// Payload in them.
    pub(crate) arrived_bytes: u64,
}

/// What one direction's senders measured, on connections that carried payload since the look before, or
/// at the first look shortly before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) round_trips_us: Vec<u32>,
    pub(crate) deviations_us: Vec<u32>,
}

/// One look at every host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Up to now.
    pub(crate) passed: BTreeMap<Direction, Passed>,
    /// By senders.
    pub(crate) measured: BTreeMap<Direction, Measured>,
    /// The same, of connections too that have not come close yet: those lie between what was and what
    /// is.
    pub(crate) on_the_way_us: BTreeMap<Direction, Vec<u32>>,
    /// For how long nothing was sent, at the liveliest connection.
    pub(crate) idle_ms: BTreeMap<Direction, u32>,
}

impl Look {
    /// What passed in `direction` since `before`.
    pub(crate) fn since(&self, before: &Look, direction: &Direction) -> Passed {
        let of = |look: &Look| look.passed.get(direction).copied().unwrap_or_default();
        let (now, then) = (of(self), of(before));
        Passed {
            sent: now.sent - then.sent,
            data_sent: now.data_sent - then.data_sent,
            again: now.again - then.again,
            arrived: now.arrived - then.arrived,
            arrived_bytes: now.arrived_bytes - then.arrived_bytes,
        }
    }
}

impl Ledger {
    /// Begins to count from now.
    pub(crate) fn open(lab: &Lab) -> Result<(Self, Look), Error> {
        let mut ledger =
            Self { lab: lab.clone(), seen: HashMap::new(), marked: None, passed: BTreeMap::new() };
        let look = ledger.read(false)?;
        Ok((ledger, look))
    }

    /// From now on only round trips count that have come close to what they are since now.
    pub(crate) fn mark(&mut self) {
        self.marked = Some(self.seen.clone());
    }

    /// The same for the connections of these directions alone.
    pub(crate) fn mark_where(&mut self, marks: impl Fn(&Direction) -> bool) {
        let marked = self.marked.get_or_insert_default();
        for (key, flow) in &self.seen {
            let to = name_of(&self.lab, flow.remote.ip());
            if to.is_some_and(|to| marks(&Direction { from: key.0.clone(), to: to.into() })) {
                marked.insert(key.clone(), *flow);
            }
        }
    }

    /// Counts up to now.
    pub(crate) fn look(&mut self) -> Result<Look, Error> {
        self.read(true)
    }

    /// What connections that were used shortly before measure, as they are.
    pub(crate) fn look_at_recent(&mut self) -> Result<Look, Error> {
        self.marked = None;
        self.read(false)
    }

    fn read(&mut self, counts: bool) -> Result<Look, Error> {
        let mut look = Look::default();
        let lab = self.lab.clone();
        for host in lab.hosts() {
            for flow in host.flows()? {
                if let Some(other) = name_of(&lab, flow.remote.ip()) {
                    self.enter(host.name(), other, &flow, counts, &mut look);
                }
            }
        }
        look.passed.clone_from(&self.passed);
        Ok(look)
    }

    fn enter(&mut self, host: &str, other: &str, flow: &Flow, counts: bool, look: &mut Look) {
        let out = Direction { from: host.into(), to: other.into() };
        let back = Direction { from: other.into(), to: host.into() };
        let key = (host.to_owned(), flow.cookie);
        let has_converged = self.marked.as_ref().is_none_or(|marked| {
            let then = marked.get(&key).map_or(0, |flow| flow.data_segments_out);
            flow.data_segments_out.saturating_sub(then) >= CONVERGED_SEGMENTS
        });
        let before = self.seen.insert(key, *flow);
        let idle_ms = look.idle_ms.entry(out.clone()).or_insert(u32::MAX);
        *idle_ms = flow.idle_ms.min(*idle_ms);
        let mut measured = || {
            if flow.round_trip_us > 0 && has_converged {
                let measured = look.measured.entry(out.clone()).or_default();
                measured.round_trips_us.push(flow.round_trip_us);
                measured.deviations_us.push(flow.deviation_us);
            }
        };
        if !counts {
            if flow.idle_ms < RECENT_MS {
                measured();
            }
            return;
        }
        let since =
            |count: fn(&Flow) -> u64| count(flow).saturating_sub(before.as_ref().map_or(0, count));
        let data_sent = since(|flow| flow.data_segments_out);
        if data_sent > 0 {
            measured();
            look.on_the_way_us.entry(out.clone()).or_default().push(flow.round_trip_us);
        }
        let of_out = self.passed.entry(out).or_default();
        of_out.sent += since(|flow| flow.segments_out);
        of_out.data_sent += data_sent;
        of_out.again += since(|flow| flow.retransmitted);
        let of_back = self.passed.entry(back).or_default();
        of_back.arrived += since(|flow| flow.segments_in);
        of_back.arrived_bytes += since(|flow| flow.received_bytes);
    }
}

fn name_of(lab: &Lab, address: IpAddr) -> Option<&str> {
    lab.hosts().iter().find(|host| IpAddr::V4(host.address()) == address).map(|host| host.name())
}
