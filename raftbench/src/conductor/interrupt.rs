//! Ctrl-C and its kin, while a cluster runs: the way out leads through stopping it.

use std::future::Future;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why a run has no result: the user ended it.
#[derive(Debug, thiserror::Error)]
#[error("broken off by {0}; the cluster was stopped")]
pub struct Interrupted(&'static str);

/// Listens from its making on.
pub(super) struct Interrupt {
    int: Signal,
    term: Signal,
    hang_up: Signal,
}

impl Interrupt {
    /// From now on these signals are only told here.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            int: on(SignalKind::interrupt())?,
            term: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// The future's result, or [`Interrupted`] if a signal comes first.
    pub(super) async fn or<T>(
        &mut self,
        future: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let name = tokio::select! {
            result = future => return result,
            _ = self.int.recv() => "SIGINT",
            _ = self.term.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        };
        Err(Interrupted(name).into())
    }
}
