//! When a snapshot of a group is taken, when its log is cut, and what comes of snapshots of others.
//!
//! Invariant: the log is cut only up to a snapshot that is durable here, and, within bounds, not
//! while one is on its way to a member, which needs what comes behind it. Those bounds are in
//! entries and in bytes both.

use bytes::Bytes;
use raft::{Entry, EntryId, Index, NodeId, Payload, PeerStatus, Raft, Term};

use crate::GroupId;
use crate::kv::Store;

/// A log that has grown by so many times what a snapshot is taken after is cut in any case.
const MOST_HELD: u64 = 8;
/// What stays in the log before a snapshot takes at most this part of the bytes that a snapshot is
/// taken after.
const KEPT_SHARE: u64 = 4;
/// Entries that one turn lets go, at most: freeing a whole snapshot's worth of them at once would hold
/// up the writes of that moment.
const MOST_CUT_AT_ONCE: Index = 1024;

/// How long a group's log may be.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotLimits {
    /// A snapshot is taken when so many entries were applied since the last one,
    pub every_entries: u64,
    /// or entries with so many bytes.
    pub every_bytes: u64,
    /// Entries before a snapshot that stay, at most; fewer where they take more than a quarter of
    /// `every_bytes`.
    pub keep_entries: u64,
}

impl SnapshotLimits {
    /// Beyond this, the log of all groups is too long, and the group that holds it back takes a
    /// snapshot.
    pub(super) fn most_log_bytes(&self) -> u64 {
        self.every_bytes.saturating_mul(MOST_HELD)
    }
}

/// A snapshot of another member's, durable here.
pub struct ReceivedSnapshot {
    /// Its group.
    pub group: GroupId,
    /// The leader that sent it.
    pub from: NodeId,
    /// Its term.
    pub term: Term,
    /// What it takes the place of.
    pub snapshot: raft::Snapshot<Bytes>,
    /// What it holds.
    pub store: Store,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Partly,
    Wholly,
}

/// What a group keeps of snapshots.
pub(super) struct Snapshots {
    limits: SnapshotLimits,
    /// The end of the latest one, or of the one that is being written.
    last: Index,
    /// Of the entries applied since.
    bytes: u64,
    /// Of the entries applied since this start that the log holds.
    log_bytes: u64,
    /// Who is being sent one, and, once all of it was sent, who still needs what comes behind it.
    sending: Vec<(NodeId, Sent)>,
    /// The end of the latest one that is durable.
    durable: Index,
    writing: bool,
    /// Where the log is to begin, as that one has it.
    keep_from: Index,
    /// What a snapshot has to reach so that the log of all groups can be cut.
    wanted: Index,
    /// Came in this turn, and may be what the protocol says to restore.
    received: Vec<(EntryId, Store)>,
}

impl Snapshots {
    pub(super) fn new(limits: SnapshotLimits, last: Index) -> Self {
        Self {
            limits,
            last,
            bytes: 0,
            log_bytes: 0,
            sending: Vec::new(),
            durable: last,
            writing: false,
            keep_from: last.saturating_sub(limits.keep_entries),
            wanted: 0,
            received: Vec::new(),
        }
    }

    pub(super) fn applied(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.log_bytes += bytes as u64;
    }

    /// The log of all groups is too long, and would be shorter with a snapshot that reaches this.
    pub(super) fn want(&mut self, index: Index) {
        self.wanted = self.wanted.max(index);
        if !self.writing {
            // One that failed is tried again.
            self.last = self.durable;
        }
    }

    /// Whether one is to be taken of what is applied now.
    pub(super) fn is_due(&self, applied: Index) -> bool {
        let SnapshotLimits { every_entries, every_bytes, .. } = self.limits;
        let enough = applied - self.last >= every_entries || self.bytes >= every_bytes;
        let wanted = self.last < self.wanted && self.wanted <= applied;
        applied > self.last && (enough || wanted)
    }

    /// One that ends here is being written.
    pub(super) fn begin(&mut self, last: Index) {
        self.last = last;
        self.bytes = 0;
        self.writing = true;
    }

    /// Writing one ended, which is durable up to `end`; those before which index can go.
    pub(super) fn written(&mut self, end: Option<Index>, raft: &Raft<Bytes>) -> Option<Index> {
        self.writing = false;
        let index = end?;
        if index > self.durable {
            self.durable = index;
            self.keep_from = self.first_kept(raft);
        }
        Some(self.durable)
    }

    /// Up to where the log goes now that a snapshot is durable: a part of what is before its end
    /// stays, within both limits.
    fn first_kept(&self, raft: &Raft<Bytes>) -> Index {
        let from = self.durable.saturating_sub(self.limits.keep_entries);
        let kept = raft.entries(from + 1).take_while(|entry| entry.index <= self.durable);
        let sizes: Vec<_> = kept.map(|entry| (entry.index, payload_bytes(entry))).collect();
        let mut left = self.limits.every_bytes / KEPT_SHARE;
        for (index, bytes) in sizes.into_iter().rev() {
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        from
    }

    pub(super) fn send(&mut self, to: NodeId) {
        self.sending.retain(|(other, _)| *other != to);
        self.sending.push((to, Sent::Partly));
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
        let wanted = self.cut_to();
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
        (self.last, self.durable, self.keep_from) = (last.index, last.index, last.index);
        (self.bytes, self.log_bytes) = (0, 0);
        let found = received.into_iter().find(|(id, _)| *id == last);
        found.expect("the protocol restores what it was told of in this turn").1
    }

    /// What was received in this turn and not wanted goes.
    pub(super) fn forget_received(&mut self) {
        self.received.clear();
    }

    /// Up to where a log that begins after `base` is to be cut now.
    pub(super) fn cut(&self, base: Index, applied: Index) -> Option<Index> {
        let SnapshotLimits { every_entries, every_bytes, .. } = self.limits;
        let too_long = applied.saturating_sub(base) >= every_entries.saturating_mul(MOST_HELD)
            || self.log_bytes >= every_bytes.saturating_mul(MOST_HELD);
        let free = too_long || self.sending.is_empty();
        let cut = self.cut_to();
        (free && cut > base).then_some(cut.min(base + MOST_CUT_AT_ONCE))
    }

    /// The log is about to be cut up to `index`.
    pub(super) fn will_be_cut(&mut self, raft: &Raft<Bytes>, index: Index) {
        let base = raft.base().index;
        let cut = raft.entries(base + 1).take_while(|entry| entry.index <= index);
        self.log_bytes = self.log_bytes.saturating_sub(cut.map(payload_bytes).sum());
    }

    fn cut_to(&self) -> Index {
        self.keep_from.max(self.durable.min(self.wanted))
    }
}

fn payload_bytes(entry: &Entry<Bytes>) -> u64 {
    match &entry.payload {
        Payload::Data(data) => data.len() as u64,
        Payload::Noop | Payload::Membership(_) => 0,
    }
}
