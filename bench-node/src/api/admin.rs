//! What this node offers beyond etcd's API (`raftbench.admin.Admin`), on the same port.
//!
//! Invariant: what goes around the protocol is refused unless the setting that names it is on, and
//! is said in the log each time.

use std::sync::Arc;

use api::admin::admin_server::Admin;
use api::admin::{
    ChangeMembershipRequest, ChangeMembershipResponse, ListMembershipRequest,
    ListMembershipResponse, Member, UnsafeLocalWriteRequest, UnsafeLocalWriteResponse,
    UnsafeSwapConfigurationRequest, UnsafeSwapConfigurationResponse,
};
use api::etcdserverpb::PutRequest;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::members::MembersAsk;
use super::{Shared, stopped};
use crate::config::{added_member_id, is_address};
use crate::driver::Input;
use crate::kv::{Command, check};
use crate::members::{Added, Ask, Record, Roster};

/// Serves it.
pub(crate) struct AdminService {
    shared: Arc<Shared>,
}

impl AdminService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_membership(
        &self,
        _: Request<ListMembershipRequest>,
    ) -> Result<Response<ListMembershipResponse>, Status> {
        let roster = self.shared.ask_of_leader(MembersAsk::List).await?;
        Ok(Response::new(ListMembershipResponse { members: members(&roster) }))
    }

    async fn change_membership(
        &self,
        request: Request<ChangeMembershipRequest>,
    ) -> Result<Response<ChangeMembershipResponse>, Status> {
        let ChangeMembershipRequest { voters, learners, added_learners } = request.into_inner();
        if let Some(bad) = added_learners.iter().find(|peer| !is_address(peer)) {
            let problem = format!("{bad:?} is not HOST:PORT (127.0.0.1:2380)");
            return Err(Status::invalid_argument(problem));
        }
        let added = added_learners.into_iter().map(|peer| {
            let id = added_member_id(self.shared.cluster_id, &peer, rand::random());
            Added { id, peer, learner: true }
        });
        let ask = Ask::Replace { voters, learners, added: added.collect() };
        let roster = self.shared.ask_of_leader(MembersAsk::Change(ask)).await?;
        Ok(Response::new(ChangeMembershipResponse { members: members(&roster) }))
    }

    async fn unsafe_swap_configuration(
        &self,
        request: Request<UnsafeSwapConfigurationRequest>,
    ) -> Result<Response<UnsafeSwapConfigurationResponse>, Status> {
        permitted(self.shared.permits_swap, "unsafe_configuration_swap")?;
        let voters = request.into_inner().voters;
        if voters.is_empty() || voters.contains(&0) {
            return Err(Status::invalid_argument("a group needs a voter, and no id is 0"));
        }
        tracing::warn!(
            voters = format!("{voters:x?}"),
            "UNSAFE: members swapped on this one alone"
        );
        let (reply, done) = oneshot::channel();
        self.shared.inputs.send(Input::SwapMembers(voters, reply)).map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?;
        Ok(Response::new(UnsafeSwapConfigurationResponse {}))
    }

    async fn unsafe_local_write(
        &self,
        request: Request<UnsafeLocalWriteRequest>,
    ) -> Result<Response<UnsafeLocalWriteResponse>, Status> {
        permitted(self.shared.permits_local_write, "unsafe_local_write")?;
        let UnsafeLocalWriteRequest { key, value } = request.into_inner();
        let put = PutRequest { key, value, ..Default::default() };
        check::put(&put)?;
        tracing::warn!(key = format!("{:?}", put.key), "UNSAFE: a write past the log");
        let mut store = self.shared.store.write().expect("nobody panics holding the store");
        store.apply(Command::Put(put))?;
        Ok(Response::new(UnsafeLocalWriteResponse { revision: store.revision() }))
    }
}

fn members(roster: &Roster) -> Vec<Member> {
    let member = |record: &Record| Member {
        id: record.id,
        name: record.name.clone(),
        peer: record.peer.clone(),
        client: record.client.clone(),
        voter: roster.is_voter(record.id),
    };
    roster.members().map(member).collect()
}

fn permitted(on: bool, setting: &str) -> Result<(), Status> {
    match on {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!(
            "this breaks what the protocol promises; to see that, set {setting} = true in \
             [settings] of this member's configuration, and start it again",
        ))),
    }
}
