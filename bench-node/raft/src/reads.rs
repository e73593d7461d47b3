//! Linearizable reads without a log entry (ReadIndex: thesis, section 6.4; leases: section 6.4.1).
//!
//! Invariant: a read is answered only after a quorum echoed a round that started after the read
//! arrived, with the commit index of that round's start, in a term whose first entry is committed.
//! Then every write that was acknowledged before the read is at or below that index: one
//! acknowledged by a later leader would have left a quorum that refuses the echo.
//!
//! One round is on its way at a time; reads that come meanwhile share the next one. Every append
//! carries the latest round, so that heartbeats repeat what was lost.
//!
//! # Leases
//! With `lease_reads`, a read need not wait while a quorum is known to refuse everyone else its
//! votes. Each member of the quorum that echoed a round promised, when it heard that round, to
//! ignore campaigns for an election timeout by its own clock; the leader counts from the round's
//! *start* by its own, and stops early enough for both clocks to be off by `max_clock_drift_percent`
//! ([`crate::Config::lease`]). The promise outlives what the member hears next: a higher term in
//! an old answer, or a restart (see `Raft::leader_is_alive`).
//!
//! TimeoutNow asks members to break that promise. A leader that sent one has no lease for the rest
//! of its term, not only until the next round: the message may be on its way for longer than any
//! round, and the campaign that it starts is answered whenever it comes.

use alloc::vec::Vec;
use core::time::Duration;

use crate::effects::ReadOutcome;
use crate::message::Index;

#[derive(Default)]
pub(crate) struct Reads {
    /// The latest round started.
    round: u64,
    /// What it is for.
    asked: Option<Asked>,
    /// Waiting for the next round.
    waiting: Vec<u64>,
    lease: Lease,
}

struct Asked {
    started: Duration,
    index: Index,
    contexts: Vec<u64>,
}

#[derive(Default)]
enum Lease {
    #[default]
    None,
    Until(Duration),
    GivenUp,
}

impl Reads {
    pub(crate) fn push(&mut self, context: u64) {
        self.waiting.push(context);
    }

    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Starts a round if one is needed, for reads or to `renew` the lease, and none is on its way;
    /// true if so.
    pub(crate) fn start(&mut self, commit_index: Index, now: Duration, renew: bool) -> bool {
        if self.asked.is_some() || (self.waiting.is_empty() && !renew) {
            return false;
        }
        self.round += 1;
        let contexts = core::mem::take(&mut self.waiting);
        self.asked = Some(Asked { started: now, index: commit_index, contexts });
        true
    }

    /// A quorum echoed `round`; that is good for a lease of this length from its start.
    pub(crate) fn confirm(
        &mut self,
        round: u64,
        lease: Option<Duration>,
        outcomes: &mut Vec<ReadOutcome>,
    ) {
        if round < self.round {
            return;
        }
        let Some(Asked { started, index, contexts }) = self.asked.take() else { return };
        if let (Some(lease), Lease::None | Lease::Until(_)) = (lease, &self.lease) {
            self.lease = Lease::Until(started + lease);
        }
        let ready = |context| ReadOutcome::Ready { context, index };
        outcomes.extend(contexts.into_iter().map(ready));
    }

    /// Answers what waits, if the lease holds.
    pub(crate) fn answer_by_lease(
        &mut self,
        commit_index: Index,
        now: Duration,
        outcomes: &mut Vec<ReadOutcome>,
    ) {
        if let Lease::Until(end) = self.lease
            && now < end
        {
            let ready = |context| ReadOutcome::Ready { context, index: commit_index };
            outcomes.extend(self.waiting.drain(..).map(ready));
        }
    }

    /// Whether a new round is wanted to keep the lease: half of it is over, or there is none yet.
    pub(crate) fn wants_renewal(&self, now: Duration, lease: Option<Duration>) -> bool {
        match (&self.lease, lease) {
            (_, None) | (Lease::GivenUp, _) => false,
            (Lease::None, Some(_)) => true,
            (Lease::Until(end), Some(lease)) => *end <= now + lease / 2,
        }
    }

    /// Someone else may be elected from now on.
    pub(crate) fn give_up_lease(&mut self) {
        self.lease = Lease::GivenUp;
    }

    /// Leadership ended.
    pub(crate) fn lose(self, outcomes: &mut Vec<ReadOutcome>) {
        let asked = self.asked.map(|asked| asked.contexts).unwrap_or_default();
        outcomes.extend(
            asked.into_iter().chain(self.waiting).map(|context| ReadOutcome::Lost { context }),
        );
    }
}
