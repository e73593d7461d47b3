//! What the other members call.
//!
//! Invariant: a stream's messages are taken only from the member that introduced itself to this
//! process, under the incarnation that it gave, and as long as it is not known to be removed or to be
//! another one than the log says.

use std::sync::Arc;

use api::members::{ChangeRequest, ChangeResponse};
use api::peer::peer_server::{Peer, PeerServer};
use api::peer::snapshot_part::Part;
use api::peer::{
    ExchangeClosed, FindMemberRequest, FindMemberResponse, IntroduceRequest, IntroduceResponse,
    PeerBatch, SnapshotOffer, SnapshotPart, SnapshotTaken, SnapshotWanted,
};
use raft::NodeId;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::links::Visit;
use super::{Acquaintance, Depot, Links, MAX_BATCH_BYTES, Met, wire};
use crate::api::MembersDesk;
use crate::disk::Disk;
use crate::driver::Input;
use crate::error::NodeError;
use crate::identity::IdentityError;
use crate::members::Record;

const MEMBER: &str = "raftbench-member";
const INCARNATION: &str = "raftbench-incarnation";
/// The answer to a member of this cluster that comes with another data directory. No other answer
/// has this code, nor does any answer of another kind of server translate to it.
pub(super) const LOST_DIRECTORY: Code = Code::DataLoss;
/// The answer to who was removed, under the same conditions.
pub(super) const REMOVED: Code = Code::NotFound;

/// Serves the peers.
pub(crate) struct PeerService<D: Disk> {
    us: Arc<Acquaintance>,
    links: Arc<Links>,
    depot: Arc<Depot<D>>,
    desk: MembersDesk,
}

impl<D: Disk> PeerService<D> {
    /// For a tonic server.
    pub(crate) fn server(
        us: Arc<Acquaintance>,
        links: Arc<Links>,
        depot: Arc<Depot<D>>,
        desk: MembersDesk,
    ) -> PeerServer<Self> {
        PeerServer::new(Self { us, links, depot, desk }).max_decoding_message_size(MAX_BATCH_BYTES)
    }

    /// Whether an offer is of somebody who introduced itself, and for this member.
    fn check_offer(&self, offer: &SnapshotOffer) -> Result<(), Status> {
        let met = self.us.met.lock().expect("never held across a panic").get(&offer.from).cloned();
        let Some(met) = met.filter(|_| offer.to == self.us.id) else {
            return Err(Status::failed_precondition("this snapshot is for another member"));
        };
        self.check_standing(offer.from, met.incarnation)
    }

    /// Whether it is to be listened to, as far as this member knows.
    fn check_standing(&self, from: NodeId, incarnation: u64) -> Result<(), Status> {
        let us = &self.us;
        if us.is_removed(from) {
            let name = us.events.name(from);
            return Err(Status::new(REMOVED, format!("{name} was removed from this cluster")));
        }
        if us.is_stranger(from, incarnation) {
            return Err(lost_directory(&us.events.name(from)));
        }
        Ok(())
    }

    fn check(&self, request: &IntroduceRequest) -> Result<(), Status> {
        let us = &self.us;
        if request.cluster_id != us.cluster_id {
            return Err(Status::failed_precondition(
                "this member is of another cluster: `cluster` must be the same token in the \
                 configurations of all members",
            ));
        }
        if request.to != us.id {
            return Err(Status::failed_precondition(format!(
                "another member was expected at this address; here is {}: `peer` in [[members]] \
                 must be the address of the member that it is listed under",
                us.events.name(us.id),
            )));
        }
        self.check_standing(request.from, request.incarnation)?;
        if request.founder && us.is_founder() && !us.founders.contains(&request.from) {
            return Err(Status::failed_precondition(
                "this member does not have you among its [[members]]: all founders must list the \
                 same names",
            ));
        }
        Ok(())
    }

    /// Who signed a stream, if it is who introduced itself.
    fn sender(&self, metadata: &MetadataMap) -> Option<(NodeId, Met)> {
        let number = |key: &str| metadata.get(key)?.to_str().ok()?.parse::<u64>().ok();
        let (from, incarnation) = (number(MEMBER)?, number(INCARNATION)?);
        let met = self.us.met.lock().expect("never held across a panic");
        let met = met.get(&from).filter(|met| met.incarnation == incarnation)?;
        Some((from, met.clone()))
    }
}

