//! The leader's side of replication (paper, sections 5.3 and 5.4; thesis, section 10.2).
//!
//! Invariant: `match_index` is what the follower said is durable in this term, and only grows; the
//! leader counts itself up to what its own disk holds. Only an entry of the current term is
//! committed by counting (paper, section 5.4.2).
//!
//! A new leader is optimistic: it sends on to every follower as if all were equal. A rejection
//! makes it probe, with empty appends and one at a time, until the logs meet; then it sends on. A
//! heartbeat is an empty append after the last entry sent, so a follower that lost any of them
//! says so at the next heartbeat. A follower that lacks what the log no longer has is sent a snapshot
//! by the layer above, and only heartbeats by this one, until it says that it holds the log's
//! beginning.
//!
//! Learners are followers whose answers count nowhere. One that is to vote must have caught up: it
//! went through a round, from the leader's last entry at its begin to holding that, in less than an
//! election timeout (thesis, section 4.2.1).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::effects::{PeerState, PeerStatus, Reason};
use crate::message::{Body, Index, Message, NodeId, Term};
use crate::raft::{Part, Raft};
use crate::reads::Reads;
use crate::transfer::Transfer;

/// What a leader knows in its term.
pub(crate) struct Leading {
    pub(crate) peers: Vec<Peer>,
    pub(crate) reads: Reads,
    pub(crate) transfer: Option<Transfer>,
    /// The first entry of the term.
    pub(crate) first_index: Index,
}

/// What a leader knows of one follower.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) match_index: Index,
    next_index: Index,
    state: State,
    /// The last index of each append with entries that is on its way.
    in_flight: VecDeque<Index>,
    pub(crate) heard: Duration,
    sent: Duration,
    /// An append is due even if it carries nothing new.
    pub(crate) due: bool,
    /// The latest round of reads that was echoed.
    read_round: u64,
    /// The commit index last told, and when it must be told anew.
    commit_told: Index,
    notice: Option<Duration>,
    catch_up: CatchUp,
}

enum State {
    Probe {
        asked: bool,
    },
    Replicate,
    /// The layer above has been asked to send a snapshot.
    Snapshot,
}

/// A round of catching up: from its beginning until all that the log held then is held there.
struct CatchUp {
    target: Index,
    began: Duration,
    /// The last whole round was short enough.
    quick: bool,
}

impl Leading {
    /// In office, without peers yet.
    pub(crate) fn new(first_index: Index) -> Self {
        Self { peers: Vec::new(), reads: Reads::default(), transfer: None, first_index }
    }

    pub(crate) fn add_peer(&mut self, id: NodeId, next_index: Index, now: Duration) {
        self.peers.push(Peer {
            id,
            match_index: 0,
            next_index,
            state: State::Replicate,
            in_flight: VecDeque::new(),
            heard: now,
            sent: now,
            // Whoever is new should not wait for a heartbeat to learn whom to follow.
            due: true,
            read_round: 0,
            commit_told: 0,
            notice: None,
            catch_up: CatchUp { target: next_index - 1, began: now, quick: false },
        });
    }

    pub(crate) fn is_caught_up(&self, id: NodeId, now: Duration, within: Duration) -> bool {
        let recent = |since: Duration| now < since + within;
        self.peers.iter().any(|peer| {
            let CatchUp { began, quick, .. } = peer.catch_up;
            peer.id == id && quick && recent(began) && recent(peer.heard)
        })
    }

    /// Something known of every voter: `own` of the leader itself.
    fn of<T>(&self, id: NodeId, own: T, theirs: impl Fn(&Peer) -> T) -> T {
        self.peers.iter().find(|peer| peer.id == id).map_or(own, theirs)
    }
}

impl Peer {
    pub(crate) fn status(&self) -> PeerStatus {
        PeerStatus {
            id: self.id,
            state: match self.state {
                State::Probe { .. } => PeerState::Probe,
                State::Replicate => PeerState::Replicate,
                State::Snapshot => PeerState::Snapshot,
            },
            match_index: self.match_index,
            next_index: self.next_index,
            in_flight: self.in_flight.len(),
            heard: self.heard,
        }
    }

    fn hear(&mut self, now: Duration, read_round: u64) {
        self.heard = now;
        self.read_round = self.read_round.max(read_round);
    }

    fn probe(&mut self, next_index: Index) {
        self.state = State::Probe { asked: false };
        self.next_index = next_index;
        self.in_flight.clear();
    }
}

