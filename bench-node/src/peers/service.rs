//! What the other members call.
//!
//! Invariant: a stream's messages are taken only from the member that introduced itself to this
//! process, under the incarnation that it gave.

use std::sync::Arc;

use api::peer::peer_server::{Peer, PeerServer};
use api::peer::snapshot_part::Part;
use api::peer::{
    ExchangeClosed, IntroduceRequest, IntroduceResponse, PeerBatch, SnapshotOffer, SnapshotPart,
    SnapshotTaken, SnapshotWanted,
};
use raft::NodeId;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Acquaintance, Depot, Link, MAX_BATCH_BYTES, wire};
use crate::disk::Disk;
use crate::driver::Input;
use crate::error::NodeError;
use crate::identity::IdentityError;

const MEMBER: &str = "raftbench-member";
const INCARNATION: &str = "raftbench-incarnation";
/// The answer to a member of this cluster that comes with another data directory. No other answer
/// has this code, nor does any answer of another kind of server translate to it.
pub(super) const LOST_DIRECTORY: Code = Code::DataLoss;

/// Serves the peers.
pub(crate) struct PeerService<D: Disk> {
    us: Arc<Acquaintance>,
    links: Vec<Arc<Link>>,
    depot: Arc<Depot<D>>,
}

impl<D: Disk> PeerService<D> {
    /// For a tonic server.
    pub(crate) fn server(
        us: Arc<Acquaintance>,
        links: Vec<Arc<Link>>,
        depot: Arc<Depot<D>>,
    ) -> PeerServer<Self> {
        PeerServer::new(Self { us, links, depot }).max_decoding_message_size(MAX_BATCH_BYTES)
    }

    /// Whether an offer is of a member, and for this one.
    fn check_offer(&self, offer: &SnapshotOffer) -> Result<(), Status> {
        if offer.to != self.us.id || !self.us.others.contains_key(&offer.from) {
            return Err(Status::failed_precondition("this snapshot is for another member"));
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
        if !us.others.contains_key(&request.from) {
            return Err(Status::failed_precondition(
                "this member does not have you among its [[members]]: all members must list the \
                 same names",
            ));
        }
        Ok(())
    }

    /// Who signed a stream, if it is who introduced itself.
    fn sender(&self, metadata: &MetadataMap) -> Option<NodeId> {
        let number = |key: &str| metadata.get(key)?.to_str().ok()?.parse::<u64>().ok();
        let (from, incarnation) = (number(MEMBER)?, number(INCARNATION)?);
        let met = self.us.met.lock().expect("never held across a panic");
        (met.get(&from) == Some(&incarnation)).then_some(from)
    }
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
            return Err(Status::new(
                LOST_DIRECTORY,
                format!(
                    "this cluster knows {name} by another data directory than the one it comes with. \
                 What it voted for and acknowledged is in the old one, so it must not go on \
                 without: start {name} with that directory, or remove it from the cluster and \
                 add it again",
                ),
            ));
        }
        self.us.met.lock().expect("never held across a panic").insert(from, incarnation);
        if let Some(link) = self.links.iter().find(|link| link.id() == from) {
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
        let from = self
            .sender(request.metadata())
            .ok_or_else(|| Status::unauthenticated("introduce yourself first"))?;
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let batch = wire::decode_batch(from, self.us.id, batch).map_err(|error| {
                let (peer, reason) = (self.us.events.name(from), error.to_string());
                tracing::error!(peer, reason, "peer refused");
                Status::invalid_argument(reason)
            })?;
            if self.us.inputs.send(Input::Messages(batch)).is_err() {
                return Err(Status::unavailable("etcdserver: server stopped"));
            }
        }
        Ok(Response::new(ExchangeClosed {}))
    }
}
