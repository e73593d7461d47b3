//! Proposals that wait for their commit, and reads that wait for their index.
//!
//! Invariant: whoever waits is answered once, and with a result only after the entry of its own
//! term was committed and applied. Everything else says that the outcome is unknown.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use raft::{Index, Term};
use tokio::sync::oneshot;

use crate::kv::{KvError, Response};

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

/// A proposal that was committed, and applied here.
pub(crate) struct Applied {
    /// What the store made of it.
    pub result: Result<Response, KvError>,
    /// Since when the store holds it.
    pub at: Instant,
}

/// What a proposal comes to.
pub(super) type Outcome = Result<Applied, Refusal>;
/// Tells a proposer.
pub(crate) type OutcomeSender = oneshot::Sender<Outcome>;
/// Tells a reader that the store is recent enough.
pub(crate) type ReadSender = oneshot::Sender<Result<(), Refusal>>;

struct Proposal {
    term: Term,
    index: Index,
    proposed_at: Instant,
    reply: OutcomeSender,
}

/// Proposals in the order of their index.
#[derive(Default)]
pub(super) struct Proposals {
    waiting: VecDeque<Proposal>,
}

impl Proposals {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add(&mut self, term: Term, index: Index, now: Instant, reply: OutcomeSender) {
        self.waiting.push_back(Proposal { term, index, proposed_at: now, reply });
    }

    /// Takes out who waits for the entry that was just committed. Where that entry is of another
    /// term, the proposal was overwritten, and is told so.
    pub(super) fn committed(
        &mut self,
        term: Term,
        index: Index,
    ) -> Option<(Instant, OutcomeSender)> {
        let proposal = self.waiting.pop_front_if(|front| front.index == index)?;
        if proposal.term == term {
            return Some((proposal.proposed_at, proposal.reply));
        }
        // The caller may be gone; then nobody waits for the answer.
        let _ = proposal.reply.send(Err(Refusal::LeaderChanged));
        None
    }

    /// Answers all; how many there were.
    pub(super) fn refuse_all(&mut self, refusal: Refusal) -> u64 {
        let refused = self.waiting.len() as u64;
        for proposal in self.waiting.drain(..) {
            let _ = proposal.reply.send(Err(refusal));
        }
        refused
    }

    /// Answers those of earlier terms; how many there were. The log may hold other entries at their
    /// indexes, and their order is no longer that of the indexes.
    pub(super) fn refuse_before(&mut self, term: Term, refusal: Refusal) -> u64 {
        let mut refused = 0;
        while let Some(proposal) = self.waiting.pop_front_if(|front| front.term < term) {
            let _ = proposal.reply.send(Err(refusal));
            refused += 1;
        }
        refused
    }

    /// Answers those that wait longer than `patience`; how many there were.
    pub(super) fn expire(&mut self, now: Instant, patience: Duration) -> u64 {
        let mut expired = 0;
        while let Some(proposal) =
            self.waiting.pop_front_if(|front| front.proposed_at + patience <= now)
        {
            let _ = proposal.reply.send(Err(Refusal::TimedOut));
            expired += 1;
        }
        expired
    }
}

struct ReadGroup {
    asked_at: Instant,
    replies: Vec<ReadSender>,
}

/// Reads, grouped by the turn of the loop that took them: one confirmation serves them all.
#[derive(Default)]
pub(super) struct Reads {
    next_context: u64,
    unconfirmed: BTreeMap<u64, ReadGroup>,
    /// Confirmed, by the index that must be applied first.
    unapplied: BTreeMap<Index, Vec<ReadSender>>,
}

impl Reads {
    /// The context under which to ask for a confirmation.
    pub(super) fn add(&mut self, now: Instant, replies: Vec<ReadSender>) -> u64 {
        self.next_context += 1;
        self.unconfirmed.insert(self.next_context, ReadGroup { asked_at: now, replies });
        self.next_context
    }

    pub(super) fn confirmed(&mut self, context: u64, index: Index) {
        if let Some(group) = self.unconfirmed.remove(&context) {
            self.unapplied.entry(index).or_default().extend(group.replies);
        }
    }

    pub(super) fn refuse(&mut self, context: u64, refusal: Refusal) {
        if let Some(group) = self.unconfirmed.remove(&context) {
            refuse(group.replies, refusal);
        }
    }

    pub(super) fn applied(&mut self, applied: Index) {
        while let Some(entry) = self.unapplied.first_entry() {
            if *entry.key() > applied {
                return;
            }
            for reply in entry.remove() {
                let _ = reply.send(Ok(()));
            }
        }
    }

    pub(super) fn expire(&mut self, now: Instant, patience: Duration) {
        while let Some(entry) = self.unconfirmed.first_entry() {
            if entry.get().asked_at + patience > now {
                return;
            }
            refuse(entry.remove().replies, Refusal::TimedOut);
        }
    }

    pub(super) fn refuse_all(&mut self, refusal: Refusal) {
        for (_, group) in std::mem::take(&mut self.unconfirmed) {
            refuse(group.replies, refusal);
        }
        for (_, replies) in std::mem::take(&mut self.unapplied) {
            refuse(replies, refusal);
        }
    }
}

fn refuse(replies: Vec<ReadSender>, refusal: Refusal) {
    for reply in replies {
        let _ = reply.send(Err(refusal));
    }
}
