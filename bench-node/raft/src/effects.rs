//! What comes out of the core: what to write, send, apply and tell.

use alloc::vec::Vec;
use core::time::Duration;

use crate::message::{Entry, EntryId, HardState, Index, Message, NodeId, Term};

/// Everything that the inputs since the last call brought about. The order in which a driver must
/// honour it: `write` goes to the log in the order given (it may send `messages` before that write
/// is durable: what must wait for durability is held back inside the core); `committed` is applied
/// in order; a read is answered once its index is applied.
///
/// A committed entry is durable on a majority, but maybe not yet on this member: what outlives the
/// process must not get ahead of [`Status::persisted_index`].
#[derive(Clone, Debug)]
pub struct Effects<D> {
    /// To be made durable; at most one per call, ids count up by one from 1.
    pub write: Option<Write<D>>,
    /// To be sent; loss, delay, duplication and reordering are all allowed.
    pub messages: Vec<Message<D>>,
    /// Newly committed entries, in order, each exactly once per start.
    pub committed: Vec<Entry<D>>,
    /// Reads that are settled.
    pub reads: Vec<ReadOutcome>,
    /// Changes of role, term or leader, in order.
    pub events: Vec<Event>,
}

/// A write to the log; answered by [`crate::Raft::persisted`] with its id, ids in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<D> {
    /// Counts up by one from 1.
    pub id: u64,
    /// Present where the term or the vote changed.
    pub hard_state: Option<HardState>,
    /// Present where a snapshot took the place of the log up to this entry. Where the log holds
    /// that very entry, what follows it stays; otherwise nothing does.
    pub base: Option<EntryId>,
    /// Consecutive; the first one replaces what the log had at its index and after it.
    pub entries: Vec<Entry<D>>,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Linearizable once `index` is applied.
    Ready {
        /// As given to [`crate::Raft::read`].
        context: u64,
        /// ReadIndex.
        index: Index,
    },
    /// Leadership was lost before it could be confirmed.
    Lost {
        /// As given to [`crate::Raft::read`].
        context: u64,
    },
}

/// A proposal or read that reached a member which does not lead. It never happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// Who leads, as far as this member knows.
    pub leader: Option<NodeId>,
}

/// A member's part in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits for, a leader.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a role or a term changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The member started.
    Started,
    /// No leader was heard from for a whole election timeout.
    ElectionTimeout,
    /// A majority said that it would vote for this member.
    PreVoteWon,
    /// A majority voted for this member.
    VoteWon,
    /// A majority refused.
    VoteLost,
    /// A message carried a higher term.
    HigherTerm,
    /// The leader of the term was heard from.
    LeaderHeard,
    /// A leader did not hear from a majority for an election timeout.
    QuorumLost,
}

/// A change of role, term or known leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The role from now on.
    pub role: Role,
    /// The term from now on.
    pub term: Term,
    /// The leader, where known.
    pub leader: Option<NodeId>,
    /// Why.
    pub reason: Reason,
}

/// What a member found on its disk.
#[derive(Clone, Debug)]
pub struct Recovered<D> {
    /// Term and vote.
    pub hard_state: HardState,
    /// The log from index 1, consecutive.
    pub entries: Vec<Entry<D>>,
}

impl<D> Default for Recovered<D> {
    fn default() -> Self {
        Self { hard_state: HardState::default(), entries: Vec::new() }
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader, where known.
    pub leader: Option<NodeId>,
    /// Index of its last entry.
    pub last_index: Index,
    /// Its commit index.
    pub commit_index: Index,
    /// The last index that its own disk is known to hold.
    pub persisted_index: Index,
}

/// What a leader knows of one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The follower.
    pub id: NodeId,
    /// How it is being replicated to.
    pub state: PeerState,
    /// Up to here it holds the leader's log durably, as far as this leader was told in its term.
    pub match_index: Index,
    /// The next entry to send.
    pub next_index: Index,
    /// Appends with entries on their way.
    pub in_flight: usize,
    /// When it was last heard from; before that, when this leader's term of office began.
    pub heard: Duration,
}

/// How a leader replicates to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Searches where the logs meet, one empty append at a time.
    Probe,
    /// Sends on without waiting, within the window.
    Replicate,
}
