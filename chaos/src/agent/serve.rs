//! The agent from its start to its end: what is left behind is undone, then it listens, and when it is
//! told to end it undoes what holds.
//!
//! Invariant: it listens without TLS only on a loopback address, and only if it was told so in so
//! many words.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;

use api::agent::agent_server::AgentServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::config::{Config, Tls};
use super::register::Register;
use super::service::Service;
use super::state_dir::StateDir;
use crate::Error;

/// Whether it may do without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// Never.
    Refused,
    /// On a loopback address, where every user of the host can use it then.
    OnLoopback,
}

/// Runs the agent until `ends`. `listening` is called once, with its address, when clients are
/// answered.
pub async fn serve(
    config: Config,
    insecure: Insecure,
    listening: impl FnOnce(SocketAddr),
    ends: impl Future<Output = ()>,
) -> Result<(), Error> {
    let failed =
        |reason: String| Error::NotListening { address: config.listen.to_string(), reason };
    let mut server = Server::builder();
    match (&config.tls, insecure) {
        (Some(tls), _) => {
            let tls = tls.read()?;
            server = server.tls_config(tls).map_err(|error| failed(told(&error)))?;
        }
        (None, Insecure::Refused) => {
            let reason = "there is no [tls] in its configuration, and without it anyone could break \
                          this host; on a loopback address --insecure allows that";
            return Err(failed(reason.into()));
        }
        (None, Insecure::OnLoopback) if !config.listen.ip().is_loopback() => {
            let reason =
                "without [tls] it can only listen on a loopback address, such as 127.0.0.1";
            return Err(failed(reason.into()));
        }
        (None, Insecure::OnLoopback) => {}
    }
    let Some(state) = StateDir::open(&config.state_dir)? else {
        let reason = "another agent holds it; one host needs only one".to_owned();
        return Err(Error::StateDir { path: config.state_dir, reason });
    };
    for (left, result) in state.healed {
        match result {
            Ok(undone) => tracing::warn!(fault = left.fault, undone, "left behind, and undone"),
            Err(error) => {
                let reason = format!(
                    "fault {} ({}) of an agent before cannot be undone: {error}",
                    left.fault, left.told
                );
                return Err(Error::StateDir { path: config.state_dir, reason });
            }
        }
    }
    let listener = TcpListener::bind(config.listen).await.map_err(|e| failed(e.to_string()))?;
    let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let register = Register::open(state.journal, address.port())?;
    let service = Service {
        register: register.clone(),
        allowed: config.allowed,
        longest_lease: config.longest_lease,
    };
    listening(address);
    let serving = server
        .add_service(AgentServer::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    // Connections are not waited for: a client that stands still must not keep faults in force.
    let served = tokio::select! {
        served = serving => served,
        () = ends => Ok(()),
    };
    let left = tokio::task::spawn_blocking(move || register.close()).await;
    let left = left.map_err(|error| failed(error.to_string()))?;
    match left.into_iter().next() {
        Some(error) => Err(error),
        None => served.map_err(|error| failed(told(&error))),
    }
}

impl Tls {
    fn read(&self) -> Result<ServerTlsConfig, Error> {
        let identity = Identity::from_pem(read(&self.certificate)?, read(&self.key)?);
        let ca = Certificate::from_pem(read(&self.client_ca)?);
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(ca))
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let doing = || format!("read {}", path.display());
    std::fs::read(path).map_err(|problem| Error::Host { doing: doing(), problem })
}

/// With its causes: the outermost says only "transport error".
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !told.contains(&more) {
            told += &format!(": {more}");
        }
        cause = error.source();
    }
    told
}
