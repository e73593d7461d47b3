//! How a member comes to lead (paper, section 5.2; thesis, sections 4.2.3, 6.2 and 9.6).
//!
//! Invariant: a vote, a candidate's own too, is told only once it is durable, so that no member
//! votes twice in a term across a crash. A candidate's *requests* wait for the same write: they
//! describe its log, which the writes before that one made durable. A candidate that asked earlier
//! could crash, forget term and tail, ask again in the same term with a shorter log, and count an
//! old answer that was given to the longer one.
//!
//! With `pre_vote`, a member asks first whether it could win; who hears from a leader says no.
//! With `check_quorum`, who hears from a leader ignores campaigns altogether. Pre-vote without
//! check-quorum can be held up by a leader that is heard but hears no one: that is the price of
//! that setting, and what an experiment may show.

use alloc::vec::Vec;
use core::time::Duration;

use crate::effects::Reason;
use crate::message::{Body, HardState, Index, NodeId, Payload, Term};
use crate::quorum::Poll;
use crate::raft::{Part, Raft};
use crate::replication::Leading;

/// How often a hint is acted on: whoever is asked may hear of the broken connection a little later.
const HINTED_TRIES: u32 = 3;

/// The answers to one campaign.
#[derive(Default)]
pub(crate) struct Tally {
    answers: Vec<(NodeId, bool)>,
    /// What brought this about, where that was a hint, if it may be acted on again.
    again: Option<Hint>,
    /// The requests have left (a candidate's wait for its own vote).
    asked: bool,
    /// The leader asked for this campaign.
    transfer: bool,
}

impl Tally {
    fn note(&mut self, from: NodeId, granted: bool) {
        if self.answer(from).is_none() {
            self.answers.push((from, granted));
        }
    }

    fn answer(&self, of: NodeId) -> Option<bool> {
        self.answers.iter().find(|(id, _)| *id == of).map(|(_, granted)| *granted)
    }
}

/// The connection to the leader broke.
#[derive(Clone, Copy)]
struct Hint {
    leader: NodeId,
    /// How often it may still be acted on.
    tries: u32,
}

/// When the next campaign is due, drawn anew for every wait that follows one.
pub(crate) struct ElectionTimer {
    random: u64,
    at_least: Duration,
    current: Duration,
    deadline: Duration,
    /// Whose deadline it is, if it is a hint's.
    hint: Option<Hint>,
}

