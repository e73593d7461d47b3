//! The log's entries, the durable state, and the messages between members.

use alloc::vec::Vec;

/// A member's id; unique in its cluster and never 0.
pub type NodeId = u64;
/// A term; 0 before the first election.
pub type Term = u64;
/// A position in the log; the first entry has index 1.
pub type Index = u64;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<D> {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its position.
    pub index: Index,
    /// What it carries.
    pub payload: Payload<D>,
}

/// Names an entry: by log matching, logs that hold it are equal up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Its position; 0 stands before the first entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<D> {
    /// Starts a term, so that entries of earlier terms can be committed (paper, section 5.4.2).
    Noop,
    /// A command for the state machine.
    Data(D),
    /// Who belongs to the group from here on.
    Membership(Membership<D>),
}

/// Who belongs to a group (paper, section 6; thesis, chapter 4). In force from the moment that it
/// is in the log, committed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership<D> {
    /// Those whose majority decides.
    pub voters: Vec<NodeId>,
    /// The voters of C_old while C_old,new is in force: then their majority is needed as well.
    /// Empty otherwise.
    pub outgoing: Vec<NodeId>,
    /// They get the log and have no say.
    pub learners: Vec<NodeId>,
    /// What the layer above keeps of its members, such as names and addresses.
    pub context: D,
}

/// What must be durable before a vote or a term counts (paper, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Who got this member's vote in it.
    pub voted_for: Option<NodeId>,
}

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<D> {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's term; of a pre-vote request, the term it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body<D>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<D> {
    /// RequestVote, or the question whether one would succeed (thesis, section 9.6).
    Vote {
        /// Only asks; changes no one's term or vote.
        pre_vote: bool,
        /// Index of the candidate's last entry.
        last_index: Index,
        /// Term of the candidate's last entry.
        last_term: Term,
    },
    /// The answer to `Vote`.
    VoteReply {
        /// Of which question.
        pre_vote: bool,
        /// Yes or no.
        granted: bool,
    },
    /// AppendEntries; without entries, a heartbeat.
    Append {
        /// Index of the entry before the first one carried.
        prev_index: Index,
        /// Its term.
        prev_term: Term,
        /// Consecutive, from `prev_index + 1`.
        entries: Vec<Entry<D>>,
        /// The leader's commit index.
        commit: Index,
        /// The latest round of leadership confirmation; the answer echoes it (ReadIndex).
        read_round: u64,
    },
    /// The answer to `Append`: the log matches the leader's up to `match_index`, durably.
    AppendAccepted {
        /// The last index that is durable here and known equal to the leader's.
        match_index: Index,
        /// Echoed.
        read_round: u64,
    },
    /// The answer to `Append`: there is no entry with `prev_index` and `prev_term` here.
    AppendRejected {
        /// Echoed: which probe failed.
        prev_index: Index,
        /// Where to look next: the first index of the conflicting term, or the index after the
        /// last entry (paper, end of section 5.3). 0 where the append's term is past: then only
        /// this answer's term counts.
        hint_index: Index,
        /// The conflicting term; 0 where the log is too short.
        hint_term: Term,
        /// Echoed.
        read_round: u64,
    },
}
