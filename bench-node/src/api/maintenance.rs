//! The Maintenance service: where a member stands.
//!
//! Invariant: what is answered is measured now; what this node does not have is refused, and says
//! so, rather than answered with something made up.

use std::sync::Arc;

use api::etcdserverpb as pb;
use api::etcdserverpb::maintenance_server::Maintenance;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{Shared, reads};
use crate::kv::Store;

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

    type SnapshotStream = Empty<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unimplemented("bench-node cannot send a snapshot yet"))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(Status::unimplemented("bench-node cannot move its leader yet"))
    }
}
