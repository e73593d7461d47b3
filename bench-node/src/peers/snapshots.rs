//! Snapshots on their way from member to member, and to the disk.
//!
//! Invariant: the protocol hears of a snapshot only once all of it is durable here and was read
//! back whole. One snapshot is received at a time, that of the latest term. A transfer that breaks goes
//! on where it stopped, as long as the same snapshot is offered.
//!
//! Snapshots have a connection of their own: on the one for messages, heartbeats would wait behind
//! them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::peer::peer_client::PeerClient;
use api::peer::snapshot_part::Part;
use api::peer::{SnapshotChunk, SnapshotOffer, SnapshotPart};
use raft::{EntryId, Index, NodeId, Term};
use tokio::sync::{MutexGuard, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Link, Links, link};
use crate::disk::Disk;
use crate::driver::{Input, SnapshotRoom};
use crate::kv::Frozen;
use crate::members::Roster;
use crate::metrics::Metrics;
use crate::snapshot::{
    Incoming, Offer, Outgoing, SnapshotError, SnapshotId, SnapshotMeta, Snapshots, WriteJob,
};
use crate::store::ReceivedSnapshot;
use crate::{DEFAULT_GROUP, GroupId};

const CHUNK_BYTES: usize = 512 << 10;
/// Chunks that wait for the connection.
const QUEUED_CHUNKS: usize = 4;
/// How often a transfer is taken up again before the protocol is told to look anew.
const ATTEMPTS: u32 = 10;
/// A transfer that brings nothing for so long is given up; it can be resumed.
const STALL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

/// The snapshots of a node: what the loop has written and sent.
pub(crate) struct Depot<D: Disk> {
    snapshots: Snapshots<D>,
    links: Arc<Links>,
    us: NodeId,
    inputs: mpsc::UnboundedSender<Input>,
    metrics: Arc<Metrics>,
    writing: Mutex<Option<WriteJob>>,
    receiving: tokio::sync::Mutex<()>,
    /// The latest term that a snapshot was offered in.
    offered: watch::Sender<Term>,
}

impl<D: Disk> Depot<D> {
    pub(crate) fn new(
        snapshots: Snapshots<D>,
        links: Arc<Links>,
        us: NodeId,
        inputs: mpsc::UnboundedSender<Input>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (writing, receiving) = (Mutex::default(), tokio::sync::Mutex::default());
        let offered = watch::Sender::new(0);
        Arc::new(Self { snapshots, links, us, inputs, metrics, writing, receiving, offered })
    }

    /// Waits until no other snapshot is being received. One of an earlier leader's is given up for
    /// this one: who sent that one leads no more, and what arrived of it is kept.
    async fn alone(&self, term: Term) -> Result<MutexGuard<'_, ()>, Status> {
        let newer = self.offered.send_if_modified(|latest| {
            let newer = term > *latest;
            *latest = term.max(*latest);
            newer
        });
        match newer {
            true => Ok(self.receiving.lock().await),
            false => self.receiving.try_lock().map_err(|_| busy()),
        }
    }

    /// What of an offered snapshot is wanted next.
    pub(super) async fn wanted(&self, offer: &SnapshotOffer) -> Result<u64, Status> {
        check_group(offer)?;
        let _alone = self.alone(offer.term).await?;
        match self.take_up(id_of(offer)).await? {
            Offer::Held(snapshot) => Ok(snapshot.id.bytes),
            Offer::Wanted(incoming) => Ok(incoming.received_up_to()),
        }
    }

    /// Takes in what a leader sends; the first part was its offer.
    pub(super) async fn take(
        &self,
        offer: SnapshotOffer,
        mut parts: tonic::Streaming<SnapshotPart>,
    ) -> Result<(), Status> {
        check_group(&offer)?;
        let _alone = self.alone(offer.term).await?;
        let mut offered = self.offered.subscribe();
        if let Offer::Wanted(mut incoming) = self.take_up(id_of(&offer)).await? {
            loop {
                let part = tokio::select! {
                    part = next(&mut parts) => part?,
                    _ = offered.wait_for(|latest| *latest > offer.term) => return Err(superseded()),
                };
                let Some(part) = part else { break };
                let Some(Part::Chunk(chunk)) = part.part else {
                    return Err(Status::invalid_argument("chunks come behind the offer"));
                };
                incoming = apart(move || write(incoming, chunk)).await?;
            }
            apart(move || incoming.finish()).await?;
        }
        let snapshots = self.snapshots.clone();
        let id = id_of(&offer);
        let loaded = apart(move || snapshots.load(id.group, id.last_included)).await?;
        let (snapshot, store) =
            loaded.latest.ok_or_else(|| Status::internal("a snapshot went after it came"))?;
        Roster::of(&snapshot.meta.membership)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.metrics.snapshots_received.inc();
        tracing::info!(
            index = snapshot.id.last_included.index,
            bytes = snapshot.id.bytes,
            "snapshot received"
        );
        let received = ReceivedSnapshot {
            group: id.group,
            from: offer.from,
            term: offer.term,
            snapshot: raft::Snapshot {
                last: snapshot.id.last_included,
                membership: snapshot.meta.membership,
            },
            store,
        };
        // The loop that listens may be gone only if the node is.
        let _ = self.inputs.send(Input::SnapshotReceived(Box::new(received)));
        Ok(())
    }

    async fn take_up(&self, id: SnapshotId) -> Result<Offer<D>, Status> {
        let snapshots = self.snapshots.clone();
        apart(move || snapshots.receive(id)).await
    }
}

