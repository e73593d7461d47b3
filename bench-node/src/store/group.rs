//! One group on this node: its core, its state, and who waits for what of it.
//!
//! Invariant: what the core commits is applied in order and once, and a waiter is answered with a
//! result only then. Between `ready` and `apply` nothing is taken in.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use raft::{
    Body, Change, ChangeError, Effects, Entry, EntryId, Event, Index, Membership, Message, NodeId,
    Payload, ProposeError, Raft, ReadOutcome, Reason, Recovered, Role, Snapshot, Term,
};

use super::messages::Outgoing;
use super::outcomes::{Applied, Outcomes, Refusal, SnapshotTask, TransferRefusal};
use super::proposals::{Proposals, Reads};
use super::snapshots::{ReceivedSnapshot, SnapshotLimits, Snapshots};
use super::steps::Steps;
use super::{Waiters, leads};
use crate::GroupId;
use crate::error::NodeError;
use crate::kv::{Command, Frozen, Store};
use crate::snapshot::SnapshotMeta;
use crate::wal::GroupWrite;

pub(super) struct Group<W: Waiters> {
    id: GroupId,
    /// This member.
    us: NodeId,
    raft: Raft<Bytes>,
    /// The state machine; readers share it.
    kv: Arc<RwLock<Store>>,
    /// The last entry that was applied.
    applied: EntryId,
    /// Whether anything came in since the last turn.
    touched: bool,
    /// When the core wants to be asked.
    deadline: Duration,
    /// What a turn brought that is not carried out yet.
    pending: Option<Pending>,
    proposals: Proposals<W::Write>,
    /// Proposed since the last turn, the first and the last; all of one turn lie side by side.
    proposed: Option<(Index, Index)>,
    /// Proposals that wait for the end of a transfer of leadership.
    held: Vec<Held<W::Write>>,
    /// Reads since the last turn: one confirmation serves them all.
    asked: Vec<W::Read>,
    reads: Reads<W::Read>,
    /// Who waits for the end of a transfer.
    transfer: Option<(NodeId, W::Transfer)>,
    /// Whether leadership is being handed over, or was when this member ceased to lead.
    handing_over: bool,
    snapshots: Snapshots,
    steps: Steps,
    /// The last one that was seen to lead, and its term.
    last_leader: Option<(Term, NodeId)>,
}

struct Held<T> {
    data: Bytes,
    arrived: Duration,
    waiter: T,
}

/// What is left of [`Effects`] once write and messages are on their way.
struct Pending {
    restore: Option<Snapshot<Bytes>>,
    committed: Vec<Entry<Bytes>>,
    snapshots: Vec<NodeId>,
    membership: Option<Membership<Bytes>>,
    reads: Vec<ReadOutcome>,
    events: Vec<Event>,
}

impl<W: Waiters> Group<W> {
    pub(super) fn new(
        now: Duration,
        id: GroupId,
        config: raft::Config,
        recovered: Recovered<Bytes>,
        kv: Arc<RwLock<Store>>,
        steps: Steps,
        limits: SnapshotLimits,
    ) -> Result<Self, raft::ConfigError> {
        let (us, applied) = (config.id, recovered.snapshot.last);
        Ok(Self {
            id,
            us,
            raft: Raft::new(config, recovered, now)?,
            kv,
            applied,
            touched: true,
            deadline: now,
            pending: None,
            proposals: Proposals::default(),
            proposed: None,
            held: Vec::new(),
            asked: Vec::new(),
            reads: Reads::default(),
            transfer: None,
            handing_over: false,
            snapshots: Snapshots::new(limits, applied.index),
            steps,
            last_leader: None,
        })
    }

    pub(super) fn raft(&self) -> &Raft<Bytes> {
        &self.raft
    }

    pub(super) fn applied(&self) -> EntryId {
        self.applied
    }

    pub(super) fn pending_proposals(&self) -> usize {
        self.proposals.len()
    }

    pub(super) fn flush_steps(&self) {
        self.steps.flush();
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.touched || self.deadline <= now
    }

    pub(super) fn leads(&self) -> bool {
        leads(&self.raft.status()).is_some()
    }

