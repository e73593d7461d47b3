//! The round trips between the hosts of a lab, measured on what runs there: how long a TCP
//! connection to a node takes to be set up, which the kernels do among themselves.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::lab::LaidLab;
use crate::evidence::RoundTrip;

/// How long one pair is measured, in all.
const TIME: Duration = Duration::from_millis(600);
/// And how often at least, and at most.
const COUNT: std::ops::RangeInclusive<usize> = 5..=41;

/// From the generator's host to every node, and between every two nodes; one after the other, so
/// that no measurement is in another's way.
pub(super) fn measure(
    lab: &LaidLab,
    nodes: &[(String, SocketAddr)],
) -> anyhow::Result<Vec<RoundTrip>> {
    let mut pairs: Vec<_> = nodes.iter().map(|node| ("c1", node)).collect();
    for (index, (from, _)) in nodes.iter().enumerate() {
        pairs.extend(nodes[index + 1..].iter().map(|node| (from.as_str(), node)));
    }
    let measured = pairs.into_iter().map(|(from, (to, address))| {
        let asked_ms = lab.plan().round_trip_ms(from, to);
        let failed = || format!("cannot measure the round trip from {from} to {to}");
        let samples = lab.host(from)?.within(|| sample(*address)).with_context(failed)?;
        let mut samples = samples.with_context(failed)?;
        samples.sort_by(f64::total_cmp);
        ensure!(!samples.is_empty(), failed());
        let measured_ms = samples[samples.len() / 2];
        Ok(RoundTrip { from: from.to_owned(), to: to.clone(), asked_ms, measured_ms })
    });
    measured.collect()
}

fn sample(address: SocketAddr) -> std::io::Result<Vec<f64>> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    while samples.len() < *COUNT.start() || (samples.len() < *COUNT.end() && began.elapsed() < TIME)
    {
        let one = Instant::now();
        TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        samples.push(one.elapsed().as_secs_f64() * 1e3);
    }
    Ok(samples)
}
