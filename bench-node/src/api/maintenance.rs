//! The Maintenance service: where a member stands.
//!
//! Invariant: what is answered is measured now; what this node does not have is refused, and says
//! so, rather than answered with something made up.

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use api::etcdserverpb::maintenance_server::Maintenance;
use bytes::Bytes;
use raft::TransferError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::forward::NOT_LEADER;
use super::{Shared, no_leader, reads, stopped};
use crate::driver::{Input, TransferRefusal};
use crate::kv::Store;
use crate::snapshot::{self, SavedStream};

/// Pieces of a snapshot that are made ahead.
const QUEUED_PIECES: usize = 16;

/// What `etcdctl endpoint status` shows: the etcd version whose behaviour this is, and whose.
const VERSION: &str = concat!("3.4.23-raftbench.", env!("CARGO_PKG_VERSION"));

/// Snapshots that are being saved at once, at most: each takes a thread, and holds a state of the
/// store in memory.
const MOST_SAVES: usize = 2;
/// A client that takes nothing for so long is given up.
const SAVE_PATIENCE: Duration = Duration::from_secs(30);

/// Counts the snapshots that are on their way to clients.
pub(crate) struct Saves {
    places: Arc<Semaphore>,
}

impl Default for Saves {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MOST_SAVES)) }
    }
}

impl Saves {
    fn take_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "etcdserver: too many requests: this member sends {MOST_SAVES} snapshots already; \
                 ask another one, or later",
            ))
        })
    }
}

/// Serves etcd's Maintenance.
pub(crate) struct MaintenanceService {
    shared: Arc<Shared>,
}

impl MaintenanceService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        let mut header = None;
        self.shared.complete(&mut header);
        header
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    /// There are no alarms, and none can be raised.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        if request.get_ref().action() == pb::alarm_request::AlarmAction::Activate {
            return Err(Status::unimplemented("bench-node has no alarms"));
        }
        Ok(Response::new(pb::AlarmResponse { header: self.header(), alarms: Vec::new() }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let inspection = self.shared.inspect().await?;
        let db_size = self.shared.read_store(Store::bytes) as i64;
        let leader = inspection.status.leader.unwrap_or(0);
        let errors = match leader {
            0 => vec!["etcdserver: no leader".to_owned()],
            _ => Vec::new(),
        };
        Ok(Response::new(pb::StatusResponse {
            header: self.header(),
            version: VERSION.to_owned(),
            db_size,
            leader,
            raft_index: inspection.status.commit_index,
            raft_term: inspection.status.term,
            raft_applied_index: inspection.applied_index,
            errors,
            db_size_in_use: db_size,
            is_learner: self.shared.rosters.borrow().listed().is_learner(self.shared.id),
            storage_version: String::new(),
            db_size_quota: 0,
        }))
    }

    /// The store is in memory: there is nothing to do.
    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Ok(Response::new(pb::DefragmentResponse { header: self.header() }))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let hash = |store: &Store| (store.hash(), store.revision());
        let (hash, revision) = reads::apart(Arc::clone(&self.shared.store), hash).await?;
        let mut header = Some(pb::ResponseHeader { revision, ..Default::default() });
        self.shared.complete(&mut header);
        Ok(Response::new(pb::HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let asked = request.get_ref().revision;
        let hash = move |store: &Store| {
            store.check_revision(asked)?;
            Ok::<_, Status>((store.hash(), store.revision(), store.compacted_revision()))
        };
        let (hash, revision, compact_revision) =
            reads::apart(Arc::clone(&self.shared.store), hash).await??;
        let mut header = Some(pb::ResponseHeader { revision, ..Default::default() });
        self.shared.complete(&mut header);
        Ok(Response::new(pb::HashKvResponse {
            header,
            hash,
            compact_revision,
            hash_revision: revision,
        }))
    }

    type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

    /// The state as it is, in this node's own format, with the digest that `etcdctl snapshot save`
    /// looks for.
    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let place = self.shared.saves.take_place()?;
        let (reply, frozen) = oneshot::channel();
        self.shared.inputs.send(Input::Freeze(reply)).map_err(|_| stopped())?;
        let (meta, frozen) = frozen.await.map_err(|_| no_leader())?;
        let (made, pieces) = mpsc::channel(QUEUED_PIECES);
        // Not on one of the runtime's own threads: a client may take its time.
        let save = move || {
            let _place = place;
            for blob in SavedStream::new(meta, frozen, &snapshot::Options::default()) {
                if made.blocking_send(blob).is_err() {
                    return; // The client is gone, or was given up.
                }
            }
        };
        std::thread::Builder::new().name("save".to_owned()).spawn(save).map_err(|error| {
            Status::resource_exhausted(format!("no thread to save on: {error}"))
        })?;
        let (sent, stream) = mpsc::channel(1);
        tokio::spawn(hand_out(pieces, sent));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    /// As etcd's: to be asked of the leader, and answered once the target leads.
    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let (reply, outcome) = oneshot::channel();
        let target = request.get_ref().target_id;
        self.shared.inputs.send(Input::Transfer(target, reply)).map_err(|_| stopped())?;
        match outcome.await.map_err(|_| stopped())? {
            Ok(()) => Ok(Response::new(pb::MoveLeaderResponse { header: self.header() })),
            Err(refusal) => Err(transfer_status(refusal)),
        }
    }
}

/// Hands pieces to a client as it takes them, and gives up one that takes none.
async fn hand_out(
    mut pieces: mpsc::Receiver<Bytes>,
    client: mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
) {
    while let Some(blob) = pieces.recv().await {
        let piece = pb::SnapshotResponse { blob, ..Default::default() };
        match tokio::time::timeout(SAVE_PATIENCE, client.reserve()).await {
            Ok(Ok(place)) => place.send(Ok(piece)),
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!("a client that saves a snapshot takes nothing: given up");
                drop(pieces);
                let late = Status::deadline_exceeded("the snapshot was not taken in time");
                let _ = client.send(Err(late)).await;
                return;
            }
        }
    }
}

/// In etcd's words.
fn transfer_status(refusal: TransferRefusal) -> Status {
    match refusal {
        TransferRefusal::Refused(TransferError::NotLeader { .. }) => {
            Status::failed_precondition(NOT_LEADER)
        }
        TransferRefusal::Refused(TransferError::NotAVoter(_)) => {
            Status::failed_precondition("etcdserver: bad leader transferee")
        }
        TransferRefusal::Refused(TransferError::UnderWay) => Status::unavailable(
            "etcdserver: another transfer of leadership or change of members is under way",
        ),
        TransferRefusal::Failed => {
            Status::unavailable("etcdserver: request timed out, leader transfer took too long")
        }
    }
}
