//! Free loopback ports for nodes.
//!
//! Invariant: never from the range that the kernel gives to outgoing connections. A client that
//! keeps reconnecting to a dead node would sooner or later be given the node's own port, connect
//! to itself, and keep the node from coming back.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::ensure;
use rand::RngExt;

/// A port that is held until its owner is about to bind it, so that nobody else takes it meanwhile.
pub(super) struct HeldPort {
    pub(super) number: u16,
    _listener: TcpListener,
}

/// Holds `count` free ports.
pub(super) fn hold(count: usize) -> anyhow::Result<Vec<HeldPort>> {
    let range = below_the_ephemeral();
    let mut random = rand::rng();
    let mut held = Vec::new();
    for _ in 0..100 * count {
        if held.len() == count {
            break;
        }
        let port = random.random_range(range.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        held.extend(listener.map(|listener| HeldPort { number: port, _listener: listener }));
    }
    ensure!(
        held.len() == count,
        "{count} free ports are needed on 127.0.0.1, {} were found in {}..{}",
        held.len(),
        range.start,
        range.end
    );
    Ok(held)
}

fn below_the_ephemeral() -> Range<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = text.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    match first {
        Some(first) if first > 12_000 => 10_000..first,
        // A host that gives nearly all ports away: take from the top, and hope for the best.
        _ => 61_000..65_000,
    }
}