impl<D: Disk> SnapshotRoom for Depot<D> {
    fn write(&self, meta: SnapshotMeta, frozen: Frozen) {
        let group = meta.group;
        let (inputs, metrics) = (self.inputs.clone(), Arc::clone(&self.metrics));
        let done = move |written: Result<crate::snapshot::Snapshot, SnapshotError>| {
            let written = written.map(|snapshot| {
                metrics.snapshots_written.inc();
                snapshot.id.last_included.index
            });
            let _ = inputs.send(Input::SnapshotWritten(group, written));
        };
        let job = self.snapshots.write_in_background(meta, frozen, done);
        match job {
            Ok(job) => *self.writing.lock().expect("never held across a panic") = Some(job),
            Err(error) => drop(self.inputs.send(Input::SnapshotWritten(group, Err(error)))),
        }
    }

    fn remove_older(&self, group: GroupId, index: Index) {
        let snapshots = self.snapshots.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = snapshots.remove_older(group, index) {
                tracing::warn!(reason = error.to_string(), "old snapshots stay");
            }
        });
    }

    fn send(self: Arc<Self>, group: GroupId, to: NodeId, term: Term) {
        tokio::spawn(async move {
            if let Err(error) = self.send_newest(group, to, term).await {
                tracing::warn!(reason = error.to_string(), "snapshot not sent");
            }
            let _ = self.inputs.send(Input::SnapshotSent(group, to));
        });
    }
}

impl<D: Disk> Depot<D> {
    async fn send_newest(&self, group: GroupId, to: NodeId, term: Term) -> Result<(), Status> {
        let gone = || Status::unavailable("the member is not known");
        let link = self.links.find(to).ok_or_else(gone)?;
        let snapshots = self.snapshots.clone();
        let newest = apart(move || snapshots.open_newest(group)).await?;
        let newest =
            newest.ok_or_else(|| Status::internal("the log was cut without a snapshot"))?;
        let newest = Arc::new(newest);
        let id = newest.snapshot().id;
        let offer = SnapshotOffer {
            from: self.us,
            to,
            term,
            group: id.group,
            index: id.last_included.index,
            index_term: id.last_included.term,
            bytes: id.bytes,
            crc: id.crc,
        };
        tracing::info!(
            peer = link.name(),
            index = offer.index,
            bytes = offer.bytes,
            "snapshot offered"
        );
        let mut attempt = 1;
        loop {
            match send(&link, offer, &newest).await {
                Ok(()) => {
                    self.metrics.snapshots_sent.inc();
                    return Ok(());
                }
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => {}
            }
            attempt += 1;
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// One attempt, over a connection of its own.
async fn send<D: Disk>(
    link: &Link,
    offer: SnapshotOffer,
    outgoing: &Arc<Outgoing<D>>,
) -> Result<(), Status> {
    let mut client = PeerClient::new(link.connect_apart().await?);
    let wanted = client.offer_snapshot(offer).await?.into_inner();
    let (parts, queue) = mpsc::channel(QUEUED_CHUNKS);
    let reading = tokio::spawn(read(Arc::clone(outgoing), wanted.offset, offer, parts));
    let sent = client.send_snapshot(ReceiverStream::new(queue)).await;
    reading.abort();
    sent.map(|_| ())
}

/// Reads a snapshot into a queue, as fast as it is taken.
async fn read<D: Disk>(
    outgoing: Arc<Outgoing<D>>,
    mut offset: u64,
    offer: SnapshotOffer,
    parts: mpsc::Sender<SnapshotPart>,
) {
    let mut part = SnapshotPart { part: Some(Part::Offer(offer)) };
    while parts.send(part).await.is_ok() && offset < offer.bytes {
        let source = Arc::clone(&outgoing);
        let Ok(chunk) = apart(move || source.read_chunk(offset, CHUNK_BYTES)).await else {
            // The receiver sees a stream that ends early, and says so.
            return;
        };
        offset += chunk.bytes.len() as u64;
        let chunk = SnapshotChunk { offset: chunk.offset, data: chunk.bytes, crc: chunk.crc };
        part = SnapshotPart { part: Some(Part::Chunk(chunk)) };
    }
}

/// Waits for a part, and not for ever: a sender that lost its power says nothing, and while one
/// snapshot is received no other is.
async fn next(parts: &mut tonic::Streaming<SnapshotPart>) -> Result<Option<SnapshotPart>, Status> {
    tokio::time::timeout(STALL, parts.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the snapshot's sender says nothing"))?
}

fn write<D: Disk>(
    mut incoming: Incoming<D>,
    chunk: SnapshotChunk,
) -> Result<Incoming<D>, SnapshotError> {
    incoming.write_chunk(chunk.offset, &chunk.data, chunk.crc)?;
    Ok(incoming)
}

/// A node has one group today. With more, terms of different groups must not be compared, as
/// [`Depot::alone`] does.
fn check_group(offer: &SnapshotOffer) -> Result<(), Status> {
    match offer.group {
        DEFAULT_GROUP => Ok(()),
        group => Err(Status::not_found(format!("no group {group} here"))),
    }
}

fn id_of(offer: &SnapshotOffer) -> SnapshotId {
    let SnapshotOffer { group, index, index_term: term, bytes, crc, .. } = *offer;
    let (group, last_included): (GroupId, _) = (group, EntryId { index, term });
    SnapshotId { group, last_included, bytes, crc }
}

/// What waits for the disk stays off the threads that serve requests.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("snapshots do not panic")
        .map_err(|error| Status::internal(error.to_string()))
}

fn superseded() -> Status {
    Status::aborted("a later leader offers a snapshot")
}

fn busy() -> Status {
    Status::aborted("another snapshot is being received")
}

impl From<link::NoConnection> for Status {
    fn from(error: link::NoConnection) -> Self {
        Self::unavailable(error.0)
    }
}
