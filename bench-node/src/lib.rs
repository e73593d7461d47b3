//! The reference Raft node, the system under test.
mod config;
pub mod kv;

pub use config::{Config, ConfigError, Member, Settings};
