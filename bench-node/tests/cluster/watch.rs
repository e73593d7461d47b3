//! Checks what a turn brought, and recognises from outside what nodes did, for the tally.

use bench_node::store::{Batch, Outcomes};
use raft::{Body, NodeId, Reason, Role};

use crate::node::Numbers;
use crate::world::World;

impl World {
    /// What a node is about to say.
    pub(crate) fn note_batch(&mut self, batch: &Batch) {
        for (group, message) in &batch.messages {
            self.checker.said(*group, message);
            self.say(|_| {
                let raft::Message { from, to, term, body } = message;
                format!("{from} -> {to}, group {group}, term {term} {body:?}")
            });
            match &message.body {
                Body::AppendRejected { .. } => self.tally.note("log: append rejected"),
                Body::Append { entries, .. } if entries.len() > 1 => {
                    self.tally.note("log: several entries in one append");
                }
                Body::TimeoutNow => self.tally.note("transfer: successor told to campaign"),
                _ => {}
            }
        }
        if batch.heartbeats.len() > 1 {
            self.tally.note("groups: heartbeats of several as one message");
            self.say(|_| format!("{} -> {} {:?}", batch.from, batch.to, batch.heartbeats));
        }
        if batch.answers.len() > 1 {
            self.tally.note("groups: heartbeats of several answered as one");
        }
    }

    /// A turn's effects, before they are carried out.
    pub(crate) fn check_turn(&mut self, id: NodeId, outcomes: &Outcomes<Numbers>) {
        for (group, event) in &outcomes.events {
            self.checker.leads(id, *group, event.role, event.term);
            let what = match (event.reason, event.role) {
                (Reason::VoteWon, _) => "election: won",
                (Reason::VoteLost, _) => "election: lost",
                (Reason::PreVoteWon, _) => "election: pre-vote won",
                (Reason::ElectionTimeout, Role::Candidate) => "election: campaign without pre-vote",
                (Reason::ConnectionLost, _) => "election: begun by the failover hint",
                (Reason::QuorumLost, _) => "election: leader lost its quorum",
                (Reason::TransferReceived, _) => "election: begun by a transfer",
                (Reason::TransferAborted, _) => "transfer: given up",
                (Reason::Removed, _) => "members: removed leader stepped down",
                _ => continue,
            };
            self.tally.note(what);
        }
        for (_, _, membership) in &outcomes.committed_memberships {
            let joint = membership.is_joint();
            self.tally.note(if joint { "members: joint" } else { "members: change done" });
        }
        if !outcomes.restored.is_empty() {
            self.tally.note("snapshot: restored");
        }
        for group in 0..self.plan.groups {
            let process = self.hosts[id as usize - 1].process.as_ref().expect("it runs");
            let groups = process.groups.as_ref().expect("it takes part");
            let status = groups.status(group).expect("it has the group");
            let applied = groups.applied_index(group);
            if self.checker.turned(id, group, &status, applied) {
                let kv = process.kvs[&group].read().expect("one thread");
                self.checker.check_state(id, group, applied, &kv);
            }
            if groups.log_base(group) > 0 {
                self.tally.note("log: cut at its beginning");
            }
        }
    }
}
