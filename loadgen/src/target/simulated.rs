//! A target for the virtual clock: answers everything, and may stall for a while.
//!
//! Invariant: what it does is a function of the time alone, so that the quantiles of a run against
//! it can be worked out on paper.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Connection, NotSent, Request, Target};
use crate::error::LoadError;

/// Answers each operation after `service`; what would be answered during the stall is answered at
/// its end. Gets find nothing.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// From receipt to answer.
    pub service: Duration,
    /// From when, after the first connection was opened, and for how long nothing is answered.
    pub stall: Option<Stall>,
    endpoints: Vec<String>,
}

/// A time without answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it begins.
    pub from: Duration,
    /// How long it lasts.
    pub length: Duration,
}

impl Simulated {
    /// One endpoint.
    pub fn new(service: Duration, stall: Option<Stall>) -> Self {
        Self { service, stall, endpoints: vec!["simulated".to_owned()] }
    }
}

impl Target for Simulated {
    type Connection = SimulatedConnection;

    fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn connect(&self, _endpoint: usize) -> Result<SimulatedConnection, LoadError> {
        let start = Instant::now();
        let stall = self.stall.map(|stall| (start + stall.from, start + stall.from + stall.length));
        Ok(SimulatedConnection { service: self.service, stall })
    }
}

/// A connection to [`Simulated`].
pub struct SimulatedConnection {
    service: Duration,
    stall: Option<(Instant, Instant)>,
}

impl Connection for SimulatedConnection {
    fn endpoint(&self) -> usize {
        0
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn send(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = Answer> + 'static + use<>, NotSent> {
        let mut at = Instant::now() + self.service;
        if let Some((from, until)) = self.stall
            && (from..until).contains(&at)
        {
            at = until;
        }
        Ok(async move {
            tokio::time::sleep_until(at).await;
            match request {
                Request::Put { .. } => Answer::Put { revision: 1 },
                Request::Get { .. } => Answer::Get { value: None, revision: 0 },
            }
        })
    }
}
