//! The Cluster service: who the members are.
//!
//! Invariant: it tells what the configuration says. Changing it goes through the protocol, which
//! comes with membership changes; until then it is refused, and says so.

use std::sync::Arc;

use api::etcdserverpb as pb;
use api::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::Shared;

/// Serves etcd's Cluster.
pub(crate) struct ClusterService {
    shared: Arc<Shared>,
}

impl ClusterService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let members = self.shared.members.iter().map(|member| pb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: vec![format!("http://{}", member.peer)],
            client_ur_ls: vec![format!("http://{}", member.client)],
            is_learner: false,
        });
        // As etcd's: without a revision, for members are not keys.
        let header = pb::ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.id,
            revision: 0,
            raft_term: self.shared.view.borrow().term,
        };
        let members = members.collect();
        Ok(Response::new(pb::MemberListResponse { header: Some(header), members }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(no_change())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(no_change())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(no_change())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(no_change())
    }
}

fn no_change() -> Status {
    Status::unimplemented(
        "bench-node cannot change its members yet: they are those of the configuration it was \
         started with",
    )
}
