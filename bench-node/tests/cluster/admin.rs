//! What operators do: change the members, hand leadership over. And what nodes do among themselves
//! apart from messages: snapshots, written and sent.

use bench_node::GroupId;
use bench_node::kv::Frozen;
use bench_node::snapshot::{Offer, SnapshotMeta};
use bench_node::store::ReceivedSnapshot;
use bytes::Bytes;
use raft::{Change, ChangeError, NodeId, Term};

use crate::node::{Transfer, founding};
use crate::plan::Theme;
use crate::world::{What, World};

/// How often a transfer of a snapshot is taken up again.
const ATTEMPTS: u32 = 5;
const RETRY_US: u64 = 15_000;

impl World {
    pub(crate) fn administrate(&mut self) {
        let delay = self.random.below(2 * self.plan.admin_every_us) + 1;
        self.schedule(delay, What::Administrate);
        if self.healed {
            // A change may have ended since.
            return self.retire();
        }
        let group = self.random.below(self.plan.groups);
        let Some(id) = self.pick_node(group, 900) else { return };
        let kind = match self.plan.theme {
            Theme::Members => self.random.below(60),
            Theme::Leases => 99,
            _ => self.random.below(100),
        };
        match kind {
            0..50 if self.plan.changes_members() => self.change(id, group),
            0..50 => {}
            _ => self.transfer(id, group),
        }
    }

    /// The members of a group, as far as anyone was told.
    pub(crate) fn committed_membership(&self, group: GroupId) -> raft::Membership<Bytes> {
        let committed = self.checker.membership(group).cloned();
        committed.unwrap_or_else(|| founding(&self.plan, 1).membership)
    }

    fn change(&mut self, id: NodeId, group: GroupId) {
        let Some(current) = self.groups(id).and_then(|groups| groups.membership(group)).cloned()
        else {
            return;
        };
        let all: Vec<_> = self.ids().collect();
        let outside: Vec<_> =
            all.iter().copied().filter(|id| current.ids().all(|member| member != *id)).collect();
        let (mut voters, mut learners) = (current.voters.clone(), current.learners.clone());
        match self.random.below(100) {
            0..25 if !outside.is_empty() => learners.push(self.random.pick(&outside)),
            25..50 if !learners.is_empty() => {
                let promoted = self.random.pick(&learners);
                learners.retain(|&learner| learner != promoted);
                voters.push(promoted);
            }
            50..65 if voters.len() > 1 => {
                let removed = self.random.pick(&voters);
                voters.retain(|&voter| voter != removed);
            }
            65..80 if !outside.is_empty() => voters.push(self.random.pick(&outside)),
            _ => {
                voters = all.iter().copied().filter(|_| self.random.chance(600)).collect();
                learners = all.iter().copied().filter(|id| !voters.contains(id)).collect();
                learners.retain(|_| self.random.chance(300));
            }
        }
        let change = Change { voters, learners, context: Bytes::new() };
        self.say(|_| format!("{id} is asked for {change:?} in group {group}"));
        match self.input(id, |groups, _| groups.change(group, change)) {
            Some(Ok(_)) => self.tally.note("members: change begun"),
            Some(Err(ChangeError::NotCaughtUp(_))) => {
                self.tally.note("members: refused, learner not caught up");
            }
            Some(Err(_)) => self.tally.note("members: refused"),
            None => {}
        }
    }

    fn transfer(&mut self, id: NodeId, group: GroupId) {
        let Some(membership) = self.groups(id).and_then(|groups| groups.membership(group)) else {
            return;
        };
        let voters = membership.voters.clone();
        if voters.is_empty() {
            return;
        }
        let to = self.random.pick(&voters);
        self.say(|_| format!("{id} is asked to hand group {group} over to {to}"));
        self.input(id, |groups, _| groups.transfer(group, to, ()));
    }

    /// Writing a snapshot takes a while.
    pub(crate) fn begin_snapshot(&mut self, id: NodeId, meta: SnapshotMeta, frozen: Frozen) {
        let delay = self.random.below(4 * self.plan.disk_us + 5_000);
        let host = self.host_mut(id);
        let start = host.start;
        host.process.as_mut().expect("it runs").snapshot = Some((meta, frozen));
        self.schedule(delay, What::SnapshotWritten { id, start });
    }

