//! The agent: faults on a real host, for a cluster that runs there already. It is privileged, so it
//! is small, does only what its list allows, and always cleans up.
//!
//! ```text
//! client --gRPC, mutual TLS--> service --> order    checked against the list, or refused
//!                                            |
//!                              register <----'      one entry, one lease, for each fault
//!                                 |  looks at the host, notes the undo in the journal (synced),
//!                                 |  applies, observes, undoes
//!                                 v
//!           netem, partition, cgroup, process       one room for each kind of fault
//! ```
//!
//! Invariants. The undo of a fault is on disk before it is applied. A fault whose lease is not
//! renewed is undone by the agent itself, by its own monotonic clock. After the death of the agent,
//! the next one, or [`heal`], undoes what the journal says. What is undone carries a mark of ours: a
//! qdisc's handle, a table's name, the value that we wrote, a process's start beside its id; what
//! does not is left alone.

mod cgroup;
pub mod client;
mod clock;
mod config;
mod netem;
mod observation;
mod order;
mod partition;
mod planted;
mod process;
mod program;
mod register;
mod serve;
mod service;
mod state_dir;
mod traffic;
mod undo;

pub use clock::Offset;
pub use config::{Allowed, Config, PidFile, Tls, check_cgroup, check_interface, check_unit};
pub use serve::{Insecure, serve};
pub use state_dir::{Healed, LeftBehind, heal, left_behind};

use crate::Error;
use crate::journal::Noted;
use api::agent::Observation;
use undo::Undo;

/// One fault, from before it is applied to its end.
trait Strike: Send {
    /// What undoes it; to be noted before it is applied.
    fn undo(&self) -> Undo;

    /// Applies it. That this returns `Ok` proves nothing.
    fn apply(&mut self, noted: &Noted) -> Result<(), Error>;

    /// What the victim has shown since.
    fn observe(&mut self) -> Result<Observation, Error>;
}
