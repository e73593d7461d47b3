//! What a turn comes to, besides writes and messages.
//!
//! Invariant: each waiter is in here once, with a result only after its entry was committed and
//! applied; every other answer says whether the request may have happened.

use std::time::Duration;

use bytes::Bytes;
use raft::{EntryId, Event, Index, Membership, NodeId, Term, TransferError};

use super::Waiters;
use crate::GroupId;
use crate::kv::{Frozen, KvError, Response};
use crate::snapshot::SnapshotMeta;

/// Why a request got no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This member does not lead: the request was not taken, and never happens.
    NotLeader,
    /// Leadership went elsewhere meanwhile: it may have happened, or may still.
    LeaderChanged,
    /// No majority within the time for a request: it may have happened, or may still.
    TimedOut,
    /// This member stops: it may have happened, or may still.
    Stopped,
}

/// A write that was committed, and applied here.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// What the store made of it.
    pub result: Result<Response, KvError>,
    /// Since when the store holds it.
    pub at: Duration,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferRefusal {
    /// Not begun.
    Refused(TransferError),
    /// Begun, and not ended in time, or with another leader.
    Failed,
}

impl TransferRefusal {
    pub(super) fn no_leader() -> Self {
        Self::Refused(TransferError::NotLeader { leader: None })
    }
}

/// What is to be done about a snapshot, away from the loop.
#[derive(Clone, Debug)]
pub enum SnapshotTask {
    /// Write one; [`super::Groups::snapshot_written`] reports its end.
    Write {
        /// What it is of.
        meta: SnapshotMeta,
        /// The state.
        frozen: Frozen,
    },
    /// Remove those of a group before the one with this index.
    RemoveOlder {
        /// The group.
        group: GroupId,
        /// The index.
        index: Index,
    },
    /// Send the newest one of a group; [`super::Groups::snapshot_sent`] reports its end.
    Send {
        /// The group.
        group: GroupId,
        /// To whom.
        to: NodeId,
        /// The term of the leader in whose name it is sent.
        term: Term,
    },
}

/// What a turn comes to; to be emptied by whoever carries it out.
pub struct Outcomes<W: Waiters> {
    /// Of writes.
    pub writes: Vec<(W::Write, Result<Applied, Refusal>)>,
    /// Of reads: the store is recent enough, or is not known to be.
    pub reads: Vec<(W::Read, Result<(), Refusal>)>,
    /// Of transfers of leadership.
    pub transfers: Vec<(W::Transfer, Result<(), TransferRefusal>)>,
    /// Changes of role, term or leader, in order.
    pub events: Vec<(GroupId, Event)>,
    /// The membership in force, where it changed; also after a start.
    pub memberships: Vec<(GroupId, Membership<Bytes>)>,
    /// Memberships that are committed, in order, with their entries, or with the last one of the
    /// snapshot that brought them.
    pub committed_memberships: Vec<(GroupId, EntryId, Membership<Bytes>)>,
    /// What is to be done about snapshots.
    pub snapshots: Vec<SnapshotTask>,
    /// Groups that went on from a leader's snapshot, with its last index.
    pub restored: Vec<(GroupId, Index)>,
    /// Proposals of clients that were taken, and answered without a result.
    pub failed_proposals: u64,
    /// Leaders that were seen to take over.
    pub leader_changes: u64,
}

impl<W: Waiters> Default for Outcomes<W> {
    fn default() -> Self {
        Self {
            writes: Vec::new(),
            reads: Vec::new(),
            transfers: Vec::new(),
            events: Vec::new(),
            memberships: Vec::new(),
            committed_memberships: Vec::new(),
            snapshots: Vec::new(),
            restored: Vec::new(),
            failed_proposals: 0,
            leader_changes: 0,
        }
    }
}
