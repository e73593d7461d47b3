//! The other members: who they are, and what is said to them and by them.
//!
//! Invariant: no message of a member counts before its data directory is known here, durably.
//! Messages may be lost, delayed or doubled, which the protocol allows; queues are bounded and
//! drop what does not fit, so a slow peer costs its own messages and nothing else.
//!
//! # Who is let in
//! A vote or an acknowledgement is a promise that rests on the member's disk. A member that lost
//! its disk and comes back under the same id would break promises that it cannot remember, so it
//! has to be told from the old one: each data directory has an *incarnation*, drawn at random when
//! it was made. Members introduce themselves before they exchange anything, and write down the
//! incarnation of whom they met; another one under the same id is refused, and the refused member
//! stops. So does one that is told, before it ever met the peer, that their configurations differ.
//!
//! That alone leaves a gap: the peers that knew the old directory may be down when the new one
//! introduces itself. So a fresh member neither votes nor acknowledges until a majority of the
//! *other* members wrote down its incarnation. Any two such majorities have a member in common, and
//! that one knows the old incarnation. (The price: of three members, all must be up the first time;
//! of five, four.)
//!
//! # How they talk
//! Each member keeps one stream to each other one, for its own messages; answers come back on the
//! other's stream. What one turn of the loop has for a peer travels as one batch, or a few. Requests of
//! clients that reached the wrong member are forwarded on the same connection.

mod link;
mod service;
mod snapshots;
pub mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use api::peer::PeerBatch;
use bytes::Bytes;
use prost::Message as _;
use raft::{Message, NodeId};
use tokio::sync::mpsc;

use crate::GroupId;
use crate::config::Config;
use crate::disk::Disk;
use crate::driver::Input;
use crate::error::NodeError;
use crate::events::EventLog;
use crate::identity::{DataDir, IdentityError};
use crate::metrics::Metrics;
use crate::store::Batch;
pub(crate) use link::Link;
pub(crate) use service::PeerService;
pub(crate) use snapshots::Depot;

/// The largest batch taken from a peer: room for many requests of the largest size.
const MAX_BATCH_BYTES: usize = 256 << 20;
/// A batch takes no further message from here on: what comes behind a full window need not wait
/// until all of it is received, and no window exceeds what a peer takes.
const FULL_BATCH_BYTES: usize = 4 << 20;
/// Enough that one stream is never held up by its window.
const WINDOW_BYTES: u32 = 64 << 20;

/// What a member durably knows of itself and the others.
pub(crate) trait Register: Send {
    /// Of this member's data directory.
    fn incarnation(&self) -> u64;
    /// Writes down whom we met.
    fn remember(&mut self, peer: NodeId, incarnation: u64) -> Result<(), IdentityError>;
    /// Whether a majority of the others once wrote down who we are.
    fn introduced(&self) -> bool;
    /// They did.
    fn set_introduced(&mut self) -> Result<(), IdentityError>;
}

impl<D: Disk> Register for DataDir<D> {
    fn incarnation(&self) -> u64 {
        DataDir::incarnation(self)
    }

    fn remember(&mut self, peer: NodeId, incarnation: u64) -> Result<(), IdentityError> {
        DataDir::remember(self, peer, incarnation)
    }

    fn introduced(&self) -> bool {
        DataDir::introduced(self)
    }

    fn set_introduced(&mut self) -> Result<(), IdentityError> {
        DataDir::set_introduced(self)
    }
}

/// What the streams of one member share.
pub(crate) struct Acquaintance {
    id: NodeId,
    cluster_id: u64,
    incarnation: u64,
    others: HashMap<NodeId, String>,
    register: Arc<Mutex<dyn Register>>,
    /// Who introduced itself to this process, and as what.
    met: Mutex<HashMap<NodeId, u64>>,
    /// Who told this process that it wrote us down.
    known_by: Mutex<HashSet<NodeId>>,
    inputs: mpsc::UnboundedSender<Input>,
    /// Ends the node.
    fatal: mpsc::UnboundedSender<NodeError>,
    metrics: Arc<Metrics>,
    events: EventLog,
}

impl Acquaintance {
    /// Of the member that `config` describes.
    pub(crate) fn new(
        config: &Config,
        register: impl Register + 'static,
        inputs: mpsc::UnboundedSender<Input>,
        fatal: mpsc::UnboundedSender<NodeError>,
        metrics: Arc<Metrics>,
        events: EventLog,
    ) -> Self {
        let others: HashMap<_, _> =
            config.others().map(|member| (member.id, member.name.clone())).collect();
        if register.introduced() {
            // The loop that listens may be gone only if the node is.
            let _ = inputs.send(Input::Introduced);
        }
        Self {
            id: config.id(),
            cluster_id: config.cluster_id(),
            incarnation: register.incarnation(),
            others,
            register: Arc::new(Mutex::new(register)),
            met: Mutex::default(),
            known_by: Mutex::default(),
            inputs,
            fatal,
            metrics,
            events,
        }
    }