impl ElectionTimer {
    pub(crate) fn new(seed: u64, at_least: Duration, now: Duration) -> Self {
        let mut timer =
            Self { random: seed, at_least, current: at_least, deadline: now, hint: None };
        timer.restart(now);
        timer
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Waits for a timeout newly drawn from [1x, 2x).
    pub(crate) fn restart(&mut self, now: Duration) {
        let span = u64::try_from(self.at_least.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.current = self.at_least + Duration::from_nanos(self.draw() % span);
        self.put_off(now);
    }

    /// Waits for the same timeout again.
    pub(crate) fn put_off(&mut self, now: Duration) {
        self.deadline = now + self.current;
        self.hint = None;
    }

    /// Ends the wait at this time, if that is sooner.
    fn hasten(&mut self, deadline: Duration, hint: Hint) {
        if deadline < self.deadline {
            self.deadline = deadline;
            self.hint = Some(hint);
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): small, and any seed will do.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }
}

impl<D: Clone + AsRef<[u8]>> Raft<D> {
    /// No leader was heard from for a whole timeout.
    pub(crate) fn time_out(&mut self) {
        let hint = self.timer.hint;
        self.timer.restart(self.now);
        // A member whose disk stalls cannot win; raising the term would only disturb others.
        if !self.may_campaign() || !self.durability.hard_state_is_durable() {
            return;
        }
        let reason = hint.map_or(Reason::ElectionTimeout, |_| Reason::ConnectionLost);
        // What only a hint says must not raise the term of a leader that lives.
        if !self.config.pre_vote && hint.is_none() {
            return self.campaign(reason);
        }
        let mut tally = Tally::default();
        tally.note(self.config.id, true);
        if let Some(Hint { leader, tries }) = hint {
            // Dead it says nothing, and alive it says no: nobody need wait for it.
            tally.note(leader, false);
            tally.again = (tries > 1).then_some(Hint { leader, tries: tries - 1 });
        }
        self.part = Part::PreCandidate(tally);
        self.record(reason);
        self.ask(true, false);
        self.settle_campaign();
    }

    /// A follower that loses touch with its leader no longer counts it as alive, and asks soon
    /// whether it could win: in the order of the voters' ids, so that they do not split the vote.
    pub(crate) fn lose_touch(&mut self, peer: NodeId) {
        if !self.config.failover_hint {
            return;
        }
        let Part::Follower(following) = &mut self.part else { return };
        if following.leader != Some(peer) {
            return;
        }
        following.heard = None;
        let before = |&id: &NodeId| id < self.config.id;
        let rank = self.memberships.quorum.except(peer).filter(before).count() as u32;
        let hint = Hint { leader: peer, tries: HINTED_TRIES };
        self.timer.hasten(self.now + self.config.failover_step * rank, hint);
    }

    /// Whether this member promised, by hearing a leader, to elect nobody else yet. Leases rest on it.
    pub(crate) fn promise_holds(&self) -> bool {
        let holds = |at: Duration| self.now < at + self.config.election_timeout;
        self.config.lease_reads && self.promised.is_some_and(holds)
    }

    /// Whether a leader was heard from within the shortest election timeout; a leader hears itself.
    /// Where leases rest on it, also in a later term, and after a restart.
    pub(crate) fn leader_is_alive(&self) -> bool {
        if self.promise_holds() {
            return true;
        }
        match &self.part {
            Part::Leader(_) => true,
            Part::Follower(following) => {
                following.heard.is_some_and(|heard| self.now < heard + self.config.election_timeout)
            }
            Part::PreCandidate(_) | Part::Candidate(_) => false,
        }
    }

    /// Says whether a campaign could have this member's vote. Changes nothing here.
    pub(crate) fn answer_pre_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last_index: Index,
        last_term: Term,
    ) {
        let granted = self.could_vote(from, term)
            && self.log.is_covered_by(last_index, last_term)
            && !self.leader_is_alive();
        // A yes names the term that was asked about; a no tells this member's own, so that one who
        // is behind catches up before asking again.
        let answer_term = if granted { term } else { self.hard_state.term };
        self.send_as(from, answer_term, Body::VoteReply { pre_vote: true, granted });
    }

    /// Votes in the current term, or refuses. A vote is told in `tell_vote`, once it is durable.
    pub(crate) fn answer_vote(&mut self, from: NodeId, last_index: Index, last_term: Term) {
        let term = self.hard_state.term;
        let covered =
            self.log.is_covered_by(last_index, last_term) || self.config.votes_for_any_log();
        if !self.could_vote(from, term) || !covered {
            return self.send(from, Body::VoteReply { pre_vote: false, granted: false });
        }
        if self.hard_state.voted_for != Some(from) {
            self.set_hard_state(HardState { term, voted_for: Some(from) });
        }
        self.vote_owed = true;
        self.timer.restart(self.now);
    }

    /// Takes in an answer to a campaign, if that campaign is still on.
    pub(crate) fn count_vote(&mut self, from: NodeId, term: Term, pre_vote: bool, granted: bool) {
        let asked_about = self.hard_state.term + u64::from(pre_vote && granted);
        match &mut self.part {
            Part::PreCandidate(tally) if pre_vote && term == asked_about => {
                tally.note(from, granted);
            }
            Part::Candidate(tally) if !pre_vote => tally.note(from, granted),
            _ => return,
        }
        self.settle_campaign();
    }

    /// A candidate whose vote for itself has become durable counts it, and asks the others.
    pub(crate) fn count_own_vote(&mut self) {
        let durable = self.durability.hard_state_is_durable() || self.config.votes_before_durable();
        match &mut self.part {
            Part::Candidate(tally) if durable && !tally.asked => {
                tally.asked = true;
                tally.note(self.config.id, true);
                let transfer = tally.transfer;
                self.ask(false, transfer);
                self.settle_campaign();
            }
            _ => {}
        }
    }

    /// Tells a candidate of the vote it got, once that is durable.
    pub(crate) fn tell_vote(&mut self) {
        let durable = self.durability.hard_state_is_durable() || self.config.votes_before_durable();
        if self.vote_owed && durable {
            self.vote_owed = false;
            let candidate = self.hard_state.voted_for.expect("a vote that is owed was given");
            self.send(candidate, Body::VoteReply { pre_vote: false, granted: true });
        }
    }

    /// Whether this member's vote in `term` is free for `candidate`.
    fn could_vote(&self, candidate: NodeId, term: Term) -> bool {
        if term != self.hard_state.term {
            return term > self.hard_state.term;
        }
        match self.hard_state.voted_for {
            Some(given) => given == candidate || self.config.votes_twice(),
            None => !matches!(&self.part, Part::Follower(following) if following.leader.is_some()),
        }
    }

    pub(crate) fn campaign(&mut self, reason: Reason) {
        let term = self.hard_state.term + 1;
        self.set_hard_state(HardState { term, voted_for: Some(self.config.id) });
        let transfer = reason == Reason::TransferReceived;
        self.part = Part::Candidate(Tally { transfer, ..Tally::default() });
        self.timer.restart(self.now);
        self.record(reason);
    }

    fn ask(&mut self, pre_vote: bool, transfer: bool) {
        let term = self.hard_state.term + u64::from(pre_vote);
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let peers: Vec<_> = self.memberships.quorum.except(self.config.id).collect();
        for peer in peers {
            self.send_as(peer, term, Body::Vote { pre_vote, transfer, last_index, last_term });
        }
    }

    fn settle_campaign(&mut self) {
        let (tally, pre_vote) = match &self.part {
            Part::PreCandidate(tally) => (tally, true),
            Part::Candidate(tally) => (tally, false),
            Part::Follower(_) | Part::Leader(_) => return,
        };
        let again = tally.again;
        match (self.memberships.quorum.poll(|id| tally.answer(id)), pre_vote) {
            (Poll::Open, _) => {}
            (Poll::Lost, _) => {
                self.become_follower(None, Reason::VoteLost);
                if let Some(hint) = again {
                    // After the turns of all others. A leader that is heard meanwhile ends it.
                    let others = self.memberships.quorum.except(self.config.id).count() as u32;
                    let wait = self.config.failover_step * (others + 1);
                    self.timer.hasten(self.now + wait, hint);
                }
            }
            (Poll::Won, true) => self.campaign(Reason::PreVoteWon),
            (Poll::Won, false) => self.lead(),
        }
    }

    fn lead(&mut self) {
        let next_index = self.log.last_index() + 1;
        self.part = Part::Leader(Leading::new(next_index));
        self.follow_membership();
        self.log.push(self.hard_state.term, Payload::Noop);
        self.record(Reason::VoteWon);
    }
}