fn lost_directory(name: &str) -> Status {
    Status::new(
        LOST_DIRECTORY,
        format!(
            "this cluster knows {name} by another data directory than the one it comes with. What \
             it voted for and acknowledged is in the old one, so it must not go on without: start \
             {name} with that directory, or remove it from the cluster and add it again",
        ),
    )
}

/// Says who opens a stream.
pub(super) fn sign(metadata: &mut MetadataMap, from: NodeId, incarnation: u64) {
    metadata.insert(MEMBER, from.into());
    metadata.insert(INCARNATION, incarnation.into());
}

#[tonic::async_trait]
impl<D: Disk> Peer for PeerService<D> {
    async fn introduce(
        &self,
        request: Request<IntroduceRequest>,
    ) -> Result<Response<IntroduceResponse>, Status> {
        let request = request.into_inner();
        self.check(&request)?;
        let (from, incarnation) = (request.from, request.incarnation);
        if let Err(error) = self.us.remember(from, incarnation).await {
            let name = self.us.events.name(from);
            if !matches!(error, IdentityError::Stranger { .. }) {
                let status = Status::unavailable(error.to_string());
                self.us.end_node(NodeError::Identity(error));
                return Err(status);
            }
            tracing::error!(peer = name, reason = error.to_string(), "peer refused");
            return Err(lost_directory(&name));
        }
        let met = Met { incarnation, address: request.peer };
        self.us.met.lock().expect("never held across a panic").insert(from, met);
        if let Some(link) = self.links.find(from) {
            link.retry_now();
        }
        Ok(Response::new(IntroduceResponse { incarnation: self.us.incarnation }))
    }

    async fn offer_snapshot(
        &self,
        request: Request<SnapshotOffer>,
    ) -> Result<Response<SnapshotWanted>, Status> {
        let offer = request.into_inner();
        self.check_offer(&offer)?;
        let offset = self.depot.wanted(&offer).await?;
        Ok(Response::new(SnapshotWanted { offset }))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<SnapshotTaken>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(Part::Offer(offer)) = first else {
            return Err(Status::invalid_argument("the offer comes first"));
        };
        self.check_offer(&offer)?;
        self.depot.take(offer, parts).await?;
        Ok(Response::new(SnapshotTaken {}))
    }

    async fn exchange(
        &self,
        request: Request<Streaming<PeerBatch>>,
    ) -> Result<Response<ExchangeClosed>, Status> {
        let (from, met) = self
            .sender(request.metadata())
            .ok_or_else(|| Status::unauthenticated("introduce yourself first"))?;
        let _visit: Visit = self.links.visit(from, &met.address, &self.us);
        let mut rosters = self.us.rosters.clone();
        let mut batches = request.into_inner();
        rosters.mark_changed();
        loop {
            let batch = tokio::select! {
                biased;
                Ok(()) = rosters.changed() => {
                    self.check_standing(from, met.incarnation)?;
                    continue;
                }
                batch = batches.message() => batch?,
            };
            let Some(batch) = batch else { return Ok(Response::new(ExchangeClosed {})) };
            let batch = wire::decode_batch(from, self.us.id, batch).map_err(|error| {
                let (peer, reason) = (self.us.events.name(from), error.to_string());
                tracing::error!(peer, reason, "peer refused");
                Status::invalid_argument(reason)
            })?;
            let input = Input::Messages { incarnation: met.incarnation, batch };
            if self.us.inputs.send(input).is_err() {
                return Err(Status::unavailable("etcdserver: server stopped"));
            }
        }
    }

    async fn change_members(
        &self,
        request: Request<ChangeRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        self.desk.change_here(request.into_inner()).await.map(Response::new)
    }

    async fn find_member(
        &self,
        request: Request<FindMemberRequest>,
    ) -> Result<Response<FindMemberResponse>, Status> {
        let request = request.into_inner();
        if request.cluster_id != self.us.cluster_id {
            return Err(Status::failed_precondition(
                "this member is of another cluster: `cluster` must be the same token in the \
                 configurations of all members",
            ));
        }
        // An id that is not committed may be no member's in the end.
        let roster = Arc::clone(&self.us.rosters.borrow().committed);
        let found = roster.members().find(|record| record.peer == request.peer);
        let started = found.is_some_and(Record::is_started);
        // One that has started has its data directory: whoever asks has none, and is not that one.
        let id = found.filter(|_| !started).map_or(0, |record| record.id);
        let peers = roster.members().map(|record| record.peer.clone()).collect();
        Ok(Response::new(FindMemberResponse { id, peers, started }))
    }
}
