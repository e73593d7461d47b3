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
//! stops. So does one that is told, before it has its place, that their configurations differ.
//!
//! **Members that joined.** An id that is given to a new member was never used before, and its
//! member is a learner at first, whose votes and acknowledgements count nowhere. When it starts it
//! says who it is, and the leader puts that into the log: a change of its record, which *binds* the
//! id to that incarnation; of two, the first one that is committed stands. Only a learner that is
//! bound is given a vote. So the entry of the log that makes a member count says which data
//! directory it counts (the invariant of `crate::members`), and the loop drops what comes in that
//! name from any other one. Neither is there a majority to ask, nor does it matter how the
//! membership changes in between: whoever counts the vote has read whose vote it is.
//!
//! **Founders** count before anything is in the log. A fresh one neither votes nor acknowledges
//! until a majority of the *other founders* wrote down its incarnation. Any two such majorities have
//! a founder in common, and that one knows the old incarnation. (The price: of three founders, all
//! must be up the first time; of five, four.) It is bound in the log as soon as there is a leader,
//! as the others are; and until every voter is bound, no change of the voters begins. So in every
//! membership but that of the founders, all voters are bound.
//!
//! **Removed members.** The log keeps the ids of those that were removed: they are never members
//! again, and are told so when they come. That counts only once the removal is committed. Until
//! then it may be undone, and the vote of who is being removed may still be needed (thesis, section
//! 4.2.2).
//!
//! **Who is not known here** is let in as long as it is not known to be removed: our log may be
//! behind (thesis, section 4.1). It is answered where it says that it is reached; what it says counts
//! only as far as the membership in the log counts it.
//!
//! # How they talk
//! Each member keeps one stream to each other one, for its own messages; answers come back on the
//! other's stream. What one turn of the loop has for a peer travels as one batch, or a few. Requests of
//! clients that reached the wrong member are forwarded on the same connection: those of single keys
//! together, over a session ([`Passage`]), and others each by a call.

mod join;
mod link;
mod links;
mod passage;
mod service;
mod snapshots;
pub mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use api::peer::PeerBatch;
use bytes::Bytes;
use prost::Message as _;
use raft::{Message, NodeId};
use tokio::sync::mpsc;

use crate::GroupId;
use crate::disk::Disk;
use crate::driver::Input;
use crate::error::NodeError;
use crate::events::EventLog;
use crate::identity::{DataDir, IdentityError};
use crate::members::{Rosters, RostersSeen};
use crate::metrics::Metrics;
use crate::store::Batch;
pub(crate) use join::find_own_id;
pub(crate) use link::{Link, Route, keep_alive};
pub(crate) use links::Links;
pub(crate) use passage::{Fate, Passage, request_bytes};
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
    /// Strikes off whom we will not meet again.
    fn forget(&mut self, gone: &[NodeId]) -> Result<(), IdentityError>;
    /// Whether we may take part.
    fn introduced(&self) -> bool;
    /// We may.
    fn set_introduced(&mut self) -> Result<(), IdentityError>;
}

impl<D: Disk> Register for DataDir<D> {
    fn incarnation(&self) -> u64 {
        DataDir::incarnation(self)
    }

    fn remember(&mut self, peer: NodeId, incarnation: u64) -> Result<(), IdentityError> {
        DataDir::remember(self, peer, incarnation)
    }

    fn forget(&mut self, gone: &[NodeId]) -> Result<(), IdentityError> {
        DataDir::forget(self, gone)
    }

    fn introduced(&self) -> bool {
        DataDir::introduced(self)
    }

    fn set_introduced(&mut self) -> Result<(), IdentityError> {
        DataDir::set_introduced(self)
    }
}

/// Who this member is.
pub(crate) struct Own {
    /// Its id.
    pub id: NodeId,
    /// Of its cluster.
    pub cluster_id: u64,
    /// Where it says that it is reached, `host:port`.
    pub address: String,
    /// The founders' ids; nobody on a member that joined.
    pub founders: Vec<NodeId>,
}

/// What the streams of one member share.
pub(crate) struct Acquaintance {
    id: NodeId,
    cluster_id: u64,
    incarnation: u64,
    address: String,
    founders: Vec<NodeId>,
    rosters: RostersSeen,
    register: Arc<Mutex<dyn Register>>,
    /// May take part.
    introduced: AtomicBool,
    /// Who introduced itself to this process.
    met: Mutex<HashMap<NodeId, Met>>,
    /// Who told this process that it wrote us down.
    known_by: Mutex<HashSet<NodeId>>,
    inputs: mpsc::UnboundedSender<Input>,
    /// Ends the node.
    fatal: mpsc::UnboundedSender<NodeError>,
    metrics: Arc<Metrics>,
    events: EventLog,
}

