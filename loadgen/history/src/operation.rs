//! One line of a history: what a client asked for, when, and what it learnt.
//!
//! Invariant: only the intervals `[invoke_ns, complete_ns]` order operations; those of one process
//! may overlap.

use serde::{Deserialize, Serialize};

/// One operation on one key, as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// The connection that issued it.
    pub process: u32,
    /// What was asked.
    pub op: Kind,
    /// The key.
    pub key: String,
    /// Put and cas: the value written. Get: the value read, `None` where the key was absent (or
    /// the get did not end ok).
    #[serde(default)]
    pub value: Option<String>,
    /// Cas only: the value that had to be there (`None`: the key had to be absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// When it was sent, in ns on the run's clock (zero: the first intended send of the measured
    /// phase; the warm-up is negative).
    pub invoke_ns: i64,
    /// When its answer came, on the same clock; `None` where none came.
    pub complete_ns: Option<i64>,
    /// What the client may conclude.
    pub outcome: Outcome,
    /// How a get was read. Puts are always linearizable.
    #[serde(default)]
    pub consistency: Consistency,
    /// The store's revision in the answer (etcd: the header's for a put, the key's mod revision
    /// for a get).
    #[serde(default)]
    pub revision: Option<i64>,
    /// The node that was asked.
    #[serde(default)]
    pub node: Option<String>,
    /// The error's text, where the outcome is not ok.
    #[serde(default)]
    pub error: Option<String>,
}

/// The kinds of operation that a history can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Write a value.
    Put,
    /// Read the value.
    Get,
    /// Write a value if the present one is the expected one.
    Cas,
    /// Remove the key.
    Delete,
}

/// What a client may conclude of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It happened.
    Ok,
    /// It provably never happened.
    Fail,
    /// It may have happened, or may yet.
    Unknown,
}

/// How a read was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Sees every write that ended before it began.
    #[default]
    Linearizable,
    /// Answered from the asked node's own state, possibly stale.
    Serializable,
}
