//! What this host's kernel counts and measures on the TCP connections that a fault of links touches:
//! the account of those who send, and not of whoever holds their packets up.
//!
//! Invariant: counts only grow; a connection that has ended keeps what was seen of it. The agent's
//! own connections are no part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::observation::median;
use crate::Error;
use crate::lab::ledger::CONVERGED_SEGMENTS;
use crate::lab::{Family, Flow, Tool, dump_flows};

/// An open account.
pub(super) struct Traffic {
    /// This host's addresses on the interface.
    local: BTreeSet<IpAddr>,
    /// Absent: everyone.
    peers: Option<BTreeSet<IpAddr>>,
    own_port: u16,
    seen: HashMap<[u8; 8], Flow>,
    /// Of each connection, how many segments it had sent when the fault was there.
    marked: HashMap<[u8; 8], u64>,
    since: Instant,
    passed: BTreeMap<IpAddr, Passed>,
    before_ms: BTreeMap<IpAddr, f64>,
}

/// What passed between this host and one peer since the fault was there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// Segments sent with payload.
    pub(super) data_sent: u64,
    /// Those of them that were sent before.
    pub(super) again: u64,
    /// Those of them that the peer said came twice.
    pub(super) came_twice: u64,
    /// How often some were seen to have overtaken others.
    pub(super) reordered: u64,
    /// Payload that the peer acknowledged.
    pub(super) acknowledged_bytes: u64,
    /// Segments received.
    pub(super) arrived: u64,
    /// The median of its connections before the fault.
    pub(super) round_trip_before_ms: Option<f64>,
    /// And now, of those whose estimate has come close to what it is now.
    pub(super) round_trip_ms: Option<f64>,
}

impl Passed {
    /// By how much the round trip is longer than before.
    pub(super) fn longer_ms(&self) -> Option<f64> {
        Some(self.round_trip_ms? - self.round_trip_before_ms?)
    }
}

impl Traffic {
    /// Of `interface`, with `peers` or with everyone; connections at `own_port` are the agent's.
    pub(super) fn of(
        interface: &str,
        peers: Option<&[IpAddr]>,
        own_port: u16,
    ) -> Result<Self, Error> {
        let mut traffic = Self {
            local: addresses(interface)?,
            peers: peers.map(|peers| peers.iter().copied().collect()),
            own_port,
            seen: HashMap::new(),
            marked: HashMap::new(),
            since: Instant::now(),
            passed: BTreeMap::new(),
            before_ms: BTreeMap::new(),
        };
        let flows = traffic.flows()?;
        let by_peer = round_trips(flows.iter());
        traffic.before_ms = by_peer;
        traffic.seen = flows.into_iter().map(|flow| (flow.cookie, flow)).collect();
        Ok(traffic)
    }

    /// The fault is there: what counts begins.
    pub(super) fn mark(&mut self) -> Result<(), Error> {
        self.read()?;
        self.passed.clear();
        self.marked = self.seen.values().map(|flow| (flow.cookie, flow.segments_out)).collect();
        self.since = Instant::now();
        Ok(())
    }

    /// For how long it has counted.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// By peer, up to now.
    pub(super) fn look(&mut self) -> Result<BTreeMap<IpAddr, Passed>, Error> {
        let flows = self.read()?;
        let has_converged = |flow: &&Flow| {
            let then = self.marked.get(&flow.cookie).copied().unwrap_or(0);
            flow.segments_out.saturating_sub(then) >= CONVERGED_SEGMENTS
        };
        let now_ms = round_trips(flows.iter().filter(has_converged));
        let mut passed = self.passed.clone();
        for peer in flows.iter().map(peer).chain(self.before_ms.keys().copied()) {
            let of_peer = passed.entry(peer).or_default();
            of_peer.round_trip_before_ms = self.before_ms.get(&peer).copied();
            of_peer.round_trip_ms = now_ms.get(&peer).copied();
        }
        Ok(passed)
    }

    fn read(&mut self) -> Result<Vec<Flow>, Error> {
        let flows = self.flows()?;
        for flow in &flows {
            let before = self.seen.insert(flow.cookie, *flow);
            let since = |count: fn(&Flow) -> u64| {
                count(flow).saturating_sub(before.as_ref().map_or(0, count))
            };
            let passed = self.passed.entry(peer(flow)).or_default();
            passed.data_sent += since(|flow| flow.data_segments_out);
            passed.again += since(|flow| flow.retransmitted);
            passed.came_twice += since(|flow| flow.came_twice);
            passed.reordered += since(|flow| flow.reordered);
            passed.acknowledged_bytes += since(|flow| flow.acknowledged_bytes);
            passed.arrived += since(|flow| flow.segments_in);
        }
        Ok(flows)
    }

    fn flows(&self) -> Result<Vec<Flow>, Error> {
        let mut flows = Vec::new();
        for family in [Family::V4, Family::V6] {
            match dump_flows(family) {
                Ok(more) => flows.extend(more),
                // A kernel without IPv6.
                Err(_) if family == Family::V6 => {}
                Err(problem) => {
                    let doing = "ask the kernel for its TCP connections".into();
                    return Err(Error::Host { doing, problem });
                }
            }
        }
        flows.retain(|flow| {
            let is_here = self.local.contains(&flow.local.ip().to_canonical());
            let is_own = flow.local.port() == self.own_port;
            let is_asked = self.peers.as_ref().is_none_or(|peers| peers.contains(&peer(flow)));
            is_here && !is_own && is_asked
        });
        Ok(flows)
    }
}

fn peer(flow: &Flow) -> IpAddr {
    flow.remote.ip().to_canonical()
}

fn round_trips<'a>(flows: impl Iterator<Item = &'a Flow>) -> BTreeMap<IpAddr, f64> {
    let mut by_peer: BTreeMap<IpAddr, Vec<f64>> = BTreeMap::new();
    for flow in flows.filter(|flow| flow.round_trip_us > 0) {
        by_peer.entry(peer(flow)).or_default().push(f64::from(flow.round_trip_us) / 1e3);
    }
    by_peer.into_iter().filter_map(|(peer, all)| Some((peer, median(all)?))).collect()
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: IpAddr,
}

fn addresses(interface: &str) -> Result<BTreeSet<IpAddr>, Error> {
    let shown = Tool::Ip.json(&["-j", "address", "show", "dev", interface])?;
    let shown: Vec<Shown> = serde_json::from_str(&shown).map_err(|error| Error::Program {
        program: "ip -j address".into(),
        reason: format!("its JSON is not as expected: {error}"),
    })?;
    Ok(shown.into_iter().flat_map(|shown| shown.addr_info).map(|info| info.local).collect())
}
