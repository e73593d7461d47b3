//! Operations and their outcomes, as recorded by a load generator and read by checkers.
//!
//! A leaf crate: it knows nothing of targets or of load. The linearizability checker will live
//! here too.

mod operation;

pub use operation::{Consistency, Kind, Operation, Outcome};
