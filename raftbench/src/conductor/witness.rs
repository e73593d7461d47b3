//! What the victims' peers say: the part of a fault's proof that comes from the cluster itself.

use std::time::Duration;

use chaos::{Testimony, Witness};
use loadgen::clock::RunClock;
use tokio::runtime::Handle;

use super::status::{self, Asked, View};

/// A fault that holds for fewer election timeouts than this need not move the leadership.
const NOTICEABLE_TIMEOUTS: u32 = 3;

/// How long a peer may take to say what it sees.
const PEER_PATIENCE: Duration = Duration::from_millis(300);

/// The nodes that a fault leaves alone.
pub(super) struct Peers {
    pub(super) peers: Vec<Asked>,
    pub(super) victims: Vec<String>,
    /// Before the fault.
    pub(super) leader: Option<(String, u64)>,
    pub(super) term: u64,
    pub(super) clock: RunClock,
    pub(super) runtime: Handle,
    pub(super) election_timeout: Duration,
    /// How long the fault holds.
    pub(super) holds: Option<Duration>,
    pub(super) injected_ns: i64,
    /// Why they need notice nothing, where the fault is of such a kind.
    pub(super) excused: Option<String>,
}

impl Witness for Peers {
    fn ask(&mut self) -> Testimony {
        if let Some(why) = &self.excused {
            return Testimony::NotAsked(why.clone());
        }
        let Some((leader, leader_id)) = &self.leader else {
            return Testimony::NotAsked("no node led when it began".into());
        };
        if !self.victims.contains(leader) {
            return Testimony::NotAsked(format!("{leader} still led: no election was due"));
        }
        if self.peers.is_empty() {
            return Testimony::NotAsked("every node was struck".into());
        }
        let noticeable = self.election_timeout * NOTICEABLE_TIMEOUTS;
        if let Some(holds) = self.holds.filter(|holds| *holds < noticeable) {
            let holds = holds.as_millis();
            let timeout = self.election_timeout.as_millis();
            return Testimony::NotAsked(format!(
                "it was to hold for {holds} ms only, at an election timeout of {timeout} ms"
            ));
        }
        let view = self.runtime.block_on(status::view(&self.peers, &self.clock, PEER_PATIENCE));
        self.read(&view, leader, *leader_id)
    }
}

impl Peers {
    fn read(&self, view: &View, leader: &str, leader_id: u64) -> Testimony {
        let after_ms = (self.clock.now_ns() - self.injected_ns) / 1_000_000;
        for answer in &view.answers {
            let (peer, term) = (&answer.node, answer.status.term);
            if term > self.term {
                let before = self.term;
                return Testimony::Noticed(format!(
                    "{peer} was in term {term} (before: {before}) {after_ms} ms after"
                ));
            }
            if answer.leader_id != leader_id {
                return Testimony::Noticed(format!(
                    "{peer} no longer knew {leader} as the leader {after_ms} ms after"
                ));
            }
        }
        let answered = view.answers.len();
        Testimony::NotYet(format!(
            "{after_ms} ms after, {answered} of {} peers answered, all with {leader} as the leader of term {}",
            self.peers.len(),
            self.term
        ))
    }
}