impl<D: Clone + AsRef<[u8]>> Raft<D> {
    /// A leader's timers: check-quorum, heartbeats, commit notices.
    pub(crate) fn tick_leader(&mut self) {
        let Part::Leader(leading) = &mut self.part else { return };
        for peer in &mut leading.peers {
            peer.due |= peer.sent + self.config.heartbeat <= self.now
                || peer.notice.is_some_and(|notice| notice <= self.now);
        }
        self.tick_transfer();
        if self.config.check_quorum && !self.config.stale_leader_stays() {
            let Part::Leader(leading) = &self.part else { return };
            if self.quorum_deadline(leading) <= self.now {
                self.become_follower(None, Reason::QuorumLost);
            }
        }
    }

    /// What is due soon is due now.
    pub(crate) fn hasten_heartbeats(&mut self) {
        let (soon, heartbeat) = (self.now + self.config.heartbeat / 2, self.config.heartbeat);
        if let Part::Leader(leading) = &mut self.part {
            leading.peers.iter_mut().for_each(|peer| peer.due |= peer.sent + heartbeat <= soon);
        }
    }

    pub(crate) fn leader_deadline(&self, leading: &Leading) -> Duration {
        let steps_down = self.config.check_quorum && !self.config.stale_leader_stays();
        let quorum = steps_down.then(|| self.quorum_deadline(leading));
        leading
            .peers
            .iter()
            .flat_map(|peer| [Some(peer.sent + self.config.heartbeat), peer.notice])
            .chain([quorum, leading.transfer.as_ref().map(Transfer::deadline)])
            .flatten()
            .min()
            // Alone there is nothing to do, but a time that can be added to is easier to live with.
            .unwrap_or(self.now + self.config.heartbeat)
    }

    /// When leadership ends, unless a majority is heard from before.
    fn quorum_deadline(&self, leading: &Leading) -> Duration {
        let heard =
            self.memberships.quorum.reached(|id| leading.of(id, self.now, |peer| peer.heard));
        heard + self.config.election_timeout
    }

    pub(crate) fn note_accepted(&mut self, from: NodeId, match_index: Index, read_round: u64) {
        let last_index = self.log.last_index();
        let (now, election_timeout) = (self.now, self.config.election_timeout);
        let Some(peer) = self.peer(from) else { return };
        if match_index > last_index {
            return; // Not an answer to anything this leader sent.
        }
        peer.hear(now, read_round);
        peer.match_index = peer.match_index.max(match_index);
        while peer.in_flight.pop_front_if(|last| *last <= match_index).is_some() {}
        if match_index >= peer.catch_up.target {
            let quick = now < peer.catch_up.began + election_timeout;
            peer.catch_up = CatchUp { target: last_index, began: now, quick };
        }
        // An acceptance that ends before the probed entry is an old one, or the follower's disk is
        // behind its log: only one that reaches it says that the logs meet there.
        if match_index + 1 >= peer.next_index {
            peer.next_index = match_index + 1;
            peer.state = State::Replicate;
        }
    }

    pub(crate) fn note_rejected(
        &mut self,
        from: NodeId,
        prev_index: Index,
        hint_index: Index,
        hint_term: Term,
        read_round: u64,
    ) {
        let (now, hints) = (self.now, self.config.conflict_hints);
        let ours = self.log.last_index_of(hint_term).filter(|_| hint_term > 0);
        let Some(peer) = self.peer(from) else { return };
        peer.hear(now, read_round);
        let stale = match peer.state {
            // What was durable there once, and what was not sent, cannot be missing.
            State::Replicate => prev_index <= peer.match_index || prev_index >= peer.next_index,
            State::Probe { .. } => prev_index + 1 != peer.next_index,
            State::Snapshot => true,
        };
        if stale {
            return;
        }
        // Without hints, one index back. With them, to the end of the conflicting term in this log,
        // or, where it never had that term, before its beginning in theirs.
        let next_index = match ours {
            _ if !hints => prev_index,
            Some(last) => last + 1,
            None => hint_index,
        };
        let next_index = next_index.min(prev_index).max(peer.match_index + 1);
        peer.probe(next_index);
    }