    pub(crate) fn snapshot_written(&mut self, id: NodeId) {
        let process = self.host_mut(id).process.as_mut().expect("it runs");
        let Some((meta, frozen)) = process.snapshot.take() else { return };
        let (group, index) = (meta.group, meta.last_included.index);
        let Some(written) = self.at_disk(id, |process, _| process.snapshots.write(meta, frozen))
        else {
            return;
        };
        self.say(|_| format!("{id}, group {group}: snapshot up to {index}: {}", written.is_ok()));
        if written.is_ok() {
            self.tally.note("snapshot: written");
            self.checker.snapshot_is_durable(id, group, index);
        } else {
            self.tally.note("snapshot: not written");
        }
        self.input(id, |groups, _| groups.snapshot_written(group, written.ok().map(|_| index)));
    }

    /// A leader's node sends its newest snapshot of a group, piece by piece.
    pub(crate) fn begin_transfer(&mut self, id: NodeId, group: GroupId, to: NodeId, term: Term) {
        let Some(newest) = self.at_disk(id, |process, _| process.snapshots.open_newest(group))
        else {
            return;
        };
        let Ok(Some(outgoing)) = newest else {
            assert!(newest.is_err(), "{id} has cut its log and has no snapshot");
            self.input(id, |groups, _| groups.snapshot_sent(group, to));
            return;
        };
        self.tally.note("snapshot: offered");
        self.transfers += 1;
        let (transfer, start) = (self.transfers, self.host(id).start);
        let sending = Transfer { group, to, term, outgoing, offset: None, attempts: 0 };
        let process = self.host_mut(id).process.as_mut().expect("it runs");
        process.sending.insert(transfer, sending);
        self.schedule(self.plan.delay_us, What::SendSnapshot { id, start, transfer });
    }

    /// The next step of a transfer: the offer, a piece, or its end.
    pub(crate) fn send_snapshot(&mut self, id: NodeId, transfer: u64) {
        let (start, delay) = (self.host(id).start, 50 + self.random.below(self.plan.delay_us));
        let broken = !self.healed && self.random.chance(self.plan.drops);
        match if broken { None } else { self.try_step(id, transfer) } {
            Some(true) => self.end_transfer(id, transfer),
            Some(false) => self.schedule(delay, What::SendSnapshot { id, start, transfer }),
            None => {
                let Some(process) = &mut self.host_mut(id).process else { return };
                let Some(sending) = process.sending.get_mut(&transfer) else { return };
                (sending.offset, sending.attempts) = (None, sending.attempts + 1);
                if sending.attempts > ATTEMPTS {
                    self.tally.note("snapshot: transfer given up");
                    return self.end_transfer(id, transfer);
                }
                self.tally.note("snapshot: transfer taken up again");
                self.schedule(RETRY_US, What::SendSnapshot { id, start, transfer });
            }
        }
    }

    fn end_transfer(&mut self, id: NodeId, transfer: u64) {
        let Some(process) = &mut self.host_mut(id).process else { return };
        let Some(Transfer { group, to, .. }) = process.sending.remove(&transfer) else { return };
        self.input(id, |groups, _| groups.snapshot_sent(group, to));
    }

    /// Whether that was the last step; `None` where the connection broke, or the receiver failed.
    fn try_step(&mut self, id: NodeId, transfer: u64) -> Option<bool> {
        let chunk_bytes = self.plan.chunk_bytes;
        let sending = self.host(id).process.as_ref()?.sending.get(&transfer)?;
        let (to, offset) = (sending.to, sending.offset);
        let announced = sending.outgoing.snapshot().id;
        let apart = self.cut.contains(&(id, to)) || self.cut.contains(&(to, id));
        let there = self.host(to).paused.is_none() && self.groups(to).is_some();
        if apart || !there || !self.are_introduced(id, to) {
            return None;
        }
        let Some(offset) = offset else {
            if self.is_receiving_another(to, id, transfer) {
                return None;
            }
            let offer =
                self.at_disk(to, |process, _| process.snapshots.receive(announced))?.ok()?;
            let received = match offer {
                Offer::Held(_) => announced.bytes,
                Offer::Wanted(incoming) => {
                    let received = incoming.received_up_to();
                    if received > 0 {
                        self.tally.note("snapshot: transfer resumed where it stopped");
                    }
                    let receiver = self.host_mut(to).process.as_mut()?;
                    receiver.receiving = Some((id, transfer, incoming));
                    received
                }
            };
            let sender = self.host_mut(id).process.as_mut()?;
            sender.sending.get_mut(&transfer)?.offset = Some(received);
            return Some(false);
        };
        if offset >= announced.bytes {
            return self.finish_transfer(id, transfer).map(|()| true);
        }
        let sending = self.host(id).process.as_ref()?.sending.get(&transfer)?;
        let chunk = sending.outgoing.read_chunk(offset, chunk_bytes).ok()?;
        let written = self.at_disk(to, |process, _| {
            let (from, of, incoming) = process.receiving.as_mut()?;
            let theirs = (*from, *of) == (id, transfer);
            theirs.then(|| incoming.write_chunk(chunk.offset, &chunk.bytes, chunk.crc))
        })??;
        let Ok(next) = written else {
            self.host_mut(to).process.as_mut()?.receiving = None;
            return None;
        };
        let sender = self.host_mut(id).process.as_mut()?;
        sender.sending.get_mut(&transfer)?.offset = Some(next);
        Some(false)
    }

