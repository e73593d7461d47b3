//! The Maintenance service: where a member stands.
//!
//! Invariant: what is answered is measured now; what this node does not have is refused, and says
//! so, rather than answered with something made up.

use std::sync::Arc;

use api::etcdserverpb as pb;
use api::etcdserverpb::maintenance_server::Maintenance;
use raft::TransferError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::forward::NOT_LEADER;
use super::{Shared, no_leader, reads, stopped};
use crate::driver::{Input, TransferRefusal};
use crate::kv::Store;
use crate::snapshot::{self, SavedStream};

/// Pieces of a snapshot that wait for the client.
const QUEUED_PIECES: usize = 16;

/// What `etcdctl endpoint status` shows: the etcd version whose behaviour this is, and whose.
const VERSION: &str = concat!("3.4.23-raftbench.", env!("CARGO_PKG_VERSION"));

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
            is_learner: false,
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
        let (reply, frozen) = oneshot::channel();
        self.shared.inputs.send(Input::Freeze(reply)).map_err(|_| stopped())?;
        let (meta, frozen) = frozen.await.map_err(|_| no_leader())?;
        let (pieces, stream) = mpsc::channel(QUEUED_PIECES);
        tokio::task::spawn_blocking(move || {
            for blob in SavedStream::new(meta, frozen, &snapshot::Options::default()) {
                let piece = pb::SnapshotResponse { blob, ..Default::default() };
                if pieces.blocking_send(Ok(piece)).is_err() {
                    return; // The client is gone.
                }
            }
        });
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
