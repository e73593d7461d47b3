//! Open-loop load: arrivals, workload, targets, recorder.
//!
//! Invariant: latency runs from the intended send time, always; an operation that failed, stayed
//! unknown or was never sent counts as at least its timeout. This crate knows nothing of
//! bench-node or of faults: a target is an address.

mod closed_loop;
mod engine;
mod error;
mod open_loop;
mod priority;
mod progress;
mod recorder;
mod schedule;
mod sender;
#[cfg(test)]
mod testing;
mod timeline;
mod workload;

pub mod audit;
pub mod calibrate;
pub mod clock;
pub mod intervals;
pub mod latency_log;
pub mod preload;
pub mod record;
pub mod spec;
pub mod summary;
pub mod target;
pub mod to_history;

pub use engine::{Load, run, run_virtual};
pub use error::LoadError;
pub use progress::{Counters, Progress};
pub use schedule::Schedule;
pub use workload::Values;