    pub(super) fn propose(
        &mut self,
        now: Duration,
        data: Bytes,
        arrived: Duration,
        waiter: W::Write,
        stopping: bool,
        outcomes: &mut Outcomes<W>,
    ) {
        self.touched = true;
        if stopping && self.leads() && !self.raft.is_transferring() {
            // There is nobody to hand over to, or the one there was did not take it.
            outcomes.writes.push((waiter, Err(Refusal::Stopped)));
            return;
        }
        // Cheap: the bytes are shared.
        match self.raft.propose(data.clone()) {
            Ok((term, index)) => {
                self.proposals.add(term, index, now, waiter);
                self.proposed = Some((self.proposed.map_or(index, |(first, _)| first), index));
                self.steps.dequeued(arrived, now);
            }
            Err(ProposeError::Transferring) => self.held.push(Held { data, arrived, waiter }),
            Err(ProposeError::NotLeader(_)) => {
                outcomes.writes.push((waiter, Err(Refusal::NotLeader)));
            }
        }
    }

    pub(super) fn read(&mut self, waiter: W::Read) {
        self.touched = true;
        self.asked.push(waiter);
    }

    pub(super) fn receive(&mut self, now: Duration, message: Message<Bytes>) {
        self.touched = true;
        self.raft.receive(now, message);
    }

    pub(super) fn persisted(&mut self, write_id: u64, at: Duration) {
        self.touched = true;
        self.raft.persisted(write_id);
        self.steps.logged(self.raft.status().persisted_index, at);
    }

    pub(super) fn connection_lost(&mut self, now: Duration, peer: NodeId) {
        self.touched = true;
        self.raft.connection_lost(now, peer);
    }

    pub(super) fn tick(&mut self, now: Duration) {
        self.touched = true;
        self.raft.tick(now);
    }

    pub(super) fn beat(&mut self, now: Duration) {
        self.touched = true;
        self.raft.beat(now);
    }

    pub(super) fn transfer(&mut self, to: NodeId, waiter: W::Transfer, outcomes: &mut Outcomes<W>) {
        self.touched = true;
        let outcome = match self.raft.transfer(to) {
            Ok(()) if to != self.us => {
                // An earlier one ended, and who leads since then was never heard.
                let before = self.transfer.replace((to, waiter));
                let failed = |(_, waiter)| (waiter, Err(TransferRefusal::Failed));
                outcomes.transfers.extend(before.map(failed));
                return;
            }
            Ok(()) => Ok(()),
            Err(error) => Err(TransferRefusal::Refused(error)),
        };
        outcomes.transfers.push((waiter, outcome));
    }

    pub(super) fn change(&mut self, change: Change<Bytes>) -> Result<(Term, Index), ChangeError> {
        self.touched = true;
        self.raft.change(change)
    }

    pub(super) fn unsafe_swap_membership(&mut self, voters: Vec<NodeId>) {
        self.touched = true;
        let context = self.raft.membership().context.clone();
        let (outgoing, learners) = (Vec::new(), Vec::new());
        self.raft.unsafe_swap_membership(Membership { voters, outgoing, learners, context });
    }

    /// Where the whole log is too long, and this group's part of it the oldest.
    pub(super) fn want_snapshot(&mut self, index: Index) {
        self.touched = true;
        self.snapshots.want(index);
    }

    pub(super) fn snapshot_written(&mut self, end: Option<Index>, outcomes: &mut Outcomes<W>) {
        self.touched = true;
        if let Some(index) = self.snapshots.written(end, &self.raft) {
            outcomes.snapshots.push(SnapshotTask::RemoveOlder { group: self.id, index });
        }
    }

    pub(super) fn snapshot_sent(&mut self, to: NodeId) {
        self.touched = true;
        self.snapshots.sent(to);
        self.raft.snapshot_ended(to);
    }

    pub(super) fn snapshot_received(&mut self, now: Duration, received: ReceivedSnapshot) {
        self.touched = true;
        let ReceivedSnapshot { from, term, snapshot, store, .. } = received;
        self.snapshots.receive(snapshot.last, store);
        let body = Body::InstallSnapshot(snapshot);
        self.raft.receive(now, Message { from, to: self.us, term, body });
    }

