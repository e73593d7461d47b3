//! The reference Raft node, the system under test: a key-value store that speaks etcd's v3 API.
//!
//! | module | what it is |
//! |---|---|
//! | [`node`](run) | puts the parts together |
//! | `driver` | the only loop that joins them |
//! | [`store`] | many groups on one node: pure |
//! | `raft` (a crate) | the protocol: pure |
//! | [`kv`] | the state machine |
//! | [`wal`], [`snapshot`] | the log, and what takes the place of its beginning |
//! | [`disk`] | what both are written to |
//! | `identity` | whose data directory it is |
//! | `members` | who the members are, and how that may change |
//! | `peers` | the other members: links to them, and who is let in |
//! | `api` | what clients call |
//! | `metrics`, `scrape`, `events` | what operators see |

mod api;
mod config;
pub mod disk;
mod driver;
mod error;
mod events;
pub mod identity;
pub mod kv;
mod members;
mod membership;
mod metrics;
mod node;
mod peers;
mod recovery;
mod scrape;
pub mod snapshot;
pub mod store;
pub mod wal;

#[cfg(feature = "seeded-bugs")]
pub use config::SeededBug;
pub use config::{Config, ConfigError, Member, Settings};
pub use error::NodeError;
pub use members::RecordsError;
pub use node::{Listeners, NodeHandle, run, start};
pub use peers::wire;
pub use recovery::{RecoveredGroup, recover};

/// A Raft group on this node; many share one log.
pub type GroupId = u64;
/// The one group of a node that has one.
pub const DEFAULT_GROUP: GroupId = 0;
