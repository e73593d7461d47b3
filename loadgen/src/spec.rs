//! What load to make. Parsed and checked by the caller; a value of these types is sound.

use std::time::Duration;

pub use history::Consistency;

/// One run's load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadSpec {
    /// When operations are due.
    pub arrivals: Arrivals,
    /// Connections, spread round-robin over the endpoints.
    pub connections: usize,
    /// From the intended send time; after it an operation's outcome is unknown.
    pub timeout: Duration,
    /// Operations that may wait for answers at once; beyond it an operation fails unsent.
    pub max_outstanding: usize,
    /// How gets read.
    pub reads: Consistency,
    /// Share of puts among all operations, 0 to 1; the others are gets.
    pub put_share: f64,
    /// Which keys.
    pub keys: Keys,
    /// Size of every written value, in bytes; at least [`MIN_VALUE_BYTES`].
    pub value_bytes: usize,
    /// Load before time zero, recorded but not measured.
    pub warmup: Duration,
    /// The measured phase.
    pub measure: Duration,
    /// How long answers are awaited after the last intended send.
    pub drain: Duration,
    /// Seeds arrivals, keys and the mix.
    pub seed: u64,
}

/// A value starts with the number of the write that made it (16 hex digits), which makes it unique
/// and lets a read name the write that it saw.
pub const MIN_VALUE_BYTES: usize = 16;

/// When operations are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Evenly spaced.
    Constant {
        /// Mean rate.
        rate_per_second: f64,
    },
    /// Exponential gaps.
    Poisson {
        /// Mean rate.
        rate_per_second: f64,
    },
    /// Each client sends when its last answer came: hides stalls, and reports say so.
    Closed {
        /// Clients, spread over the connections.
        clients: usize,
    },
}

/// Which keys are used.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// Under a prefix of the run's own, so that keys start absent.
    pub prefix: String,
    /// How many.
    pub count: u32,
    /// How they are chosen.
    pub distribution: KeyDistribution,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDistribution {
    /// All equally often.
    Uniform,
    /// Rank r with weight 1 / r^exponent.
    Zipfian {
        /// Above 0; 0.99 is YCSB's.
        exponent: f64,
    },
}

impl Keys {
    /// The text of key number `key`.
    pub fn name(&self, key: u32) -> String {
        format!("{}{key:08}", self.prefix)
    }
}