    /// A leader that stops hands over first, if there is anyone.
    pub(super) fn hand_over(&mut self) {
        self.touched = true;
        if let Some(successor) = self.raft.best_successor() {
            // If it cannot, the others have their timeouts.
            let _ = self.raft.transfer(successor);
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        let waits = self.proposals.len() > 0 || !self.held.is_empty();
        // Handed over, and nobody heard from yet: whoever asks would not know where to go.
        let adrift = self.handing_over && self.raft.status().leader.is_none();
        !waits && !self.raft.is_transferring() && !adrift
    }

    pub(super) fn give_up(&mut self, outcomes: &mut Outcomes<W>) {
        let asked = self.asked.drain(..).map(|waiter| (waiter, Err(Refusal::Stopped)));
        outcomes.reads.extend(asked);
        self.reads.refuse_all(Refusal::Stopped, &mut outcomes.reads);
    }

    /// Whether a snapshot took the place of the log, and is not the state yet.
    pub(super) fn is_being_restored(&self) -> bool {
        self.applied.index < self.raft.base().index
    }

    /// The state as it is applied now, and what it is of.
    pub(super) fn freeze(&self) -> (SnapshotMeta, Frozen) {
        let frozen = self.kv.read().expect("nobody panics holding the store").freeze();
        let meta = SnapshotMeta {
            group: self.id,
            last_included: self.applied,
            membership: self.raft.membership_at(self.applied.index).clone(),
            store: frozen.header(),
        };
        (meta, frozen)
    }

    /// Asks the core what to do: the write and the messages go out at once, the rest waits for
    /// [`Group::apply`].
    pub(super) fn ready(
        &mut self,
        now: Duration,
        stopping: bool,
        writes: &mut Vec<GroupWrite>,
        outgoing: &mut Outgoing,
        outcomes: &mut Outcomes<W>,
    ) {
        self.ask(now, outcomes);
        self.raft.tick(now);
        self.release_held(now, stopping, outcomes);
        if let Some((first, last)) = self.proposed.take() {
            self.steps.proposed(first, last, now);
        }
        self.touched = false;
        let effects = self.raft.ready(now);
        let Effects { write, messages, restore, committed, snapshots, membership, reads, events } =
            effects;
        writes.extend(write.map(|write| GroupWrite { group: self.id, write }));
        messages.into_iter().for_each(|message| outgoing.push(self.id, message));
        self.steps.replicated(self.raft.replicated_index(), now);
        self.deadline = self.raft.deadline();
        self.pending = Some(Pending { restore, committed, snapshots, membership, reads, events });
    }

    /// Carries out what the last [`Group::ready`] left.
    pub(super) fn apply(
        &mut self,
        now: Duration,
        clock: &dyn Fn() -> Duration,
        patience: Duration,
        writing: &mut Option<GroupId>,
        outcomes: &mut Outcomes<W>,
    ) -> Result<(), NodeError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        if let Some(snapshot) = pending.restore {
            self.restore(snapshot.last, outcomes);
            let Snapshot { last, membership } = snapshot;
            outcomes.committed_memberships.push((self.id, last, membership));
        }
        self.snapshots.forget_received();
        self.apply_committed(pending.committed, clock, outcomes)?;
        self.keep_log_short(writing, outcomes);
        for to in pending.snapshots {
            self.snapshots.send(to);
            let (group, term) = (self.id, self.raft.status().term);
            outcomes.snapshots.push(SnapshotTask::Send { group, to, term });
        }
        for outcome in pending.reads {
            match outcome {
                ReadOutcome::Ready { context, index } => self.reads.confirmed(context, index),
                ReadOutcome::Lost { context } => {
                    self.reads.refuse(context, Refusal::LeaderChanged, &mut outcomes.reads);
                }
            }
        }
        self.reads.applied(self.applied.index, &mut outcomes.reads);
        for event in pending.events {
            self.tell(event, outcomes);
        }
        outcomes.memberships.extend(pending.membership.map(|membership| (self.id, membership)));
        // It stays so on the way from the old leader to the new one's first commit.
        self.handing_over = self.raft.is_transferring() || (self.handing_over && !self.leads());
        outcomes.failed_proposals += self.proposals.expire(now, patience, &mut outcomes.writes);
        self.reads.expire(now, patience, &mut outcomes.reads);
        Ok(())
    }

    /// Asks for the reads of this turn.
    fn ask(&mut self, now: Duration, outcomes: &mut Outcomes<W>) {
        if self.asked.is_empty() {
            return;
        }
        let context = self.reads.add(now, std::mem::take(&mut self.asked));
        if self.raft.read(context).is_err() {
            self.reads.refuse(context, Refusal::NotLeader, &mut outcomes.reads);
        }
    }

    /// What was held during a transfer is proposed, or refused so that it is brought to the new
    /// leader.
    fn release_held(&mut self, now: Duration, stopping: bool, outcomes: &mut Outcomes<W>) {
        if self.held.is_empty() || self.raft.is_transferring() {
            return;
        }
        for Held { data, arrived, waiter } in std::mem::take(&mut self.held) {
            self.propose(now, data, arrived, waiter, stopping, outcomes);
        }
    }

