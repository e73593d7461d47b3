//! The client API: a subset of etcd's v3 gRPC API, and an admin service and a session of this node's
//! own.
//!
//! Invariant: a write or a linearizable read is answered by the leader, wherever it arrived; what
//! is answered as failed never happened, and what may have happened is answered as such.
//!
//! | answer | gRPC code | it happened |
//! |---|---|---|
//! | a request that etcd refuses too ([`crate::kv::KvError`]) | as etcd | never |
//! | `etcdserver: too many requests` | `ResourceExhausted` | never |
//! | `etcdserver: no leader`, after waiting for one | `Unavailable` | never |
//! | `etcdserver: not leader`, to a forwarded request only | `FailedPrecondition` | never |
//! | `etcdserver: leader changed` | `Unavailable` | unknown |
//! | `etcdserver: request timed out` and longer forms of it | `Unavailable` | unknown |
//! | `etcdserver: server stopped` | `Unavailable` | unknown |

mod admin;
mod cluster;
mod forward;
mod grpc;
mod kv;
mod leader;
mod maintenance;
mod members;
mod reads;
mod session;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use admin::AdminService;
use api::admin::admin_server::AdminServer;
use api::etcdserverpb::ResponseHeader;
use api::etcdserverpb::cluster_server::ClusterServer;
use api::etcdserverpb::kv_server::KvServer;
use api::etcdserverpb::maintenance_server::MaintenanceServer;
use api::session::session_server::SessionServer;
use axum::http::Uri;
use axum::response::Response;
use cluster::ClusterService;
use grpc::AsEtcd;
use maintenance::MaintenanceService;
use session::SessionService;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use tonic::service::Routes;

use crate::driver::{Input, Inspection, Refusal, View};
use crate::kv::{MAX_REQUEST_BYTES, Store};
use crate::members::RostersSeen;
use crate::metrics::Metrics;
use crate::peers::Links;

pub(crate) use kv::KvService;
pub(crate) use maintenance::Saves;
pub(crate) use members::{MembersDesk, publish};

/// Requests on their way at once, at most.
const MAX_REQUESTS: usize = 32_768;
/// Bytes of commands on their way at once, at most.
const MAX_REQUESTS_BYTES: u64 = 512 << 20;
/// What gRPC takes in one message: the largest command, and room for what surrounds it.
const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + 512 * 1024;

/// What the services share.
pub(crate) struct Shared {
    /// This member's id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// Who the members are.
    pub rosters: RostersSeen,
    /// Where they are changed, if this one leads.
    pub desk: MembersDesk,
    /// The state machine.
    pub store: Arc<RwLock<Store>>,
    /// Whether the store holds something: after a restart it is empty until a leader says what is
    /// committed.
    pub restored: Arc<AtomicBool>,
    /// To the loop.
    pub inputs: mpsc::UnboundedSender<Input>,
    /// Who leads.
    pub view: watch::Receiver<View>,
    /// To the other members.
    pub links: Arc<Links>,
    /// How long a request waits for a leader.
    pub leader_patience: Duration,
    /// Requests on their way.
    pub admission: Arc<Admission>,
    /// Snapshots on their way to clients.
    pub saves: Saves,
    /// The setting `unsafe_configuration_swap`.
    pub permits_swap: bool,
    /// The setting `unsafe_local_write`.
    pub permits_local_write: bool,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    /// What clients call: all services, and an answer for those that are not there. `/metrics` too, as
    /// etcd has it: who knows a member by its client address alone can watch it.
    pub(crate) fn client_routes(self: &Arc<Self>) -> Routes {
        let mut routes = Routes::new(Self::kv_server(KvService::for_clients(Arc::clone(self))))
            .add_service(AsEtcd(
                ClusterServer::new(ClusterService::new(Arc::clone(self)))
                    .max_decoding_message_size(MAX_MESSAGE_BYTES),
            ))
            .add_service(AsEtcd(
                MaintenanceServer::new(MaintenanceService::new(Arc::clone(self)))
                    .max_decoding_message_size(MAX_MESSAGE_BYTES),
            ))
            .add_service(AdminServer::new(AdminService::new(Arc::clone(self))))
            .add_service(
                SessionServer::new(SessionService::for_clients(Arc::clone(self)))
                    .max_decoding_message_size(MAX_MESSAGE_BYTES),
            );
        let router = routes.axum_router_mut();
        let metrics = crate::scrape::router(self.inputs.clone(), Arc::clone(&self.metrics));
        *router = std::mem::take(router).fallback(not_served).merge(metrics);
        routes
    }

    /// What the other members call: requests that they forward.
    pub(crate) fn peer_routes(self: &Arc<Self>) -> Routes {
        let sessions = SessionService::for_peers(Arc::clone(self));
        Routes::new(Self::kv_server(KvService::for_peers(Arc::clone(self))))
            .add_service(SessionServer::new(sessions).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    fn kv_server(service: KvService) -> AsEtcd<KvServer<KvService>> {
        AsEtcd(
            KvServer::new(service)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(usize::MAX),
        )
    }

    /// Fills in what every header of this member has; the revision is kept where there is one.
    fn complete(&self, header: &mut Option<ResponseHeader>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.cluster_id;
        header.member_id = self.id;
        header.raft_term = self.view.borrow().term;
        if header.revision == 0 {
            header.revision = self.read_store(Store::revision);
        }
    }

    /// For what takes no time.
    fn read_store<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.store.read().expect("nobody panics holding the store"))
    }

    /// On a thread of its own where the store says that it would take long.
    async fn read_long<T: Send + 'static>(
        &self,
        is_long: impl FnOnce(&Store) -> bool,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, Status> {
        {
            let store = self.store.read().expect("nobody panics holding the store");
            if !is_long(&store) {
                return Ok(read(&store));
            }
        }
        reads::apart(Arc::clone(&self.store), read).await
    }

    /// Whether this member may answer from its store as it is.
    fn restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    async fn inspect(&self) -> Result<Inspection, Status> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Inspect(reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}

/// Counts what is on its way, and turns away what is too much.
#[derive(Default)]
pub(crate) struct Admission {
    requests: AtomicUsize,
    bytes: AtomicU64,
}

/// A request that was let in, until it is dropped.
struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    fn admit(self: &Arc<Self>, bytes: usize) -> Result<Admitted, Status> {
        self.enter(bytes)?;
        Ok(Admitted { admission: Arc::clone(self), bytes })
    }

    /// Who was let in says itself when it leaves.
    fn enter(&self, bytes: usize) -> Result<(), Status> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if requests >= MAX_REQUESTS || before + bytes as u64 > MAX_REQUESTS_BYTES {
            self.leave(bytes);
            return Err(Status::resource_exhausted("etcdserver: too many requests"));
        }
        Ok(())
    }

    fn leave(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.leave(self.bytes);
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader => Status::failed_precondition(forward::NOT_LEADER),
            Refusal::LeaderChanged => Status::unavailable("etcdserver: leader changed"),
            Refusal::TimedOut => Status::unavailable("etcdserver: request timed out"),
            Refusal::Stopped => stopped(),
        }
    }
}

async fn not_served(uri: Uri) -> Response {
    let call = uri.path().trim_start_matches('/');
    let message = format!(
        "bench-node does not serve {call}, only etcd's KV, Cluster, Maintenance, and sessions"
    );
    Status::unimplemented(message).into_http()
}

fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

fn connection_lost() -> Status {
    Status::unavailable("etcdserver: request timed out, possibly due to connection lost")
}

fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}
