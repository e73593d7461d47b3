//! The agent's side of the wire. Decides nothing: orders go to the register, whose work blocks and
//! runs on threads of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::agent::agent_server::Agent;
use api::agent::{
    ClockRequest, ClockResponse, DescribeRequest, DescribeResponse, HealRequest, HealResponse,
    InjectRequest, InjectResponse, ListRequest, ListResponse, Listed, ObserveRequest,
    ObserveResponse, RenewRequest, RenewResponse,
};
use tonic::{Code, Request, Response, Status};

use super::config::Allowed;
use super::order::Order;
use super::register::Register;
use super::undo::boot_id;
use crate::Error;

/// A shorter lease could not be renewed in time by a busy conductor.
const SHORTEST_LEASE: Duration = Duration::from_millis(500);

/// One agent.
pub(super) struct Service {
    pub(super) register: Arc<Register>,
    pub(super) allowed: Allowed,
    pub(super) longest_lease: Duration,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Agent for Service {
    async fn describe(&self, _: Request<DescribeRequest>) -> Answer<DescribeResponse> {
        let Allowed { interfaces, block_devices, cgroups, units, processes } = self.allowed.clone();
        let path = |path: &std::path::PathBuf| Path::display(path).to_string();
        Ok(Response::new(DescribeResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: boot_id().map_err(status)?,
            interfaces,
            block_devices: block_devices.iter().map(path).collect(),
            cgroups,
            units,
            processes: processes.into_iter().map(|process| process.name).collect(),
            longest_lease_ms: self.longest_lease.as_millis() as u64,
        }))
    }

    async fn clock(&self, _: Request<ClockRequest>) -> Answer<ClockResponse> {
        let now = unix_ns();
        Ok(Response::new(ClockResponse { received_unix_ns: now, sent_unix_ns: unix_ns() }))
    }

    async fn inject(&self, request: Request<InjectRequest>) -> Answer<InjectResponse> {
        let InjectRequest { fault, lease_ms } = request.into_inner();
        let order = Order::check(fault, &self.allowed).map_err(status)?;
        let lease = self.lease(lease_ms)?;
        let id = self.blocking(move |register| register.inject(order, lease)).await?;
        Ok(Response::new(InjectResponse { id, injected_unix_ns: unix_ns() }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Answer<RenewResponse> {
        let RenewRequest { id, lease_ms } = request.into_inner();
        let lease = self.lease(lease_ms)?;
        self.register.renew(&id, lease).map_err(status)?;
        Ok(Response::new(RenewResponse {}))
    }

    async fn observe(&self, request: Request<ObserveRequest>) -> Answer<ObserveResponse> {
        let id = request.into_inner().id;
        let observation = self.blocking(move |register| register.observe(&id)).await?;
        Ok(Response::new(ObserveResponse { observation: Some(observation) }))
    }

    async fn heal(&self, request: Request<HealRequest>) -> Answer<HealResponse> {
        let id = request.into_inner().id;
        let healed = self.blocking(move |register| register.heal(&id)).await?;
        Ok(Response::new(HealResponse {
            healed_unix_ns: unix_ns(),
            observation: Some(healed.observation),
            undone: healed.undone,
        }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Answer<ListResponse> {
        let listed = self.register.list().into_iter().map(|fault| Listed {
            id: fault.id,
            fault: fault.fault,
            state: fault.state.into(),
            lease_left_ms: fault.lease_left.as_millis() as u64,
            told: fault.told,
        });
        Ok(Response::new(ListResponse { faults: listed.collect() }))
    }
}

impl Service {
    fn lease(&self, ms: u64) -> Result<Duration, Status> {
        let lease = Duration::from_millis(ms);
        match (SHORTEST_LEASE..=self.longest_lease).contains(&lease) {
            true => Ok(lease),
            false => Err(status(Error::Order {
                what: "a lease",
                reason: format!(
                    "is {ms} ms; it must be from {} to {} ms (longest_lease_s in the agent's \
                     configuration)",
                    SHORTEST_LEASE.as_millis(),
                    self.longest_lease.as_millis()
                ),
            })),
        }
    }

    /// Also to its end when the client has gone.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Register) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let register = self.register.clone();
        let done = tokio::task::spawn_blocking(move || work(&register)).await;
        done.map_err(|error| Status::internal(error.to_string()))?.map_err(status)
    }
}

/// By the agent's clock.
pub(super) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

fn status(error: Error) -> Status {
    let code = match &error {
        Error::NotAllowed { .. } => Code::PermissionDenied,
        Error::Order { .. } | Error::Condition { .. } => Code::InvalidArgument,
        Error::UnknownFault { .. } => Code::NotFound,
        Error::Held { .. }
        | Error::NotOurs { .. }
        | Error::NotHere { .. }
        | Error::AlreadyStopped { .. }
        | Error::LeaseOver { .. }
        | Error::FaultOver { .. } => Code::FailedPrecondition,
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}
