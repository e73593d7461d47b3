//! Why load could not be made. What happens to a single operation is not an error here: it is the
//! operation's outcome.

use std::io;

/// Why load could not be made, or its evidence not read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An endpoint is not `host:port`.
    #[error("endpoint `{endpoint}`: {problem}; write it as host:port, such as 127.0.0.1:2379")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An endpoint did not answer before load was to start.
    #[error(
        "endpoint {endpoint} cannot be loaded: {problem}; is the node running, and its client port right?"
    )]
    Unreachable {
        /// Which.
        endpoint: String,
        /// What the last attempt to connect said.
        problem: String,
    },
    /// A call that is not load (status, member list, reading back) failed.
    #[error("{call} of {endpoint} failed: {problem}")]
    Call {
        /// The call.
        call: &'static str,
        /// Whom.
        endpoint: String,
        /// The answer's text.
        problem: String,
    },
    /// The operating system refused something that the generator needs.
    #[error("the load generator cannot {action}: {source}")]
    System {
        /// What it tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// One of the generator's threads panicked: a bug of ours.
    #[error(
        "a thread of the load generator panicked; its operations are lost, so there is no result"
    )]
    Worker,
    /// A file of the results could not be written.
    #[error("cannot write the latency log: {0}")]
    LatencyLog(String),
}

impl LoadError {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