    /// Commits what a majority holds durably, up to an entry of the current term.
    pub(crate) fn advance_commit(&mut self) {
        let Part::Leader(leading) = &self.part else { return };
        let own = if self.config.acknowledges_before_durable() {
            self.log.last_index()
        } else {
            self.durability.persisted_index()
        };
        let index = self.quorum_index(leading, own);
        let of_this_term = index >= leading.first_index || self.config.commits_any_term();
        if index > self.commit_index && of_this_term {
            self.commit_index = index;
        }
    }

    /// Up to here a quorum holds the log durably, if the leader itself does up to `own`.
    pub(crate) fn quorum_index(&self, leading: &Leading, own: Index) -> Index {
        self.memberships.quorum.reached(|id| leading.of(id, own, |peer| peer.match_index))
    }

    /// Answers reads whose round a quorum has echoed or that a lease covers, and starts the next
    /// round.
    pub(crate) fn settle_reads(&mut self) {
        let (now, lease, commit_index) = (self.now, self.config.lease(), self.commit_index);
        let Part::Leader(leading) = &mut self.part else { return };
        loop {
            let own = leading.reads.round();
            let quorum = &self.memberships.quorum;
            let echoed = quorum.reached(|id| leading.of(id, own, |peer| peer.read_round));
            leading.reads.confirm(echoed, lease, &mut self.read_outcomes);
            // Before the first entry of the term is committed, this leader may not know what is.
            let knows_commit =
                commit_index >= leading.first_index || self.config.reads_before_noop();
            if !knows_commit {
                return;
            }
            leading.reads.answer_by_lease(commit_index, now, &mut self.read_outcomes);
            let renew = leading.reads.wants_renewal(now, lease);
            if !leading.reads.start(commit_index, now, renew) {
                return;
            }
            if self.config.reads_without_majority() {
                leading.reads.confirm(leading.reads.round(), lease, &mut self.read_outcomes);
            }
            leading.peers.iter_mut().for_each(|peer| peer.due = true);
        }
    }

    /// Sends every follower what it lacks, within its window.
    pub(crate) fn replicate(&mut self) {
        let Part::Leader(leading) = &mut self.part else { return };
        let read_round = leading.reads.round();
        let base = self.log.base();
        for peer in &mut leading.peers {
            if self.commit_index.min(peer.match_index) > peer.commit_told {
                peer.notice.get_or_insert(self.now + self.config.commit_notice);
            }
            peer.due |= peer.notice.is_some_and(|notice| notice <= self.now);
            if peer.next_index <= base.index && !matches!(peer.state, State::Snapshot) {
                peer.state = State::Snapshot;
                peer.next_index = base.index + 1;
                peer.in_flight.clear();
                self.snapshots.push(peer.id);
            }
            loop {
                let room = matches!(peer.state, State::Replicate)
                    && peer.in_flight.len() < self.config.max_inflight_appends;
                let entries = if room {
                    let (count, bytes) =
                        (self.config.max_append_entries, self.config.max_append_bytes);
                    self.log.batch(peer.next_index, count, bytes)
                } else {
                    Vec::new()
                };
                let probing = matches!(peer.state, State::Probe { asked: false });
                if entries.is_empty() && !peer.due && !probing {
                    break;
                }
                // While a snapshot is on its way, the log may go on without its beginning.
                let prev_index = (peer.next_index - 1).max(base.index);
                let prev_term = self.log.term(prev_index).expect("the log reaches every follower");
                if let Some(last) = entries.last() {
                    peer.next_index = last.index + 1;
                    peer.in_flight.push_back(last.index);
                }
                if let State::Probe { asked } = &mut peer.state {
                    *asked = true;
                }
                peer.due = false;
                peer.sent = self.now;
                peer.commit_told = self.commit_index;
                peer.notice = None;
                self.outbox.push(Message {
                    from: self.config.id,
                    to: peer.id,
                    term: self.hard_state.term,
                    body: Body::Append {
                        prev_index,
                        prev_term,
                        entries,
                        commit: self.commit_index,
                        read_round,
                    },
                });
            }
        }
    }

    /// Asks a member that was being sent a snapshot where its log ends now.
    pub(crate) fn retry_after_snapshot(&mut self, to: NodeId) {
        let next_index = self.log.base().index + 1;
        if let Some(peer) = self.peer(to)
            && matches!(peer.state, State::Snapshot)
        {
            peer.probe(next_index);
        }
    }

    fn peer(&mut self, id: NodeId) -> Option<&mut Peer> {
        match &mut self.part {
            Part::Leader(leading) => leading.peers.iter_mut().find(|peer| peer.id == id),
            _ => None,
        }
    }
}
