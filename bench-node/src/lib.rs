//! The reference Raft node, the system under test.
mod config;
pub mod disk;
pub mod identity;
pub mod kv;
pub mod wal;

pub use config::{Config, ConfigError, Member, Settings};
