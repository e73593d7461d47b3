//! What operators do: change the members, hand leadership over, take snapshots and cut the log.

use std::time::Duration;

use raft::{Change, NodeId, Payload, Role};

use crate::harness::disk::membership_of;
use crate::harness::{Command, Membership};
use crate::plan::Theme;
use crate::world::{What, World};

impl World {
    pub(crate) fn administrate(&mut self) {
        let delay = self.random.below(2 * self.plan.admin_every_us) + 1;
        self.schedule(delay, What::Administrate);
        if self.healed {
            return;
        }
        let Some(id) = self.pick_member(900) else { return };
        let kind = match self.plan.theme {
            Theme::Any => self.random.below(100),
            Theme::Leases => 50,
            Theme::Members => 0,
        };
        match kind {
            0..45 => self.change(id),
            45..65 => self.transfer(id),
            _ => self.compact(id),
        }
    }

    /// The members, as far as anyone was told.
    pub(crate) fn committed_membership(&self) -> Membership {
        let ledger: Vec<_> =
            self.cluster.checker.ledger.iter().map(|(entry, _)| entry.clone()).collect();
        membership_of(&ledger, &self.cluster.members[0].founding)
    }

    fn change(&mut self, id: NodeId) {
        let Some(raft) = self.cluster.raft(id) else { return };
        let current = raft.membership().clone();
        let all: Vec<_> = self.cluster.ids().collect();
        let outside: Vec<_> =
            all.iter().copied().filter(|id| current.ids().all(|m| m != *id)).collect();
        let (mut voters, mut learners) = (current.voters.clone(), current.learners.clone());
        let one_voter = self.plan.theme == Theme::Members;
        let kind = if one_voter { self.random.within(60..82) } else { self.random.below(100) };
        match kind {
            0..30 if !outside.is_empty() => learners.push(self.random.pick(&outside)),
            30..60 if !learners.is_empty() => {
                let promoted = self.random.pick(&learners);
                learners.retain(|&learner| learner != promoted);
                voters.push(promoted);
            }
            60..72 if voters.len() > 1 => {
                let removed = self.random.pick(&voters);
                voters.retain(|&voter| voter != removed);
            }
            60..82 if !outside.is_empty() => voters.push(self.random.pick(&outside)),
            _ if one_voter => {}
            _ => {
                voters = all.iter().copied().filter(|_| self.random.chance(500)).collect();
                learners = all.iter().copied().filter(|id| !voters.contains(id)).collect();
                learners.retain(|_| self.random.chance(300));
            }
        }
        self.commands += 1;
        let context = Command(format!("members {}", self.commands).into());
        let change = Change { voters, learners, context };
        self.say(|_| format!("{id} is asked for {change:?}"));
        match self.input(id, |raft, _| raft.change(change)) {
            Some(Ok(_)) => self.watch.changed(&self.cluster, id, &current),
            Some(Err(error)) => self.watch.change_refused(&error),
            None => {}
        }
    }

    fn transfer(&mut self, id: NodeId) {
        let Some(raft) = self.cluster.raft(id) else { return };
        let voters = raft.membership().voters.clone();
        if voters.is_empty() {
            return;
        }
        let to = self.random.pick(&voters);
        self.say(|_| format!("{id} is asked to hand over to {to}"));
        if let Some(Ok(())) = self.input(id, |raft, _| raft.transfer(to)) {
            self.watch.tally.note("transfer: begun");
        }
    }

    fn compact(&mut self, id: NodeId) {
        let member = self.cluster.member(id);
        let Some(base) = member.raft.as_ref().map(|raft| raft.base().index) else { return };
        if member.applied <= base {
            return;
        }
        let index = self.random.within(base + 1..self.cluster.member(id).applied + 1);
        self.cluster.compact(id, index);
        // A turn writes it down.
        self.input(id, |_, _| ());
        self.watch.tally.note("snapshot: taken");
    }

    /// A leader wants a member to have a snapshot: it takes a while, and may be lost.
    pub(crate) fn send_snapshot(&mut self, from: NodeId, to: NodeId) {
        let Some((message, entries)) = self.cluster.snapshot(from, to) else {
            panic!("{from} has cut its log and has no snapshot");
        };
        let start = self.host(from).start;
        let delay = self.random.within(200..200 + 20 * self.plan.delay_us);
        self.watch.tally.note("snapshot: sent");
        if self.healed || !self.random.chance(self.plan.drops) {
            self.schedule(delay, What::Snapshot { message, entries });
        }
        self.schedule(delay + 200, What::SnapshotEnded { id: from, start, to });
    }

    /// A snapshot is durable at its receiver before the protocol hears of it.
    pub(crate) fn receive_snapshot(
        &mut self,
        message: raft::Message<Command>,
        entries: Vec<raft::Entry<Command>>,
    ) {
        let to = message.to;
        if self.cut.contains(&(message.from, to)) || self.cluster.raft(to).is_none() {
            return;
        }
        self.cluster.member_mut(to).disk.keep_snapshot(&entries);
        self.watch.tally.note("snapshot: received");
        self.input(to, |raft, now| raft.receive(now, message));
    }

    /// The peers of a member notice that their connections to it broke.
    pub(crate) fn break_connections(&mut self, of: NodeId) {
        let others: Vec<_> = self.cluster.ids().filter(|&id| id != of).collect();
        for id in others {
            if self.random.chance(800) {
                let delay = self.random.below(2_000);
                self.schedule(delay, What::ConnectionLost { id, peer: of });
            }
        }
    }

    pub(crate) fn lose_connection(&mut self, id: NodeId, peer: NodeId) {
        let lead = |id| {
            self.cluster
                .raft(id)
                .is_some_and(|raft: &raft::Raft<Command>| raft.status().role == Role::Leader)
        };
        if lead(peer) {
            self.watch.tally.note("fault: connection to a living leader reset");
        }
        self.input(id, |raft, now: Duration| raft.connection_lost(now, peer));
    }

    /// Members that were removed and cannot know it are switched off by hand, where nothing keeps
    /// them from disturbing the others.
    pub(crate) fn retire(&mut self) {
        let members = self.committed_membership();
        let mut wanted: Vec<_> = members.ids().collect();
        // What is not committed may still be, or be undone in favour of what was before.
        let committed = self.cluster.checker.ledger.len();
        for member in &self.cluster.members {
            wanted.extend(member.raft.iter().flat_map(|raft| raft.membership().ids()));
            for entry in member.log.iter().skip(committed) {
                if let Payload::Membership(open) = &entry.payload {
                    wanted.extend(open.ids());
                }
            }
        }
        let removed: Vec<_> = self.cluster.ids().filter(|id| !wanted.contains(id)).collect();
        for id in removed {
            if self.cluster.raft(id).is_some() && !self.cluster.member(id).config.check_quorum {
                self.retired.insert(id);
                self.crash(id, u64::MAX / 4);
            }
        }
    }
}