    fn restore(&mut self, last: EntryId, outcomes: &mut Outcomes<W>) {
        let restored = self.snapshots.restore(last);
        let mut kv = self.kv.write().expect("nobody panics holding the store");
        kv.go_on_from(restored);
        drop(kv);
        self.applied = last;
        // What became of them is in the snapshot, and cannot be told from it.
        let refused = self.proposals.refuse_all(Refusal::LeaderChanged, &mut outcomes.writes);
        outcomes.failed_proposals += refused;
        outcomes.restored.push((self.id, last.index));
    }

    fn apply_committed(
        &mut self,
        committed: Vec<Entry<Bytes>>,
        clock: &dyn Fn() -> Duration,
        outcomes: &mut Outcomes<W>,
    ) -> Result<(), NodeError> {
        if committed.is_empty() {
            return Ok(());
        }
        let committed_at = clock();
        let first_answer = outcomes.writes.len();
        let mut kv = self.kv.write().expect("nobody panics holding the store");
        for entry in committed {
            let waiting = self.proposals.committed(entry.term, entry.index, &mut outcomes.writes);
            self.applied = EntryId { index: entry.index, term: entry.term };
            match entry.payload {
                Payload::Noop => {}
                Payload::Membership(membership) => {
                    let committed = (self.id, self.applied, membership);
                    outcomes.committed_memberships.push(committed);
                }
                Payload::Data(data) => {
                    self.snapshots.applied(data.len());
                    let command = Command::decode(data)
                        .map_err(|error| NodeError::Command { index: entry.index, error })?;
                    let result = kv.apply(command);
                    if let Some((proposed_at, waiter)) = waiting {
                        self.steps.committed(proposed_at, committed_at);
                        // When, is known at the end.
                        let applied = Applied { result, at: committed_at };
                        outcomes.writes.push((waiter, Ok(applied)));
                    }
                }
            }
        }
        drop(kv);
        let applied_at = clock();
        let mut writes = 0;
        for (_, answer) in &mut outcomes.writes[first_answer..] {
            if let Ok(applied) = answer {
                applied.at = applied_at;
                writes += 1;
            }
        }
        self.steps.applied(writes, committed_at, applied_at);
        Ok(())
    }

    fn keep_log_short(&mut self, writing: &mut Option<GroupId>, outcomes: &mut Outcomes<W>) {
        if writing.is_none() && self.snapshots.is_due(self.applied.index) {
            let (meta, frozen) = self.freeze();
            self.snapshots.begin(self.applied.index);
            *writing = Some(self.id);
            outcomes.snapshots.push(SnapshotTask::Write { meta, frozen });
        }
        self.snapshots.let_go(self.raft.peers());
        let (base, persisted) = (self.raft.base().index, self.raft.status().persisted_index);
        let cut = self.snapshots.cut(base, self.applied.index);
        if let Some(index) = cut.map(|index| index.min(persisted)).filter(|index| *index > base) {
            self.snapshots.will_be_cut(&self.raft, index);
            self.raft.compact(index);
            // The next turn writes it down.
            self.touched = true;
        }
    }

    fn tell(&mut self, event: Event, outcomes: &mut Outcomes<W>) {
        outcomes.events.push((self.id, event));
        if event.role != Role::Leader {
            self.steps.forget();
            // After an orderly transfer the new leader has all of them, and they are answered as
            // they are applied here.
            if !self.handing_over {
                let refused =
                    self.proposals.refuse_all(Refusal::LeaderChanged, &mut outcomes.writes);
                outcomes.failed_proposals += refused;
            }
        }
        if event.reason == Reason::VoteWon {
            let lost = Refusal::LeaderChanged;
            let refused = self.proposals.refuse_before(event.term, lost, &mut outcomes.writes);
            outcomes.failed_proposals += refused;
        }
        let aborted = event.reason == Reason::TransferAborted;
        if let Some((to, waiter)) = self.transfer.take_if(|_| aborted || event.leader.is_some()) {
            let taken = !aborted && event.leader == Some(to);
            let outcome = if taken { Ok(()) } else { Err(TransferRefusal::Failed) };
            outcomes.transfers.push((waiter, outcome));
        }
        let leader = event.leader.map(|leader| (event.term, leader));
        if leader.is_some() && leader != self.last_leader {
            self.last_leader = leader;
            outcomes.leader_changes += 1;
        }
    }
}
