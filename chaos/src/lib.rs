//! Faults: what breaks a cluster on purpose, and the proof that it did.
//!
//! A fault is available? / inject / verify / heal, one room for each ([`End`],
//! [`Pause`], [`Cut`], [`Impair`], [`DiskFault`], [`PowerLoss`]); its undo is on disk before it is applied ([`journal`]).
//!
//! Invariant: the proof of a fault comes from the victim's process state, its sockets and its
//! peers, never from the return of the call that made it. This crate knows nothing of load or of
//! any Raft implementation: a victim is a process with ports, and who starts it again, or asks its
//! peers, is handed in. The [`agent`] does the like on a real host, for whoever asks it over the
//! network, and answers with what it saw there.

pub mod abilities;
pub mod agent;
mod baseline;
mod cut;
mod disk_trouble;
mod end;
mod error;
mod fault;
mod gone;
mod impair;
pub mod journal;
pub mod lab;
mod pause;
mod power_loss;
mod scene;
mod sockets;
mod victim;

pub use baseline::{BASELINE, Baseline};
pub use cut::{Cut, Flap};
pub use disk_trouble::{DiskFault, DiskTrouble};
pub use end::End;
pub use error::Error;
#[doc(hidden)]
pub use fault::does_nothing;
pub use fault::{Fault, Finding, Healed, Restarter, Testimony, Witness};
pub use impair::Impair;
pub use pause::Pause;
pub use power_loss::PowerLoss;
pub use scene::Scene;
pub use victim::{Exit, Victim};
