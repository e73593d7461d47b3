//! What is known of each operation, in the order of intended send times.
//!
//! Everything that reports say about the clients' side is computed from these records.

use history::{Kind, Outcome};

/// One operation, from intention to answer. Times are ns on the run's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct OpRecord {
    /// Number of the operation in this run; a put's value carries it.
    pub sequence: u64,
    /// The connection (open loop) or client (closed loop) that issued it.
    pub process: u32,
    /// Put or get.
    pub kind: Kind,
    /// Counts for outages: a put, or a get that asked for linearizability.
    pub linearizable: bool,
    /// Number of the key; see [`crate::spec::Keys::name`].
    pub key: u32,
    /// Index into the endpoints.
    pub node: u16,
    /// When it was due. Closed loop: when it was sent.
    pub intended_ns: i64,
    /// When it was handed to the connection; `None` if it never was.
    pub sent_ns: Option<i64>,
    /// When its answer, or its error, came; `None` if none came before the timeout.
    pub completed_ns: Option<i64>,
    /// What the client may conclude.
    pub outcome: Outcome,
    /// Ok gets: what was read.
    pub read: Option<ReadValue>,
    /// Ok puts: the revision of the write. Ok gets: the mod revision of what was read, 0 if absent.
    pub revision: i64,
    /// Not ok: an index into [`LoadResult::errors`].
    pub error: Option<u16>,
}

/// What an ok get saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadValue {
    /// No such key.
    Absent,
    /// The value of the put with this sequence number.
    Written(u64),
    /// A value that no put of this run wrote.
    Foreign,
}

impl OpRecord {
    /// From the intended send time; an operation that is not ok counts as at least its timeout.
    pub fn latency_ns(&self, timeout_ns: i64) -> i64 {
        let took = self.completed_ns.map_or(timeout_ns, |done| done - self.intended_ns);
        if self.outcome == Outcome::Ok { took } else { took.max(timeout_ns) }
    }
}

/// All that came of one run's load.
#[derive(Clone, Debug, Default)]
pub struct LoadResult {
    /// Every scheduled operation, warm-up too (negative intended times), by intended send time.
    pub ops: Vec<OpRecord>,
    /// Distinct error texts.
    pub errors: Vec<String>,
    /// CPU seconds that the generator's own threads used while load ran.
    pub cpu_seconds: f64,
    /// Wall seconds of warm-up, measured phase and drain.
    pub wall_seconds: f64,
    /// The endpoints, as [`OpRecord::node`] counts them.
    pub endpoints: Vec<String>,
}
