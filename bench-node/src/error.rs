//! Why a node does not start, or does not go on.
//!
//! Invariant: each error says where (file, address, peer, index) and, where people can do
//! something, what.

use std::io;

use raft::Index;

use crate::config::ConfigError;
use crate::identity::IdentityError;
use crate::kv::CommandError;
use crate::members::RecordsError;
use crate::snapshot::SnapshotError;
use crate::wal::WalError;

/// Ends the node; the command exits with 2. What caused it is in the text, not a source beside it,
/// so that it is printed once.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address} ({key}): {error}{}", advice(error))]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// Its value.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The data directory is in use, foreign, or cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log is damaged, or its disk failed.
    #[error(transparent)]
    Log(#[from] WalError),
    /// A snapshot is damaged or missing, or its disk failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What was recovered contradicts itself or the configuration.
    #[error("the recovered state cannot be used: {0}")]
    Raft(#[from] raft::ConfigError),
    /// A committed entry that this version cannot apply.
    #[error(
        "cannot apply the entry at index {index}: {error}; run the version that wrote it, or a \
         later one"
    )]
    Command {
        /// Its position in the log.
        index: Index,
        /// What is wrong with it.
        error: CommandError,
    },
    /// The records of the members, in the log or in a snapshot, are from another version.
    #[error("{0}; run the version that wrote them, or a later one")]
    Members(#[from] RecordsError),
    /// The cluster goes on without this member.
    #[error(
        "this member was removed from its cluster for good: its id is never used again. Its data \
         directory can be deleted; to come back, add it again (etcdctl member add), and start it \
         with an empty directory and join = true"
    )]
    Removed,
    /// It was to join a cluster that does not know of it.
    #[error(
        "no member has the peer address {peer} (asked: {asked}); add it first: etcdctl member add \
         {name} --peer-urls=http://{peer}"
    )]
    NotAdded {
        /// Its own, of the configuration.
        peer: String,
        /// Its name.
        name: String,
        /// Who was asked.
        asked: String,
    },
    /// What this member says of itself is refused.
    #[error("the cluster does not take this member as it is configured: {0}")]
    NotTaken(String),
    /// A peer does not let this member in.
    #[error("refused by {peer}: {reason}")]
    Refused {
        /// Who.
        peer: String,
        /// Why, in its words.
        reason: String,
    },
    /// The runtime or a server failed.
    #[error("cannot run {what}: {error}")]
    Runtime {
        /// Which part.
        what: &'static str,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; this host does not have that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        _ => "",
    }
}
