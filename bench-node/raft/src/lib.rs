//! One Raft group as a pure state machine: inputs and the time go in, effects come out.
//!
//! Invariant: no clock, no random source, no IO and no threads. `no_std` makes that a compile
//! error to break. The seed comes in with [`Config`], the time with every call, and durability is
//! an event: [`Effects::write`] asks for it, [`Raft::persisted`] reports it. Nothing that a vote
//! or an acknowledgement rests on leaves this crate before its write was reported persisted.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm"
//! (extended version, 2014); Ongaro's thesis, "Consensus: Bridging Theory and Practice" (2014).
#![no_std]

extern crate alloc;

mod bugs;
mod config;
mod durability;
mod effects;
mod election;
mod following;
mod log;
mod message;
mod quorum;
mod raft;
mod reads;
mod replication;

#[cfg(feature = "seeded-bugs")]
pub use bugs::SeededBug;
pub use config::{Config, ConfigError};
pub use effects::{
    Effects, Event, NotLeader, PeerState, PeerStatus, ReadOutcome, Reason, Recovered, Role, Status,
    Write,
};
pub use message::{
    Body, Entry, EntryId, HardState, Index, Membership, Message, NodeId, Payload, Term,
};
pub use raft::Raft;
