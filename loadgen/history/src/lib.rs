//! Operations and their outcomes, as recorded by a load generator and read by checkers.
//!
//! A leaf crate: it knows nothing of targets or of load. The linearizability checker will live
//! here too.

mod lines;
mod operation;

pub use lines::{HistoryError, read, write};
pub use operation::{Consistency, Kind, Operation, Outcome};
