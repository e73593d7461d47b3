//! Open-loop load: arrivals, workload, targets, recorder.
//!
//! Invariant: latency runs from the intended send time, always; an operation that failed, stayed
//! unknown or was never sent counts as at least its timeout. This crate knows nothing of
//! bench-node or of faults: a target is an address.

pub mod clock;
pub mod record;
pub mod spec;
