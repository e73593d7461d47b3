//! Recognises from outside what the members did, for the tally.

use std::collections::{HashMap, HashSet};

use raft::{
    Body, ChangeError, Effects, Entry, Index, Message, NodeId, Payload, PeerState, ReadOutcome,
    Reason, Role, Status, Term,
};

use crate::harness::cluster::Cluster;
use crate::harness::{Command, Membership};
use crate::tally::Tally;

#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) tally: Tally,
    roles: HashMap<NodeId, Role>,
    candidates: HashMap<Term, NodeId>,
    delivered: HashMap<(NodeId, NodeId), u64>,
    /// Per leader and peer: where it was last probed, and the commit index it was last told.
    probed: HashMap<(NodeId, NodeId), Index>,
    told: HashMap<(NodeId, NodeId), Index>,
    reads_before_first_commit: HashSet<NodeId>,
}

impl Watch {
    pub(crate) fn started(&mut self, id: NodeId) {
        self.roles.insert(id, Role::Follower);
    }

    pub(crate) fn delivered(&mut self, link: (NodeId, NodeId), order: u64) {
        let latest = self.delivered.entry(link).or_default();
        if order < *latest {
            self.tally.note("fault: messages reordered");
        }
        *latest = order.max(*latest);
    }

    pub(crate) fn read_began(&mut self, cluster: &Cluster, id: NodeId) {
        self.tally.note("client: asked to read");
        let Some(Status { commit_index, term, .. }) = cluster.raft(id).map(|raft| raft.status())
        else {
            return;
        };
        let log = &cluster.member(id).log;
        let committed = commit_index.checked_sub(1).map(|at| log[at as usize].term);
        if committed != Some(term) {
            self.reads_before_first_commit.insert(id);
        }
    }

    pub(crate) fn turned(
        &mut self,
        cluster: &Cluster,
        id: NodeId,
        log_before: usize,
        effects: &Effects<Command>,
    ) {
        self.note_events(cluster, id, effects);
        if effects.restore.is_some() {
            self.tally.note("snapshot: restored");
        }
        let cut_back = effects.membership.is_some()
            && !effects.write.as_ref().is_some_and(|write| {
                let is_membership =
                    |entry: &Entry<Command>| matches!(entry.payload, Payload::Membership(_));
                write.entries.iter().any(is_membership)
            });
        let started = effects.events.iter().any(|event| event.reason == Reason::Started);
        if cut_back && effects.restore.is_none() && log_before > 0 && !started {
            self.tally.note("members: change undone");
        }
        if !effects.reads.is_empty() && cluster.member(id).config.lease_reads {
            let round = |message: &Message<Command>| matches!(message.body, Body::Append { .. });
            if !effects.messages.iter().any(round) {
                self.tally.note("read: ready by lease or echo, without a message");
            }
        }
        for message in &effects.messages {
            self.note_message(cluster, message);
        }
        if let Some(first) = effects.write.as_ref().and_then(|write| write.entries.first()) {
            self.tally.note("log: entries written");
            if first.index as usize <= log_before {
                self.tally.note("log: conflicting entries replaced");
            }
        }
        self.note_reads(id, effects);
        self.note_leader(cluster, id, effects);
    }

    fn note_events(&mut self, cluster: &Cluster, id: NodeId, effects: &Effects<Command>) {
        for event in &effects.events {
            let before = self.roles.insert(id, event.role).unwrap_or(Role::Follower);
            let campaigned = matches!(before, Role::PreCandidate | Role::Candidate);
            let what = match (event.reason, before, event.role) {
                (Reason::ElectionTimeout, _, _) if campaigned => {
                    "election: timed out and tried again"
                }
                (Reason::ElectionTimeout, _, Role::Candidate) => {
                    "election: campaign without pre-vote"
                }
                (Reason::PreVoteWon, ..) => "election: pre-vote won",
                (Reason::VoteLost, Role::PreCandidate, _) => "election: pre-vote lost",
                (Reason::VoteLost, ..) => "election: vote lost",
                (Reason::ConnectionLost, ..) => "election: begun by the failover hint",
                (Reason::TransferReceived, ..) => "transfer: received",
                (Reason::TransferAborted, ..) => "transfer: given up",
                (Reason::Removed, ..) => "members: removed leader stepped down",
                (Reason::VoteWon, ..) if only_voter(cluster, id) => {
                    "election: won by the only voter"
                }
                (Reason::VoteWon, ..) => "election: won",
                (Reason::QuorumLost, ..) => "election: leader lost its quorum",
                (Reason::HigherTerm, Role::Leader, _) => "election: leader met a higher term",
                (Reason::LeaderHeard, Role::Candidate, _) => {
                    "election: candidate met the leader of its term"
                }
                _ => continue,
            };
            self.tally.note(what);
            let leads = |other: &NodeId| {
                *other != id
                    && cluster.raft(*other).is_some_and(|raft| raft.status().role == Role::Leader)
            };
            if event.reason == Reason::VoteWon && cluster.ids().any(|other| leads(&other)) {
                self.tally.note("election: leader elected while an old one still led");
            }
        }
    }

