//! etcd's Cluster service: who the members are, and changing that.
//!
//! Invariant: what is listed is what the log says; what was answered as changed is committed. Each
//! refusal has etcd's code and words, where etcd has one.
//!
//! As in etcd, a member that was added has no name and no client address until it starts. Unlike
//! etcd's, a member has one peer address, plain `http`.

use std::sync::Arc;

use api::etcdserverpb as pb;
use api::etcdserverpb::cluster_server::Cluster;
use raft::NodeId;
use tonic::{Request, Response, Status};

use super::Shared;
use super::members::MembersAsk;
use crate::config::{added_member_id, is_address};
use crate::members::{Added, Ask, Roster};

/// Serves etcd's Cluster.
pub(crate) struct ClusterService {
    shared: Arc<Shared>,
}

impl ClusterService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// As etcd's: without a revision, for members are not keys.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.id,
            revision: 0,
            raft_term: self.shared.view.borrow().term,
        })
    }

    async fn change(&self, ask: Ask) -> Result<Arc<Roster>, Status> {
        self.shared.ask_of_leader(MembersAsk::Change(ask)).await
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let roster = match request.get_ref().linearizable {
            true => self.shared.ask_of_leader(MembersAsk::List).await?,
            false => Arc::clone(self.shared.rosters.borrow().listed()),
        };
        let (header, members) = (self.header(), members(&roster));
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let peer = peer_address(&request.peer_ur_ls)?;
        let id = added_member_id(self.shared.cluster_id, &peer, rand::random());
        let added = Added { id, peer, learner: request.is_learner };
        let roster = self.change(Ask::Add(added)).await?;
        let (header, members) = (self.header(), members(&roster));
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let roster = self.change(Ask::Remove(request.get_ref().id)).await?;
        let (header, members) = (self.header(), members(&roster));
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let ask = Ask::Update { id: request.id, peer: peer_address(&request.peer_ur_ls)? };
        let roster = self.change(ask).await?;
        let (header, members) = (self.header(), members(&roster));
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let roster = self.change(Ask::Promote(request.get_ref().id)).await?;
        let (header, members) = (self.header(), members(&roster));
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}

fn members(roster: &Roster) -> Vec<pb::Member> {
    let urls = |address: &String| match address.is_empty() {
        true => Vec::new(),
        false => vec![format!("http://{address}")],
    };
    let member = |id: NodeId, record: &crate::members::Record| pb::Member {
        id,
        name: record.name.clone(),
        peer_ur_ls: urls(&record.peer),
        client_ur_ls: urls(&record.client),
        is_learner: roster.is_learner(id),
    };
    roster.members().map(|record| member(record.id, record)).collect()
}

/// The one `HOST:PORT` of a member's peer URLs.
fn peer_address(urls: &[String]) -> Result<String, Status> {
    const BAD_URLS: &str = "etcdserver: given member URLs are invalid";
    let [url] = urls else {
        let asked = urls.len();
        return Err(Status::invalid_argument(match asked {
            0 => BAD_URLS.to_owned(),
            _ => format!("{BAD_URLS}: a member has one peer URL here, not {asked}"),
        }));
    };
    let address = url.trim().strip_prefix("http://").filter(|address| is_address(address));
    address.map(str::to_owned).ok_or_else(|| {
        let https = url.starts_with("https:");
        Status::invalid_argument(match https {
            true => format!("{BAD_URLS}: members talk plain http here"),
            false => BAD_URLS.to_owned(),
        })
    })
}
