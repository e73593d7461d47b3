//! The command and the conductor. A run flows through the rooms in this order:
//!
//! `profile` (text) -> `plan` (a checked value) -> `conductor` (walks it) -> `evidence` (what was
//! observed) -> `judge` (what it means) -> `folder` (what is kept) -> `report` (what is shown).
//!
//! Invariant: each room knows those before it only through the value that they hand on.

pub mod agent_config;
pub mod commands;
pub mod compare;
pub mod conductor;
pub mod evidence;
pub mod folder;
pub mod judge;
pub mod keeper;
pub mod leftovers;
pub mod plan;
pub mod profile;
pub mod report;