    /// Writes a peer down; off the threads that serve requests, for it waits for the disk.
    async fn remember(&self, peer: NodeId, incarnation: u64) -> Result<(), IdentityError> {
        self.with_register(move |register| register.remember(peer, incarnation)).await
    }

    /// A peer wrote us down. Returns once it is durable that a majority did, if it now has.
    async fn note_known_by(&self, peer: NodeId) -> Result<(), IdentityError> {
        let count = {
            let mut known_by = self.known_by.lock().expect("never held across a panic");
            known_by.insert(peer);
            known_by.len()
        };
        if count < self.others.len() / 2 + 1 {
            return Ok(());
        }
        let newly = self.with_register(|register| {
            if register.introduced() {
                return Ok(false);
            }
            register.set_introduced().map(|()| true)
        });
        if newly.await? {
            let _ = self.inputs.send(Input::Introduced);
        }
        Ok(())
    }

    async fn with_register<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Register) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let register = Arc::clone(&self.register);
        tokio::task::spawn_blocking(move || {
            work(&mut *register.lock().expect("never held across a panic"))
        })
        .await
        .expect("the register does not panic")
    }

    fn end_node(&self, error: NodeError) {
        // Nobody listens once the node ends anyway.
        let _ = self.fatal.send(error);
    }
}

/// Where the loop puts its messages.
pub(crate) struct Outboxes {
    links: Vec<Arc<Link>>,
    metrics: Arc<Metrics>,
}

impl Outboxes {
    /// One for each link.
    pub(crate) fn new(links: &[Arc<Link>], metrics: Arc<Metrics>) -> Self {
        Self { links: links.to_vec(), metrics }
    }

    /// Hands over what one turn of the loop has to say to a peer, and empties it; never waits.
    pub(crate) fn send(&mut self, batch: &mut Batch) {
        let link = self.links.iter().find(|link| link.id() == batch.to);
        let mut heartbeats = heartbeats(batch);
        let mut messages = batch.messages.drain(..);
        let Some(link) = link else { return };
        loop {
            let beats = heartbeats.heartbeats.len() + heartbeats.answers.len();
            let waiting = messages.len() + beats;
            if waiting == 0 {
                return;
            }
            if !link.try_send(|| next_batch(std::mem::take(&mut heartbeats), &mut messages)) {
                self.metrics.peer_messages_dropped.inc_by(waiting as u64);
                return;
            }
            self.metrics.peer_messages_sent.inc_by((waiting - messages.len()) as u64);
        }
    }
}

/// Takes out the heartbeats of many groups, which go first.
fn heartbeats(batch: &mut Batch) -> PeerBatch {
    PeerBatch {
        messages: Vec::new(),
        heartbeats: batch.heartbeats.drain(..).map(wire::encode_heartbeat).collect(),
        answers: batch.answers.drain(..).map(wire::encode_answer).collect(),
    }
}

/// Takes messages until they fill the batch.
fn next_batch(
    mut batch: PeerBatch,
    messages: &mut impl Iterator<Item = (GroupId, Message<Bytes>)>,
) -> PeerBatch {
    let mut bytes = 0;
    while bytes < FULL_BATCH_BYTES
        && let Some((group, message)) = messages.next()
    {
        let message = wire::encode(group, message);
        bytes += message.encoded_len();
        batch.messages.push(message);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::{Body, Entry, Payload};

    fn append(number: u64, bytes: usize) -> Message<Bytes> {
        let payload = Payload::Data(vec![7; bytes].into());
        let entries = vec![Entry { term: 1, index: number + 1, payload }];
        let body =
            Body::Append { prev_index: number, prev_term: 1, entries, commit: 0, read_round: 0 };
        Message { from: 1, to: 2, term: 1, body }
    }

    #[test]
    fn what_waits_goes_in_batches_that_a_peer_takes_and_in_order() {
        const LARGEST: usize = crate::kv::MAX_REQUEST_BYTES;
        let sizes = [10, LARGEST, LARGEST, LARGEST, 10, LARGEST, 10, FULL_BATCH_BYTES, 10];
        let messages: Vec<_> =
            (0..).zip(sizes).map(|(number, bytes)| append(number, bytes)).collect();
        let mut waiting = messages.clone().into_iter().map(|message| (7, message));
        let mut received = Vec::new();
        let mut batches = 0;
        while waiting.len() > 0 {
            let batch = next_batch(PeerBatch::default(), &mut waiting);
            let bytes = batch.encoded_len();
            let last = batch.messages.last().map_or(0, |message| message.encoded_len());
            assert!(bytes - last < FULL_BATCH_BYTES + 1024, "{bytes} bytes, {last} of them last");
            assert!(bytes < MAX_BATCH_BYTES);
            let batch = wire::decode_batch(1, 2, batch).expect("sound");
            received.extend(batch.messages.into_iter().map(|(_, message)| message));
            batches += 1;
        }
        assert_eq!(received, messages);
        assert_eq!(batches, 3);
    }
}
