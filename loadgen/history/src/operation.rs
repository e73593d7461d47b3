//! One line of a history: what a client asked for, when, and what it learnt.
//!
//! Invariant: only the intervals `[invoke_ns, complete_ns]` order operations; those of one process
//! may overlap.

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

/// One operation on one key, as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    /// Cas only: the value that had to be there (`None`: the key had to be absent). An ok cas found
    /// it there and wrote `value`; one that found another never happened, and has the outcome fail.
    #[serde(default)]
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

impl Operation {
    /// What keeps this from being an operation that can have been; fields that contradict each
    /// other. `None`: it is sound.
    pub fn problem(&self) -> Option<String> {
        let Self { op, value, expected, invoke_ns, complete_ns, outcome, .. } = self;
        let problem = match (op, value, expected, complete_ns) {
            (Kind::Put | Kind::Cas, None, ..) => "`value` is null; a write needs a string",
            (Kind::Delete, Some(_), ..) => "`value` of a delete must be null",
            (Kind::Put | Kind::Get | Kind::Delete, _, Some(_), _) => "`expected` is only for a cas",
            (.., None) if *outcome == Outcome::Ok => {
                "`complete_ns` is null; an operation that ended ok completed at some time"
            }
            (.., Some(complete_ns)) if complete_ns < invoke_ns => {
                return Some(format!(
                    "`complete_ns` is {complete_ns}, before `invoke_ns`, {invoke_ns}"
                ));
            }
            _ => return None,
        };
        Some(problem.to_owned())
    }
}

/// As a line of the format: `expected` stands in a cas, where null means something, and nowhere else.
impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_cas = self.op == Kind::Cas;
        let mut line = serializer.serialize_struct("Operation", 11 + usize::from(is_cas))?;
        line.serialize_field("process", &self.process)?;
        line.serialize_field("op", &self.op)?;
        line.serialize_field("key", &self.key)?;
        line.serialize_field("value", &self.value)?;
        if is_cas {
            line.serialize_field("expected", &self.expected)?;
        }
        line.serialize_field("invoke_ns", &self.invoke_ns)?;
        line.serialize_field("complete_ns", &self.complete_ns)?;
        line.serialize_field("outcome", &self.outcome)?;
        line.serialize_field("consistency", &self.consistency)?;
        line.serialize_field("revision", &self.revision)?;
        line.serialize_field("node", &self.node)?;
        line.serialize_field("error", &self.error)?;
        line.end()
    }
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