    /// Whether a node takes in a snapshot of another sender that still sends it.
    fn is_receiving_another(&self, to: NodeId, id: NodeId, transfer: u64) -> bool {
        let Some(process) = &self.host(to).process else { return true };
        let Some((from, of, _)) = &process.receiving else { return false };
        let sends = |other: &NodeId, of: &u64| {
            let sender = self.host(*other).process.as_ref();
            sender.is_some_and(|sender| sender.sending.contains_key(of))
        };
        (*from, *of) != (id, transfer) && sends(from, of)
    }

    /// All of it came: the receiver checks it, reads it back, and tells the protocol.
    fn finish_transfer(&mut self, id: NodeId, transfer: u64) -> Option<()> {
        let sending = self.host(id).process.as_ref()?.sending.get(&transfer)?;
        let (to, group, term) = (sending.to, sending.group, sending.term);
        let last = sending.outgoing.snapshot().id.last_included;
        let loaded = self.at_disk(to, |process, _| {
            if process
                .receiving
                .as_ref()
                .is_some_and(|(from, of, _)| (*from, *of) == (id, transfer))
                && let Some((_, _, incoming)) = process.receiving.take()
            {
                incoming.finish()?;
            }
            process.snapshots.load(group, last)
        })?;
        if let Err(error) = &loaded {
            self.say(|_| format!("{to}: {error}"));
        }
        let (snapshot, store) = loaded.ok()?.latest?;
        self.tally.note("snapshot: received");
        let last = snapshot.id.last_included;
        self.checker.snapshot_is_durable(to, group, last.index);
        let snapshot = raft::Snapshot { last, membership: snapshot.meta.membership };
        let received = ReceivedSnapshot { group, from: id, term, snapshot, store };
        self.input(to, |groups, now| groups.snapshot_received(now, received));
        Some(())
    }

    /// The peers of a node notice that their connections to it broke.
    pub(crate) fn break_connections(&mut self, of: NodeId) {
        for id in self.ids().filter(|&id| id != of) {
            if self.random.chance(800) {
                let delay = self.random.below(2_000);
                self.schedule(delay, What::ConnectionLost { id, peer: of });
            }
        }
    }

    pub(crate) fn lose_connection(&mut self, id: NodeId, peer: NodeId) {
        if (0..self.plan.groups).any(|group| self.leads(peer, group)) {
            self.tally.note("fault: connection to a living leader reset");
        }
        self.input(id, |groups, now| groups.connection_lost(now, peer));
    }

    /// Nodes that were removed from every group and cannot know it are switched off by hand, where
    /// nothing keeps them from disturbing the others.
    pub(crate) fn retire(&mut self) {
        if self.plan.raft.check_quorum {
            return;
        }
        let mut wanted: Vec<NodeId> = Vec::new();
        for group in 0..self.plan.groups {
            let committed = self.committed_membership(group);
            wanted.extend(committed.ids());
            for id in self.ids() {
                // What is not committed may still be, or be undone in favour of what was before.
                wanted.extend(self.checker.open_memberships(id, group).flat_map(|open| open.ids()));
            }
            // What one that was removed takes to be in force is the past.
            for id in committed.ids() {
                let in_force = self.groups(id).and_then(|groups| groups.membership(group));
                wanted.extend(in_force.into_iter().flat_map(|membership| membership.ids()));
            }
        }
        let removed = |id: &NodeId| !wanted.contains(id) && !self.host(*id).retired;
        for id in self.ids().filter(removed).collect::<Vec<_>>() {
            self.tally.note("members: removed one switched off");
            self.host_mut(id).retired = true;
            self.end(id, false);
        }
    }
}
