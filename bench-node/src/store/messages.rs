//! What members say to each other, of all groups: batches by peer, and heartbeats as one message.
//!
//! Invariant: a batch says exactly what its messages said. Only an empty append and its acceptance
//! are folded, and only where a turn has several of them for one peer; order is not kept across
//! that, which the protocol allows.

use bytes::Bytes;
use raft::{Body, Index, Message, NodeId, Term};

use crate::GroupId;

/// What one turn of a member has for another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// Each of one group.
    pub messages: Vec<(GroupId, Message<Bytes>)>,
    /// Empty appends of several groups.
    pub heartbeats: Vec<Heartbeat>,
    /// Acceptances of several groups.
    pub answers: Vec<HeartbeatAnswer>,
}

/// An append without entries; the fields are those of [`Body::Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its group.
    pub group: GroupId,
    /// The sender's term.
    pub term: Term,
    /// Index of the last entry sent.
    pub prev_index: Index,
    /// Its term.
    pub prev_term: Term,
    /// The leader's commit index.
    pub commit: Index,
    /// The latest round of reads.
    pub read_round: u64,
}

/// An acceptance; the fields are those of [`Body::AppendAccepted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// Its group.
    pub group: GroupId,
    /// The sender's term.
    pub term: Term,
    /// What is durable and known equal.
    pub match_index: Index,
    /// Echoed.
    pub read_round: u64,
}

impl Batch {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.heartbeats.is_empty() && self.answers.is_empty()
    }

    /// All that it says, message by message.
    pub(super) fn into_messages(self) -> impl Iterator<Item = (GroupId, Message<Bytes>)> {
        let Self { from, to, messages, heartbeats, answers } = self;
        let heartbeats = heartbeats.into_iter().map(move |heartbeat| {
            let Heartbeat { group, term, prev_index, prev_term, commit, read_round } = heartbeat;
            let entries = Vec::new();
            let body = Body::Append { prev_index, prev_term, entries, commit, read_round };
            (group, Message { from, to, term, body })
        });
        let answers = answers.into_iter().map(move |answer| {
            let HeartbeatAnswer { group, term, match_index, read_round } = answer;
            let body = Body::AppendAccepted { match_index, read_round };
            (group, Message { from, to, term, body })
        });
        messages.into_iter().chain(heartbeats).chain(answers)
    }

    /// Folds heartbeats and their answers, where there are several.
    fn coalesce(&mut self) {
        let heartbeats = self.messages.iter().filter(|(_, m)| is_heartbeat(&m.body)).count();
        let answers = self.messages.iter().filter(|(_, m)| is_answer(&m.body)).count();
        if heartbeats < 2 && answers < 2 {
            return;
        }
        for (group, message) in std::mem::take(&mut self.messages) {
            let term = message.term;
            match message.body {
                Body::Append { prev_index, prev_term, ref entries, commit, read_round }
                    if heartbeats > 1 && entries.is_empty() =>
                {
                    let heartbeat =
                        Heartbeat { group, term, prev_index, prev_term, commit, read_round };
                    self.heartbeats.push(heartbeat);
                }
                Body::AppendAccepted { match_index, read_round } if answers > 1 => {
                    self.answers.push(HeartbeatAnswer { group, term, match_index, read_round });
                }
                _ => self.messages.push((group, message)),
            }
        }
    }
}

fn is_heartbeat(body: &Body<Bytes>) -> bool {
    matches!(body, Body::Append { entries, .. } if entries.is_empty())
}

fn is_answer(body: &Body<Bytes>) -> bool {
    matches!(body, Body::AppendAccepted { .. })
}

/// The batches of a turn.
pub(super) struct Outgoing {
    from: NodeId,
    /// By peer; they stay, empty, from turn to turn.
    batches: Vec<Batch>,
}

impl Outgoing {
    pub(super) fn of(from: NodeId) -> Self {
        Self { from, batches: Vec::new() }
    }

    pub(super) fn push(&mut self, group: GroupId, message: Message<Bytes>) {
        let to = message.to;
        match self.batches.iter_mut().find(|batch| batch.to == to) {
            Some(batch) => batch.messages.push((group, message)),
            None => {
                let messages = vec![(group, message)];
                self.batches.push(Batch { from: self.from, to, messages, ..Batch::default() });
            }
        }
    }

    pub(super) fn coalesce(&mut self) {
        self.batches.iter_mut().for_each(Batch::coalesce);
    }

    pub(super) fn batches(&mut self) -> &mut [Batch] {
        &mut self.batches
    }
}