    fn note_message(&mut self, cluster: &Cluster, message: &Message<Command>) {
        let Message { from, to, term, body } = message;
        match body {
            Body::Vote { pre_vote: false, .. }
                if *self.candidates.entry(*term).or_insert(*from) != *from =>
            {
                self.tally.note("election: two candidates in one term");
            }
            Body::VoteReply { pre_vote: false, granted: true } => {
                self.tally.note("election: vote given");
            }
            Body::Append { entries, commit, .. } => {
                if entries.len() > 1 {
                    self.tally.note("log: several entries in one append");
                }
                let told = self.told.insert((*from, *to), *commit);
                if entries.is_empty() && told.is_some_and(|told| told < *commit) {
                    self.tally.note("log: commit index told by an empty append");
                }
            }
            Body::AppendAccepted { match_index, .. }
                if (*match_index as usize) < cluster.member(*from).log.len() =>
            {
                self.tally.note("log: acceptance short of what is in memory");
            }
            Body::AppendRejected { hint_index, hint_term, .. } => {
                self.tally.note(match (*hint_index, *hint_term) {
                    (0, _) => "election: sender of an old term told so",
                    (_, 0) => "log: append rejected, log too short",
                    _ => "log: append rejected, terms differ",
                });
            }
            _ => {}
        }
    }

    /// A change was begun by a leader that had this membership in force.
    pub(crate) fn changed(&mut self, cluster: &Cluster, id: NodeId, before: &Membership) {
        let now = cluster.raft(id).expect("it runs").membership();
        self.tally.note("members: change begun");
        if now.is_joint() {
            self.tally.note("members: joint configuration");
        }
        if now.voters.iter().any(|id| before.learners.contains(id)) {
            self.tally.note("members: learner promoted");
        }
        if !now.is_voter(id) || (now.is_joint() && !now.voters.contains(&id)) {
            self.tally.note("members: leader removes itself");
        }
    }

    pub(crate) fn change_refused(&mut self, error: &ChangeError) {
        self.tally.note(match error {
            ChangeError::NotLeader { .. } => "members: refused by a follower",
            ChangeError::UnderWay => "members: refused, another one under way",
            ChangeError::TooEarly => "members: refused before the first commit of the term",
            ChangeError::NotCaughtUp(_) => "members: refused, learner not caught up",
            ChangeError::NoVoters | ChangeError::BadMember(_) => "members: refused, nonsense",
        });
    }

    fn note_reads(&mut self, id: NodeId, effects: &Effects<Command>) {
        let mut ready = 0;
        for outcome in &effects.reads {
            match outcome {
                ReadOutcome::Ready { .. } => {
                    ready += 1;
                    self.tally.note("read: ready");
                    if self.reads_before_first_commit.remove(&id) {
                        self.tally.note("read: waited for the first entry of the term");
                    }
                }
                ReadOutcome::Lost { .. } => {
                    self.reads_before_first_commit.remove(&id);
                    self.tally.note("read: lost");
                }
            }
        }
        if ready > 1 {
            self.tally.note("read: ready, several in one round");
        }
    }

    fn note_leader(&mut self, cluster: &Cluster, id: NodeId, effects: &Effects<Command>) {
        let raft = cluster.raft(id).expect("it runs");
        let status = raft.status();
        if status.role != Role::Leader {
            self.probed.retain(|(leader, _), _| *leader != id);
            return;
        }
        if status.commit_index > status.persisted_index {
            self.tally.note("log: committed on a leader before its own disk had it");
        }
        if effects.committed.iter().any(|entry| entry.term < status.term) {
            self.tally.note("log: committed entry of an earlier term");
        }
        let window = cluster.member(id).config.max_inflight_appends;
        for peer in raft.peers() {
            if peer.in_flight == window {
                self.tally.note("log: window full");
            }
            let link = (id, peer.id);
            if peer.state == PeerState::Replicate {
                self.probed.remove(&link);
                continue;
            }
            match self.probed.insert(link, peer.next_index) {
                None => self.tally.note("log: peer probed"),
                Some(before) if peer.next_index + 1 < before => {
                    self.tally.note("log: peer probed back over more than one entry at once");
                }
                Some(_) => {}
            }
        }
    }
}

fn only_voter(cluster: &Cluster, id: NodeId) -> bool {
    cluster.raft(id).is_some_and(|raft| raft.membership().voters == [id])
}
