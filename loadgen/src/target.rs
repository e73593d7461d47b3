//! What load is sent to. A target opens connections; a connection takes operations.
//!
//! Invariant: an operation is handed to its connection at once or refused at once, never queued
//! for a connection that is down, and never sent twice: there are no retries here, and none below
//! (the transport is bare HTTP/2, without a reconnecting client over it).

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use history::Outcome;

use crate::error::LoadError;

pub mod admin;
pub mod etcd;
mod grpc;
mod link;
pub mod null;
pub mod session;
pub mod simulated;

/// How a cluster is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// etcd's v3 gRPC API, a call for each operation.
    #[default]
    Etcd,
    /// bench-node's session: many operations over one stream.
    Session,
}

impl Api {
    /// As profiles have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Session => "session",
        }
    }

    /// As reports have it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Etcd => "etcd v3 gRPC",
            Self::Session => "bench-node session",
        }
    }
}

/// Something that can be loaded.
pub trait Target: Send + Sync + 'static {
    /// Its connections. They live on the generator's worker threads and never leave them.
    type Connection: Connection;

    /// Whom connections go to, in the order that [`crate::record::OpRecord::node`] counts.
    fn endpoints(&self) -> &[String];

    /// Opens a connection that starts at an endpoint and keeps itself up until it is dropped. Called on the
    /// worker's runtime.
    fn connect(&self, endpoint: usize) -> Result<Self::Connection, LoadError>;
}

/// One connection.
pub trait Connection: 'static {
    /// Whom operations go to now, as [`Target::endpoints`] counts.
    fn endpoint(&self) -> usize;

    /// Waits until it is up; says why not if that takes too long.
    fn ready(&self) -> impl Future<Output = Result<(), String>>;

    /// Hands over one operation now, or says why it was never sent.
    fn send(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = Answer> + 'static + use<Self>, NotSent>;
}

/// One operation, as a connection takes it.
#[derive(Clone, Debug)]
pub enum Request {
    /// Write.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Read.
    Get {
        /// The key.
        key: Bytes,
        /// Or from the asked node's own state.
        linearizable: bool,
    },
}

/// Why an operation was never sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent(pub String);

/// What came of an operation that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The put was acknowledged, with this revision.
    Put {
        /// Of the write.
        revision: i64,
    },
    /// The get was answered.
    Get {
        /// What was read; `None`: no such key.
        value: Option<Bytes>,
        /// The key's mod revision; 0 if there is none.
        revision: i64,
    },
    /// It was not answered, or with an error.
    Error(CallError),
}

/// An error, and what a client may conclude from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// Fail or unknown.
    pub outcome: Outcome,
    /// What was said.
    pub text: String,
}

impl CallError {
    pub(crate) fn unknown(text: impl fmt::Display) -> Self {
        Self { outcome: Outcome::Unknown, text: text.to_string() }
    }
}
