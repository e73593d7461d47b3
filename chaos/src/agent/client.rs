//! A conductor's side: a connection to one agent, and a fault held under its lease.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::agent::agent_client::AgentClient;
use api::agent::{
    ClockRequest, DescribeRequest, DescribeResponse, Fault, HealRequest, HealResponse,
    InjectRequest, InjectResponse, ListRequest, Listed, Observation, ObserveRequest, RenewRequest,
};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::clock::{Exchange, Offset, best};
use super::serve::{read, told};
use super::service::unix_ns;
use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Faults are applied, and units started, within it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const CLOCK_EXCHANGES: usize = 16;

/// Files in PEM, by which agent and client know each other.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The CA of the agent's certificate.
    pub ca: PathBuf,
    /// The client's own.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A connection to one agent. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    agent: AgentClient<Channel>,
}

impl Client {
    /// Connects to the agent at `HOST:PORT`; without credentials, without TLS.
    pub async fn connect(address: &str, credentials: Option<&Credentials>) -> Result<Self, Error> {
        let failed = |reason: String| Error::Agent { address: address.to_owned(), reason };
        let scheme = if credentials.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| failed(format!("is no HOST:PORT: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT);
        if let Some(Credentials { ca, certificate, key }) = credentials {
            let identity = Identity::from_pem(read(certificate)?, read(key)?);
            let ca = Certificate::from_pem(read(ca)?);
            let tls = ClientTlsConfig::new().ca_certificate(ca).identity(identity);
            endpoint = endpoint.tls_config(tls).map_err(|error| failed(told(&error)))?;
        }
        let channel = endpoint.connect().await.map_err(|error| failed(told(&error)))?;
        Ok(Self { address: address.to_owned(), agent: AgentClient::new(channel) })
    }

    /// What it is, and may touch.
    pub async fn describe(&mut self) -> Result<DescribeResponse, Error> {
        let described = self.agent.describe(DescribeRequest {}).await;
        Ok(self.answer(described)?.into_inner())
    }

    /// How far its clock is from ours.
    pub async fn clock_offset(&mut self) -> Result<Offset, Error> {
        let mut exchanges = Vec::new();
        for _ in 0..CLOCK_EXCHANGES {
            let (began, sent_ns) = (Instant::now(), unix_ns());
            let answered = self.agent.clock(ClockRequest {}).await;
            let there = self.answer(answered)?.into_inner();
            let there_ns = (there.received_unix_ns, there.sent_unix_ns);
            exchanges.push(Exchange::of(began, sent_ns, there_ns));
        }
        let none = || Error::Agent { address: self.address.clone(), reason: "has no clock".into() };
        best(&exchanges).ok_or_else(none)
    }

    /// Applies a fault, which ends by itself after `lease` unless it is renewed.
    pub async fn inject(&mut self, fault: Fault, lease: Duration) -> Result<InjectResponse, Error> {
        let request = InjectRequest { fault: Some(fault), lease_ms: lease.as_millis() as u64 };
        let injected = self.agent.inject(request).await;
        Ok(self.answer(injected)?.into_inner())
    }

    /// Lets its lease run anew.
    pub async fn renew(&mut self, id: &str, lease: Duration) -> Result<(), Error> {
        let request = RenewRequest { id: id.to_owned(), lease_ms: lease.as_millis() as u64 };
        let renewed = self.agent.renew(request).await;
        self.answer(renewed).map(drop)
    }

    /// What it has done to the victim so far.
    pub async fn observe(&mut self, id: &str) -> Result<Observation, Error> {
        let observed = self.agent.observe(ObserveRequest { id: id.to_owned() }).await;
        Ok(self.answer(observed)?.into_inner().observation.unwrap_or_default())
    }

    /// Undoes it.
    pub async fn heal(&mut self, id: &str) -> Result<HealResponse, Error> {
        let healed = self.agent.heal(HealRequest { id: id.to_owned() }).await;
        Ok(self.answer(healed)?.into_inner())
    }

    /// The faults that hold, and the last of those that have ended.
    pub async fn list(&mut self) -> Result<Vec<Listed>, Error> {
        let listed = self.agent.list(ListRequest {}).await;
        Ok(self.answer(listed)?.into_inner().faults)
    }

    fn answer<T>(&self, answered: Result<T, Status>) -> Result<T, Error> {
        answered.map_err(|status| Error::Agent {
            address: self.address.clone(),
            reason: match status.message() {
                "" => status.to_string(),
                // A broken connection has its reason further in.
                _ if std::error::Error::source(&status).is_some() => told(&status),
                message => message.to_owned(),
            },
        })
    }
}
