//! Operations and their outcomes, as recorded by a load generator, and what can be concluded from
//! them: the linearizability checker, and a drawing of what it found.
//!
//! A leaf crate: it knows nothing of targets or of load.

mod error;
mod line;
pub mod linearizability;
mod operation;
mod reader;
mod text;
mod timeline;
mod writer;

pub use error::HistoryError;
pub use operation::{Consistency, Kind, Operation, Outcome};
pub use reader::{MAX_LINE_BYTES, Reader, read};
pub use text::shorten;
pub use timeline::timeline;
pub use writer::write;
