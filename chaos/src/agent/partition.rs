//! A partition: packets of certain peers are dropped, by nftables, in a table of our own.
//!
//! Our mark is the table's name, which holds the fault's random id; nothing else is in that table, and
//! no other is touched. The table is made in one transaction, and dropped as one. It drops what the
//! host itself sends and receives, not what it forwards. The agent's own connections stay, so that
//! whoever conducts can be cut off from the cluster and still renew the lease.

use std::net::IpAddr;

use api::agent::{Observation, Way};
use serde_json::Value;

use super::Strike;
use super::observation::Seen;
use super::program::run;
use super::traffic::{Passed, Traffic};
use super::undo::Undo;
use crate::Error;
use crate::fault::{does_half, does_nothing};
use crate::journal::Noted;

/// Before connection tracking and whatever else filters.
const PRIORITY: i32 = -400;

/// Peers that are cut off.
pub(super) struct Partition {
    interface: String,
    peers: Vec<IpAddr>,
    way: Way,
    table: String,
    own_port: u16,
    traffic: Traffic,
}

impl Partition {
    /// Looks at the connections with `peers`; `fault` is its id.
    pub(super) fn prepare(
        interface: String,
        peers: Vec<IpAddr>,
        way: Way,
        fault: &str,
        own_port: u16,
    ) -> Result<Self, Error> {
        let traffic = Traffic::of(&interface, Some(&peers), own_port)?;
        let table = format!("raftbench_{fault}");
        // Says here, before anything is noted, that there is no nftables.
        tables()?;
        Ok(Self { interface, peers, way, table, own_port, traffic })
    }

    fn script(&self) -> String {
        let (table, interface, port) = (&self.table, &self.interface, self.own_port);
        let mut script = format!("create table inet {table}\n");
        let ways = [
            (Way::In, "input", "dport", "iifname", "saddr"),
            (Way::Out, "output", "sport", "oifname", "daddr"),
        ];
        for (way, hook, own, name, address) in ways {
            if self.way != way && self.way != Way::Both {
                continue;
            }
            script += &format!(
                "add chain inet {table} {hook} {{ type filter hook {hook} priority {PRIORITY}; }}\n\
                 add rule inet {table} {hook} tcp {own} {port} accept\n"
            );
            for peer in
                self.peers.iter().skip(if does_half() { self.peers.len().div_ceil(2) } else { 0 })
            {
                let family = if peer.is_ipv4() { "ip" } else { "ip6" };
                script += &format!(
                    "add rule inet {table} {hook} {name} \"{interface}\" {family} {address} {peer} \
                     counter drop\n"
                );
            }
        }
        script
    }
}

impl Strike for Partition {
    fn undo(&self) -> Undo {
        Undo::Table { name: self.table.clone() }
    }

    fn apply(&mut self, _noted: &Noted) -> Result<(), Error> {
        if !does_nothing() {
            run("nft", &["-f", "-"], &self.script())?;
        }
        self.traffic.mark()
    }

    fn observe(&mut self) -> Result<Observation, Error> {
        let passed = self.traffic.look()?;
        let mut seen = Seen::default();
        let dropped = dropped(&self.table)?;
        for peer in &self.peers {
            let of_peer = passed.get(peer).copied().unwrap_or_default();
            let Passed { arrived, acknowledged_bytes, again, data_sent, .. } = of_peer;
            let (in_cut, out_cut) = (self.way != Way::Out, self.way != Way::In);
            // That nothing comes is no wonder where nobody sends.
            let tried = data_sent > 0 || again > 0 || dropped > 0;
            let right = passed.contains_key(peer)
                && tried
                && (!in_cut || arrived == 0)
                && (!out_cut || acknowledged_bytes == 0);
            let reads = match passed.contains_key(peer) {
                true => format!(
                    "{peer}: {arrived} segments arrived from it, {acknowledged_bytes} bytes were \
                     acknowledged, {again} segments were sent again"
                ),
                false => format!("{peer}: no TCP connection with it"),
            };
            seen.part(right, reads);
            seen.figure(format!("{peer} arrived_segments"), None, Some(arrived as f64));
            let acknowledged = Some(acknowledged_bytes as f64);
            seen.figure(format!("{peer} acknowledged_bytes"), None, acknowledged);
            seen.figure(format!("{peer} sent_again_segments"), None, Some(again as f64));
        }
        seen.part(dropped > 0, format!("{dropped} packets were dropped"));
        seen.figure("dropped_packets", None, Some(dropped as f64));
        Ok(seen.told())
    }
}

/// Takes our table away, if it is there.
pub(super) fn take_away(table: &str) -> Result<String, Error> {
    if !tables()?.iter().any(|name| name == table) {
        return Ok(format!("there is no table {table}"));
    }
    run("nft", &["delete", "table", "inet", table], "")?;
    Ok(format!("table {table} was deleted"))
}

/// The names of the tables of our family.
fn tables() -> Result<Vec<String>, Error> {
    let listed = json(&["-j", "list", "tables", "inet"])?;
    let name = |object: &Value| object["table"]["name"].as_str().map(str::to_owned);
    Ok(listed.iter().filter_map(name).collect())
}

/// Packets that our rules have dropped.
fn dropped(table: &str) -> Result<u64, Error> {
    if !tables()?.iter().any(|name| name == table) {
        return Ok(0);
    }
    let listed = json(&["-j", "list", "table", "inet", table])?;
    let expressions = listed.iter().filter_map(|object| object["rule"]["expr"].as_array());
    Ok(expressions.flatten().filter_map(|part| part["counter"]["packets"].as_u64()).sum())
}

fn json(arguments: &[&str]) -> Result<Vec<Value>, Error> {
    let printed = run("nft", arguments, "")?;
    let parsed: Result<Value, _> = serde_json::from_str(&printed);
    let parsed = parsed.map_err(|error| Error::Program {
        program: "nft".into(),
        reason: format!("its JSON is not as expected: {error}"),
    })?;
    Ok(parsed["nftables"].as_array().cloned().unwrap_or_default())
}