#[derive(Clone, Debug)]
struct Met {
    incarnation: u64,
    /// Where it says that it is reached.
    address: String,
}

impl Acquaintance {
    /// Of this member.
    pub(crate) fn new(
        own: Own,
        rosters: RostersSeen,
        register: impl Register + 'static,
        inputs: mpsc::UnboundedSender<Input>,
        fatal: mpsc::UnboundedSender<NodeError>,
        metrics: Arc<Metrics>,
        events: EventLog,
    ) -> Self {
        if register.introduced() {
            // The loop that listens may be gone only if the node is.
            let _ = inputs.send(Input::Introduced);
        }
        Self {
            id: own.id,
            cluster_id: own.cluster_id,
            incarnation: register.incarnation(),
            address: own.address,
            founders: own.founders,
            rosters,
            introduced: AtomicBool::new(register.introduced()),
            register: Arc::new(Mutex::new(register)),
            met: Mutex::default(),
            known_by: Mutex::default(),
            inputs,
            fatal,
            metrics,
            events,
        }
    }

    /// Of this member's data directory.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn is_founder(&self) -> bool {
        !self.founders.is_empty()
    }

    /// Whether this member has its place in its cluster: what differs from others then is no error
    /// of its configuration.
    fn has_its_place(&self) -> bool {
        self.introduced.load(Ordering::Relaxed)
    }

    /// Whether whoever comes in this name is known to come from another data directory.
    fn is_stranger(&self, peer: NodeId, incarnation: u64) -> bool {
        let rosters = self.rosters.borrow();
        [&rosters.in_force, &rosters.committed]
            .into_iter()
            .any(|roster| roster.is_stranger(peer, incarnation))
    }

    /// Whether it was a member once, and is one no more.
    fn is_removed(&self, peer: NodeId) -> bool {
        self.rosters.borrow().committed.is_removed(peer)
    }

    /// Whom we will not meet again need not be remembered.
    async fn strike_off(&self, rosters: &Rosters) {
        let gone = rosters.committed.removed().collect::<Vec<_>>();
        self.met.lock().expect("never held across a panic").retain(|id, _| !gone.contains(id));
        if let Err(error) = self.with_register(move |register| register.forget(&gone)).await {
            self.end_node(NodeError::Identity(error));
        }
    }

    /// Writes a peer down; off the threads that serve requests, for it waits for the disk.
    async fn remember(&self, peer: NodeId, incarnation: u64) -> Result<(), IdentityError> {
        self.with_register(move |register| register.remember(peer, incarnation)).await
    }

    /// A peer wrote us down. Returns once it is durable that a majority of the other founders did,
    /// if it now has.
    async fn note_known_by(&self, peer: NodeId) -> Result<(), IdentityError> {
        if !self.is_founder() || !self.founders.contains(&peer) || self.has_its_place() {
            return Ok(());
        }
        let count = {
            let mut known_by = self.known_by.lock().expect("never held across a panic");
            known_by.insert(peer);
            known_by.len()
        };
        let others = self.founders.len() - 1;
        if count < others / 2 + 1 {
            return Ok(());
        }
        let newly = self.with_register(|register| {
            if register.introduced() {
                return Ok(false);
            }
            register.set_introduced().map(|()| true)
        });
        if newly.await? {
            self.introduced.store(true, Ordering::Relaxed);
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
    links: Arc<Links>,
    /// Of `links`, when `seen` was taken from them.
    version: u64,
    seen: Vec<Arc<Link>>,
    metrics: Arc<Metrics>,
}

impl Outboxes {
    /// One for each link that there is.
    pub(crate) fn new(links: Arc<Links>, metrics: Arc<Metrics>) -> Self {
        Self { links, version: 0, seen: Vec::new(), metrics }
    }

    /// Hands over what one turn of the loop has to say to a peer, and empties it; never waits.
    pub(crate) fn send(&mut self, batch: &mut Batch) {
        if let Some((version, links)) = self.links.newer_than(self.version) {
            (self.version, self.seen) = (version, links);
        }
        let link = self.seen.iter().find(|link| link.id() == batch.to);
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
