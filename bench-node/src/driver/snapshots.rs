//! When a snapshot is taken, when the log is cut, and what comes of snapshots of others.
//!
//! Invariant: the log is cut only up to a snapshot that is durable here, and, within bounds, not
//! while one is on its way to a member, which needs what comes behind it.

use std::sync::Arc;

use raft::{EntryId, Index, NodeId, PeerStatus, Term};

use crate::config::Settings;
use crate::kv::{Frozen, Store};
use crate::snapshot::SnapshotMeta;

/// A log that has grown by so many times what a snapshot is taken after is cut in any case.
const MOST_HELD: u64 = 8;
/// Entries that one turn of the loop lets go, at most: freeing a whole snapshot's worth of them at
/// once would hold up the writes of that moment.
const MOST_CUT_AT_ONCE: Index = 1024;

/// Writes and sends snapshots, away from the loop; what comes of it is an input.
pub(crate) trait SnapshotRoom: Send + Sync {
    /// Writes one; [`super::Input::SnapshotWritten`] tells its end.
    fn write(&self, meta: SnapshotMeta, frozen: Frozen);
    /// Removes those before the one with this index.
    fn remove_older(&self, index: Index);
    /// Sends the newest one, in the name of the leader of `term`; [`super::Input::SnapshotSent`]
    /// tells its end.
    fn send(self: Arc<Self>, to: NodeId, term: Term);
}

/// A snapshot of another member's, durable here.
pub(crate) struct ReceivedSnapshot {
    /// The leader that sent it.
    pub from: NodeId,
    /// Its term.
    pub term: Term,
    /// What it takes the place of.
    pub snapshot: raft::Snapshot<bytes::Bytes>,
    /// What it holds.
    pub store: Store,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Partly,
    Wholly,
}

/// What the loop keeps of snapshots.
pub(super) struct Snapshots {
    room: Arc<dyn SnapshotRoom>,
    every_entries: u64,
    every_bytes: u64,
    keep_entries: u64,
    /// The end of the latest one, or of the one that is being written.
    last: Index,
    /// Of the entries applied since.
    bytes: u64,
    writing: bool,
    /// Who is being sent one, and, once all of it was sent, who still needs what comes behind it.
    sending: Vec<(NodeId, Sent)>,
    /// The end of the latest one that is durable.
    durable: Index,
    /// Came in this turn, and may be what the protocol says to restore.
    received: Vec<(EntryId, Store)>,
}

impl Snapshots {
    pub(super) fn new(room: Arc<dyn SnapshotRoom>, settings: &Settings, last: Index) -> Self {
        Self {
            room,
            every_entries: settings.snapshot_entries.get(),
            every_bytes: settings.snapshot_bytes.get(),
            keep_entries: settings.snapshot_keep_entries,
            last,
            bytes: 0,
            writing: false,
            sending: Vec::new(),
            durable: last,
            received: Vec::new(),
        }
    }

    pub(super) fn applied(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Whether one is to be taken of what is applied now.
    pub(super) fn is_due(&self, applied: Index) -> bool {
        let enough = applied - self.last >= self.every_entries || self.bytes >= self.every_bytes;
        !self.writing && applied > self.last && enough
    }

    pub(super) fn write(&mut self, meta: SnapshotMeta, frozen: Frozen) {
        self.last = meta.last_included.index;
        self.bytes = 0;
        self.writing = true;
        self.room.write(meta, frozen);
    }

    pub(super) fn written(&mut self, end: Option<Index>) {
        self.writing = false;
        if let Some(index) = end {
            self.durable = self.durable.max(index);
            self.room.remove_older(self.durable);
        }
    }

    pub(super) fn send(&mut self, to: NodeId, term: Term) {
        self.sending.retain(|(other, _)| *other != to);
        self.sending.push((to, Sent::Partly));
        Arc::clone(&self.room).send(to, term);
    }

    pub(super) fn sent(&mut self, to: NodeId) {
        for (_, sent) in self.sending.iter_mut().filter(|(other, _)| *other == to) {
            *sent = Sent::Wholly;
        }
    }

    /// Lets go of those that hold the log as far as it is to be cut, or are followers no more: cut
    /// before that, the log would send them the next snapshot, and again.
    pub(super) fn let_go(&mut self, peers: impl Iterator<Item = PeerStatus>) {
        if self.sending.is_empty() {
            return;
        }
        let wanted = self.durable.saturating_sub(self.keep_entries);
        let behind: Vec<_> =
            peers.filter(|peer| peer.match_index < wanted).map(|peer| peer.id).collect();
        self.sending.retain(|(id, sent)| *sent == Sent::Partly || behind.contains(id));
    }

    pub(super) fn receive(&mut self, last: EntryId, store: Store) {
        self.received.push((last, store));
    }

    /// The store to go on with, as the protocol said.
    pub(super) fn restore(&mut self, last: EntryId) -> Store {
        let received = std::mem::take(&mut self.received);
        (self.last, self.durable, self.bytes) = (last.index, last.index, 0);
        let found = received.into_iter().find(|(id, _)| *id == last);
        found.expect("the protocol restores what it was told of in this turn").1
    }

    /// What was received in this turn and not wanted goes.
    pub(super) fn forget_received(&mut self) {
        self.received.clear();
    }

    /// Up to where a log that begins after `base` is to be cut now.
    pub(super) fn cut(&self, base: Index, applied: Index) -> Option<Index> {
        let too_long = applied.saturating_sub(base) >= self.every_entries.saturating_mul(MOST_HELD);
        let free = too_long || self.sending.is_empty();
        let cut = self.durable.saturating_sub(self.keep_entries);
        (free && cut > base).then_some(cut.min(base + MOST_CUT_AT_ONCE))
    }
}
