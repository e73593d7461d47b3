//! Proposals that wait for their commit, and reads that wait for their index.
//!
//! Invariant: whoever waits is answered once, and with a result only after the entry of its own
//! term was committed and applied. Everything else says that the outcome is unknown.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use raft::{Index, Term};

use super::outcomes::{Applied, Refusal};

/// Waiters, with what they are told.
type Outcomes<T, O> = Vec<(T, Result<O, Refusal>)>;

struct Proposal<T> {
    term: Term,
    index: Index,
    proposed_at: Duration,
    waiter: T,
}

/// Proposals in the order of their index.
pub(super) struct Proposals<T> {
    waiting: VecDeque<Proposal<T>>,
}

impl<T> Default for Proposals<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Proposals<T> {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add(&mut self, term: Term, index: Index, now: Duration, waiter: T) {
        self.waiting.push_back(Proposal { term, index, proposed_at: now, waiter });
    }

    /// Takes out who waits for the entry that was just committed, and since when. Where that entry
    /// is of another term, the proposal was overwritten, and is told so.
    pub(super) fn committed(
        &mut self,
        term: Term,
        index: Index,
        outcomes: &mut Outcomes<T, Applied>,
    ) -> Option<(Duration, T)> {
        let proposal = self.waiting.pop_front_if(|front| front.index == index)?;
        if proposal.term == term {
            return Some((proposal.proposed_at, proposal.waiter));
        }
        outcomes.push((proposal.waiter, Err(Refusal::LeaderChanged)));
        None
    }

    /// Answers all; how many there were.
    pub(super) fn refuse_all(
        &mut self,
        refusal: Refusal,
        outcomes: &mut Outcomes<T, Applied>,
    ) -> u64 {
        self.refuse_while(|_| true, refusal, outcomes)
    }

    /// Answers those of earlier terms; how many there were. The log may hold other entries at their
    /// indexes, and their order is no longer that of the indexes.
    pub(super) fn refuse_before(
        &mut self,
        term: Term,
        refusal: Refusal,
        outcomes: &mut Outcomes<T, Applied>,
    ) -> u64 {
        self.refuse_while(|front| front.term < term, refusal, outcomes)
    }

    /// Answers those that wait longer than `patience`; how many there were.
    pub(super) fn expire(
        &mut self,
        now: Duration,
        patience: Duration,
        outcomes: &mut Outcomes<T, Applied>,
    ) -> u64 {
        let overdue = |front: &Proposal<T>| front.proposed_at + patience <= now;
        self.refuse_while(overdue, Refusal::TimedOut, outcomes)
    }

    fn refuse_while(
        &mut self,
        refused: impl Fn(&Proposal<T>) -> bool,
        refusal: Refusal,
        outcomes: &mut Outcomes<T, Applied>,
    ) -> u64 {
        let mut count = 0;
        while let Some(proposal) = self.waiting.pop_front_if(|front| refused(front)) {
            outcomes.push((proposal.waiter, Err(refusal)));
            count += 1;
        }
        count
    }
}

struct Asked<T> {
    at: Duration,
    waiters: Vec<T>,
}

/// Reads, grouped by the turn that took them: one confirmation serves them all.
pub(super) struct Reads<T> {
    next_context: u64,
    unconfirmed: BTreeMap<u64, Asked<T>>,
    /// Confirmed, by the index that must be applied first.
    unapplied: BTreeMap<Index, Vec<T>>,
}

impl<T> Default for Reads<T> {
    fn default() -> Self {
        Self { next_context: 0, unconfirmed: BTreeMap::new(), unapplied: BTreeMap::new() }
    }
}

impl<T> Reads<T> {
    /// The context under which to ask for a confirmation.
    pub(super) fn add(&mut self, now: Duration, waiters: Vec<T>) -> u64 {
        self.next_context += 1;
        self.unconfirmed.insert(self.next_context, Asked { at: now, waiters });
        self.next_context
    }

    pub(super) fn confirmed(&mut self, context: u64, index: Index) {
        if let Some(asked) = self.unconfirmed.remove(&context) {
            self.unapplied.entry(index).or_default().extend(asked.waiters);
        }
    }

    pub(super) fn refuse(
        &mut self,
        context: u64,
        refusal: Refusal,
        outcomes: &mut Outcomes<T, ()>,
    ) {
        if let Some(asked) = self.unconfirmed.remove(&context) {
            tell(asked.waiters, Err(refusal), outcomes);
        }
    }

    pub(super) fn applied(&mut self, applied: Index, outcomes: &mut Outcomes<T, ()>) {
        while let Some(entry) = self.unapplied.first_entry() {
            if *entry.key() > applied {
                return;
            }
            tell(entry.remove(), Ok(()), outcomes);
        }
    }

    pub(super) fn expire(
        &mut self,
        now: Duration,
        patience: Duration,
        outcomes: &mut Outcomes<T, ()>,
    ) {
        while let Some(entry) = self.unconfirmed.first_entry() {
            if entry.get().at + patience > now {
                return;
            }
            tell(entry.remove().waiters, Err(Refusal::TimedOut), outcomes);
        }
    }

    pub(super) fn refuse_all(&mut self, refusal: Refusal, outcomes: &mut Outcomes<T, ()>) {
        for (_, asked) in std::mem::take(&mut self.unconfirmed) {
            tell(asked.waiters, Err(refusal), outcomes);
        }
        for (_, waiters) in std::mem::take(&mut self.unapplied) {
            tell(waiters, Err(refusal), outcomes);
        }
    }
}

fn tell<T>(waiters: Vec<T>, outcome: Result<(), Refusal>, outcomes: &mut Outcomes<T, ()>) {
    outcomes.extend(waiters.into_iter().map(|waiter| (waiter, outcome)));
}
