//! What the program and the switch say to each other, in lines of JSON.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::{Change, Traffic};

/// The first line to the switch.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) ports: Vec<Port>,
    pub(super) seed: u64,
}

/// A host at the switch.
#[derive(Serialize, Deserialize)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// The file that stands for its network.
    pub(super) network: PathBuf,
}

/// Every later line to the switch.
#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    /// New states of directions.
    Set(Vec<Change>),
    /// How it goes.
    Report,
}

/// What the switch says: one line for each that it got.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// As told.
    Done,
    /// To [`Request::Report`].
    Report {
        /// Of every direction.
        traffic: Vec<Traffic>,
        /// Of the switch.
        speed: Speed,
    },
    /// Not as told; why.
    Failed(String),
}

/// How fast the switch was since it began. Added delay is what a packet waited in the switch beyond
/// the time that its link's conditions gave it; what it waited before the switch read it is seen
/// only from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The most packets delivered in one second.
    pub peak_packets_per_second: u64,
    /// Of all packets delivered.
    pub delivered_packets: u64,
    /// Median of the added delay.
    pub added_delay_p50_us: f64,
    /// Its 99th percentile.
    pub added_delay_p99_us: f64,
    /// The longest.
    pub added_delay_max_us: f64,
    /// CPU time of the switch's process.
    pub cpu_seconds: f64,
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a userspace switch over TUN: {} packets, {}/s at most; it added {:.0} us to a \
             packet's delay at p50, {:.0} us at p99, {:.0} us at most; {:.1} s of CPU",
            self.delivered_packets,
            self.peak_packets_per_second,
            self.added_delay_p50_us,
            self.added_delay_p99_us,
            self.added_delay_max_us,
            self.cpu_seconds
        )
    }
}
