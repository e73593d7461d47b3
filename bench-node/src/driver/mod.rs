//! The one loop that joins the protocol, the log, the store and the peers.
//!
//! Invariant: nothing is answered before its entry is committed and applied here, and after a
//! failure of the log nothing is answered with a result at all. Every turn takes in all that
//! waits, then asks the protocol once what to do: so under load a turn costs one write of the log,
//! one message batch per peer, and one lock of the store, however many requests it carries.
//!
//! The loop is a task among those that serve requests. It yields once before it takes in, so that
//! the requests that were read from the sockets together are proposed together.

mod changes;
mod proposals;
mod snapshots;
mod steps;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::{
    Entry, EntryId, Event, Index, Message, NodeId, Payload, ProposeError, Raft, ReadOutcome,
    Reason, Role, Status, Term, TransferError,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use crate::DEFAULT_GROUP;
use crate::config::Settings;
use crate::error::NodeError;
use crate::events::EventLog;
use crate::kv::{Command, Frozen, KvError, Response, Store};
use crate::members::{Ask, Rosters};
use crate::metrics::Metrics;
use crate::peers::Outboxes;
use crate::snapshot::{SnapshotError, SnapshotMeta};
use crate::wal::{self, WalError};
use changes::Changes;
pub(crate) use changes::{ChangeSender, Changed, NoChange};
pub(crate) use proposals::{Applied, OutcomeSender, ReadSender, Refusal};
use proposals::{Proposals, Reads};
use snapshots::Snapshots;
pub(crate) use snapshots::{ReceivedSnapshot, SnapshotRoom};
use steps::Steps;

/// Taken in within one turn, at most, so that heartbeats are never far.
const MAX_INPUTS_PER_TURN: usize = 4096;

/// What the loop takes in.
pub(crate) enum Input {
    /// A command of a client.
    Propose {
        /// Encoded.
        data: Bytes,
        /// When it reached the API.
        arrived: Instant,
        /// Who waits for it.
        reply: OutcomeSender,
    },
    /// A linearizable read of a client.
    Read(ReadSender),
    /// From a peer.
    Messages {
        /// Whose stream they came on.
        from: NodeId,
        /// Of the data directory that it speaks from.
        incarnation: u64,
        /// All of them its own.
        messages: Vec<Message<Bytes>>,
    },
    /// This write of the log, and all before it, are durable since then.
    Persisted(u64, Instant),
    /// A write of the log failed; nobody knows what reached the disk.
    LogFailed(WalError),
    /// A majority of the other members knows this member: it may take part.
    Introduced,
    /// The connection to this peer broke.
    ConnectionLost(NodeId),
    /// Hand leadership to this member; answered once it leads, or will not.
    Transfer(NodeId, oneshot::Sender<Result<(), TransferRefusal>>),
    /// Change the members; answered once that is done, or will not be.
    ChangeMembers(Ask, ChangeSender),
    /// Around the protocol: make these the members in the eyes of this one.
    SwapMembers(Vec<NodeId>, oneshot::Sender<()>),
    /// The state of this moment, for who wants all of it.
    Freeze(oneshot::Sender<(SnapshotMeta, Frozen)>),
    /// Writing a snapshot ended: where the snapshot ends.
    SnapshotWritten(Result<Index, SnapshotError>),
    /// Sending a snapshot ended, well or not.
    SnapshotSent(NodeId),
    /// A snapshot came from a leader.
    SnapshotReceived(Box<ReceivedSnapshot>),
    /// Where does this member stand?
    Inspect(oneshot::Sender<Inspection>),
    /// Answer what is on its way, take nothing more, and end.
    Stop,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransferRefusal {
    /// Not begun.
    Refused(TransferError),
    /// Begun, and not ended in time, or with another leader.
    Failed,
}

/// Where a member stands, for metrics and status.
#[derive(Clone, Debug)]
pub(crate) struct Inspection {
    /// The protocol's own.
    pub status: Status,
    /// The last index applied to the store.
    pub applied_index: Index,
    /// Proposals that wait for their commit.
    pub pending_proposals: usize,
    /// On a leader: by the follower's name, entries that it is not known to hold.
    pub follower_lag: Vec<(String, Index)>,
}

impl Inspection {
    fn unstarted() -> Self {
        let status = Status {
            role: Role::Follower,
            term: 0,
            leader: None,
            last_index: 0,
            commit_index: 0,
            persisted_index: 0,
        };
        Self { status, applied_index: 0, pending_proposals: 0, follower_lag: Vec::new() }
    }
}

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The term.
    pub term: Term,
    /// Its leader, where known.
    pub leader: Option<NodeId>,
}

/// What the loop works on.
pub(crate) struct Parts {
    /// Where writes go. Shared only so that the loop does not drop it: that waits for the disk.
    pub log: Arc<wal::Writer>,
    /// The state machine; readers share it.
    pub store: Arc<RwLock<Store>>,
    /// Towards the other members.
    pub outboxes: Outboxes,
    /// Everything that comes in.
    pub inputs: mpsc::UnboundedReceiver<Input>,
    /// Told when the store holds something that this process knows to be committed.
    pub restored: Arc<AtomicBool>,
    /// Tells who leads.
    pub view: watch::Sender<View>,
    /// Tells who the members are.
    pub rosters: watch::Sender<Rosters>,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Tells people who leads.
    pub events: EventLog,
    /// How long a request may wait for its commit.
    pub patience: Duration,
    /// Writes and sends snapshots.
    pub snapshots: Arc<dyn SnapshotRoom>,
    /// When to take them.
    pub settings: Settings,
}

/// Waits until this member may take part, then runs it until it is told to stop, or its log fails.
///
/// A member that is not introduced neither votes nor acknowledges: what peers say to it is dropped.
pub(crate) async fn run(
    config: raft::Config,
    recovered: raft::Recovered<Bytes>,
    mut parts: Parts,
) -> Result<(), NodeError> {
    loop {
        match parts.inputs.recv().await {
            Some(Input::Introduced) => break,
            Some(Input::Stop) | None => return Ok(()),
            Some(Input::LogFailed(error)) => return Err(NodeError::Log(error)),
            Some(Input::Propose { reply, .. }) => drop(reply.send(Err(Refusal::NotLeader))),
            Some(Input::Read(reply)) => drop(reply.send(Err(Refusal::NotLeader))),
            Some(Input::Inspect(reply)) => drop(reply.send(Inspection::unstarted())),
            Some(Input::Transfer(_, reply)) => {
                let refusal = TransferRefusal::Refused(TransferError::NotLeader { leader: None });
                drop(reply.send(Err(refusal)));
            }
            Some(Input::ChangeMembers(_, reply)) => {
                drop(reply.send(Err(NoChange::Request(Refusal::NotLeader))));
            }
            Some(
                Input::Messages { .. }
                | Input::SwapMembers(..)
                | Input::Persisted(..)
                | Input::ConnectionLost(_)
                | Input::Freeze(_)
                | Input::SnapshotWritten(_)
                | Input::SnapshotSent(_)
                | Input::SnapshotReceived(_),
            ) => {}
        }
    }
    let origin = Instant::now();
    let (id, applied) = (config.id, recovered.snapshot.last);
    let election_timeout = config.election_timeout;
    let raft = Raft::new(config, recovered, Duration::ZERO)?;
    let Parts { snapshots, settings, .. } = &parts;
    let snapshots = Snapshots::new(Arc::clone(snapshots), settings, applied.index);
    let steps = Steps::new(parts.metrics.step_times());
    let changes = Changes::new(parts.rosters.clone(), origin);
    Driver {
        raft,
        origin,
        parts,
        steps,
        answers: Vec::new(),
        id,
        election_timeout,
        changes,
        applied,
        snapshots,
        held: Vec::new(),
        transfer: None,
        handing_over: false,
        proposals: Proposals::default(),
        reads: Reads::default(),
        last_leader: None,
    }
    .run()
    .await
}

struct Driver {
    raft: Raft<Bytes>,
    /// The protocol's time counts from here.
    origin: Instant,
    parts: Parts,
    steps: Steps,
    /// Of the writes that are being applied; empty between turns.
    answers: Vec<(OutcomeSender, Result<Response, KvError>)>,
    id: NodeId,
    election_timeout: Duration,
    changes: Changes,
    /// The last entry that was applied.
    applied: EntryId,
    snapshots: Snapshots,
    /// Proposals that wait for the end of a transfer of leadership.
    held: Vec<(Bytes, Instant, OutcomeSender)>,
    /// Who waits for that end.
    transfer: Option<(NodeId, oneshot::Sender<Result<(), TransferRefusal>>)>,
    /// Whether leadership is being handed over, or was when this member ceased to lead.
    handing_over: bool,
    proposals: Proposals,
    reads: Reads,
    /// The last one that was seen to lead, and its term.
    last_leader: Option<(Term, NodeId)>,
}

impl Driver {
    async fn run(mut self) -> Result<(), NodeError> {
        let mut taken_in = Vec::new();
        let mut stopping = false;
        self.turn(Instant::now())?;
        let mut alarm = pin!(sleep_until(self.deadline()));
        while !stopping || !self.is_idle() {
            // Under load the deadline moves away with every append: an alarm that rings early now
            // and then costs less than one that is set anew each turn.
            if self.deadline() < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(self.deadline());
            }
            tokio::select! {
                biased;
                taken = self.parts.inputs.recv_many(&mut taken_in, MAX_INPUTS_PER_TURN) => {
                    if taken == 0 {
                        break;
                    }
                }
                () = &mut alarm => {}
            }
            // After an alarm, too: when the process was paused, the messages that show that the
            // leader is alive may still wait in the sockets.
            tokio::task::yield_now().await;
            while taken_in.len() < MAX_INPUTS_PER_TURN
                && let Ok(input) = self.parts.inputs.try_recv()
            {
                taken_in.push(input);
            }
            let now = Instant::now();
            let stop = self.take_in(now, taken_in.drain(..), stopping)?;
            if stop && !stopping {
                self.hand_over();
            }
            stopping |= stop;
            self.turn(now)?;
        }
        self.reads.refuse_all(Refusal::Stopped);
        self.changes.refuse_all(Refusal::Stopped);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.proposals.len() == 0 && !self.raft.is_transferring() && self.changes.is_idle()
    }

    /// When the protocol wants to be asked, whatever comes in.
    fn deadline(&self) -> tokio::time::Instant {
        (self.origin + self.raft.deadline()).into()
    }

    /// Whether one of the inputs said to stop.
    fn take_in(
        &mut self,
        now: Instant,
        inputs: impl Iterator<Item = Input>,
        stopping: bool,
    ) -> Result<bool, NodeError> {
        let raft_now = now - self.origin;
        let mut stop = false;
        // The first and the last; all of one turn lie side by side.
        let mut proposed: Option<(Index, Index)> = None;
        let mut reads = Vec::new();
        for input in inputs {
            match input {
                Input::Propose { reply, .. } if stopping => {
                    drop(reply.send(Err(Refusal::Stopped)));
                }
                Input::Propose { data, arrived, reply } => {
                    if let Some(index) = self.propose(data, arrived, now, reply) {
                        proposed = Some((proposed.map_or(index, |(first, _)| first), index));
                    }
                }
                Input::Read(reply) => reads.push(reply),
                Input::Messages { from, incarnation, messages } => {
                    if self.changes.is_stranger(from, incarnation) {
                        continue;
                    }
                    for message in messages {
                        self.raft.receive(raft_now, message);
                    }
                }
                Input::Persisted(id, at) => {
                    self.raft.persisted(id);
                    self.steps.logged(self.raft.status().persisted_index, at);
                }
                Input::LogFailed(error) => return Err(NodeError::Log(error)),
                Input::Introduced => {}
                Input::ConnectionLost(peer) => self.raft.connection_lost(raft_now, peer),
                Input::Transfer(to, reply) => match self.raft.transfer(to) {
                    Ok(()) if to == self.id => drop(reply.send(Ok(()))),
                    Ok(()) => self.transfer = Some((to, reply)),
                    Err(error) => drop(reply.send(Err(TransferRefusal::Refused(error)))),
                },
                Input::ChangeMembers(_, reply) if stopping => {
                    drop(reply.send(Err(NoChange::Request(Refusal::Stopped))));
                }
                Input::ChangeMembers(ask, reply) => self.changes.ask(ask, now, reply),
                Input::SwapMembers(voters, reply) => {
                    let context = self.raft.membership().context.clone();
                    let (outgoing, learners) = (Vec::new(), Vec::new());
                    let swapped = raft::Membership { voters, outgoing, learners, context };
                    self.raft.unsafe_swap_membership(swapped);
                    let _ = reply.send(());
                }
                // Not between a snapshot's arrival and its restoring: then who asks is told to ask
                // again.
                Input::Freeze(reply) if self.applied.index < self.raft.base().index => drop(reply),
                Input::Freeze(reply) => drop(reply.send(self.freeze())),
                Input::SnapshotWritten(written) => {
                    if let Err(error) = &written {
                        // The log goes on growing; the next one may succeed.
                        tracing::error!(reason = error.to_string(), "snapshot not written");
                    }
                    self.snapshots.written(written.ok());
                }
                Input::SnapshotSent(to) => {
                    self.snapshots.sent(to);
                    self.raft.snapshot_ended(to);
                }
                Input::SnapshotReceived(received) => {
                    let ReceivedSnapshot { from, term, snapshot, store } = *received;
                    self.snapshots.receive(snapshot.last, store);
                    let body = raft::Body::InstallSnapshot(snapshot);
                    self.raft.receive(raft_now, Message { from, to: self.id, term, body });
                }
                Input::Inspect(reply) => {
                    self.steps.flush();
                    drop(reply.send(self.inspect()));
                }
                Input::Stop => stop = true,
            }
        }
        if let Some((first, last)) = proposed {
            self.steps.proposed(first, last, now);
        }
        if !reads.is_empty() {
            let context = self.reads.add(now, reads);
            if self.raft.read(context).is_err() {
                self.reads.refuse(context, Refusal::NotLeader);
            }
        }
        Ok(stop)
    }

    /// The index that a proposal got, if it was taken.
    fn propose(
        &mut self,
        data: Bytes,
        arrived: Instant,
        now: Instant,
        reply: OutcomeSender,
    ) -> Option<Index> {
        // Cheap: the bytes are shared.
        match self.raft.propose(data.clone()) {
            Ok((term, index)) => {
                self.proposals.add(term, index, now, reply);
                self.steps.dequeued(arrived, now);
                return Some(index);
            }
            Err(ProposeError::Transferring) => self.held.push((data, arrived, reply)),
            Err(ProposeError::NotLeader(_)) => drop(reply.send(Err(Refusal::NotLeader))),
        }
        None
    }

    /// A leader that stops hands over first, if there is anyone.
    fn hand_over(&mut self) {
        if let Some(successor) = self.raft.best_successor() {
            // If it cannot, the others have their timeouts.
            let _ = self.raft.transfer(successor);
        }
    }

    /// What was held during a transfer is proposed, or refused so that it is brought to the new
    /// leader.
    fn release_held(&mut self, now: Instant) {
        if self.raft.is_transferring() {
            return;
        }
        let mut indexes = Vec::new();
        for (data, arrived, reply) in std::mem::take(&mut self.held) {
            indexes.extend(self.propose(data, arrived, now, reply));
        }
        if let (Some(first), Some(last)) = (indexes.first(), indexes.last()) {
            self.steps.proposed(*first, *last, now);
        }
    }

    /// The state as it is applied now, and what it is of.
    fn freeze(&self) -> (SnapshotMeta, Frozen) {
        let frozen = self.parts.store.read().expect("nobody panics holding the store").freeze();
        let meta = SnapshotMeta {
            group: DEFAULT_GROUP,
            last_included: self.applied,
            membership: self.raft.membership_at(self.applied.index).clone(),
            store: frozen.header(),
        };
        (meta, frozen)
    }

    fn keep_log_short(&mut self) {
        if self.snapshots.is_due(self.applied.index) {
            let (meta, frozen) = self.freeze();
            self.snapshots.write(meta, frozen);
        }
        self.snapshots.let_go(self.raft.peers());
        if let Some(index) = self.snapshots.cut(self.raft.base().index, self.applied.index) {
            self.raft.compact(index);
        }
    }

    /// Asks the protocol what to do, and does it.
    fn turn(&mut self, now: Instant) -> Result<(), NodeError> {
        let raft_now = now - self.origin;
        self.raft.tick(raft_now);
        self.release_held(now);
        self.changes.begin(&mut self.raft, self.id, now, raft_now, self.election_timeout);
        let effects = self.raft.ready(raft_now);
        if let Some(membership) = &effects.membership {
            self.changes.in_force(membership)?;
        }
        if let Some(write) = effects.write {
            self.parts.metrics.log_entries.inc_by(write.entries.len() as u64);
            // A log that stopped has said why, or is about to: that ends the loop.
            let _ = self.parts.log.submit(DEFAULT_GROUP, write);
        }
        self.parts.outboxes.send(effects.messages);
        self.steps.replicated(self.raft.replicated_index(), now);
        if let Some(snapshot) = effects.restore {
            let last = snapshot.last;
            self.changes.committed(last.term, last.index, &snapshot.membership)?;
            self.restore(last);
        }
        self.snapshots.forget_received();
        self.apply(effects.committed)?;
        self.keep_log_short();
        for to in effects.snapshots {
            self.snapshots.send(to, self.raft.status().term);
        }
        for outcome in effects.reads {
            match outcome {
                ReadOutcome::Ready { context, index } => self.reads.confirmed(context, index),
                ReadOutcome::Lost { context } => {
                    self.reads.refuse(context, Refusal::LeaderChanged);
                }
            }
        }
        self.reads.applied(self.applied.index);
        for event in effects.events {
            self.tell(event);
        }
        // It stays so on the way from the old leader to the new one's first commit.
        let status = self.raft.status();
        self.handing_over =
            self.raft.is_transferring() || (self.handing_over && status.role != Role::Leader);
        let expired = self.proposals.expire(now, self.parts.patience);
        self.parts.metrics.proposals_failed.inc_by(expired);
        self.reads.expire(now, self.parts.patience);
        self.changes.expire(now, self.parts.patience);
        if self.changes.has_left(self.id) {
            self.proposals.refuse_all(Refusal::LeaderChanged);
            return Err(NodeError::Removed);
        }
        Ok(())
    }

    fn restore(&mut self, last: EntryId) {
        let restored = self.snapshots.restore(last);
        *self.parts.store.write().expect("nobody panics holding the store") = restored;
        self.applied = last;
        self.parts.restored.store(true, Ordering::Relaxed);
        // What became of them is in the snapshot, and cannot be told from it.
        let refused = self.proposals.refuse_all(Refusal::LeaderChanged);
        self.parts.metrics.proposals_failed.inc_by(refused);
        tracing::info!(index = last.index, "snapshot restored");
    }

    fn apply(&mut self, committed: Vec<Entry<Bytes>>) -> Result<(), NodeError> {
        if committed.is_empty() {
            return Ok(());
        }
        let committed_at = Instant::now();
        let mut store = self.parts.store.write().expect("nobody panics holding the store");
        for entry in committed {
            let waiting = self.proposals.committed(entry.term, entry.index);
            if let Payload::Membership(membership) = &entry.payload {
                self.changes.committed(entry.term, entry.index, membership)?;
            }
            if let Payload::Data(data) = entry.payload {
                self.snapshots.applied(data.len());
                let command = Command::decode(data)
                    .map_err(|error| NodeError::Command { index: entry.index, error })?;
                let result = store.apply(command);
                if let Some((proposed_at, reply)) = waiting {
                    self.steps.committed(proposed_at, committed_at);
                    self.answers.push((reply, result));
                }
            }
            self.applied = EntryId { index: entry.index, term: entry.term };
        }
        // The store's lock is what orders it with the reads.
        self.parts.restored.store(true, Ordering::Relaxed);
        self.changes.settled();
        drop(store);
        let applied_at = Instant::now();
        self.steps.applied(self.answers.len(), committed_at, applied_at);
        for (reply, result) in self.answers.drain(..) {
            // The client may have given up; the command is applied all the same.
            let _ = reply.send(Ok(Applied { result, at: applied_at }));
        }
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        self.parts.events.leadership(&event);
        if event.role != Role::Leader {
            self.steps.forget();
            self.changes.lost_office();
            // After an orderly transfer the new leader has all of them, and they are answered as
            // they are applied here.
            if !self.handing_over {
                let refused = self.proposals.refuse_all(Refusal::LeaderChanged);
                self.parts.metrics.proposals_failed.inc_by(refused);
            }
        }
        if event.reason == Reason::VoteWon {
            let refused = self.proposals.refuse_before(event.term, Refusal::LeaderChanged);
            self.parts.metrics.proposals_failed.inc_by(refused);
        }
        let aborted = event.reason == Reason::TransferAborted;
        if let Some((to, reply)) = self.transfer.take_if(|_| aborted || event.leader.is_some()) {
            let taken = !aborted && event.leader == Some(to);
            let _ = reply.send(if taken { Ok(()) } else { Err(TransferRefusal::Failed) });
        }
        let leader = event.leader.map(|leader| (event.term, leader));
        if leader.is_some() && leader != self.last_leader {
            self.last_leader = leader;
            self.parts.metrics.leader_changes.inc();
        }
        self.parts.view.send_replace(View { term: event.term, leader: event.leader });
    }

    fn inspect(&self) -> Inspection {
        let status = self.raft.status();
        let lag = |peer: raft::PeerStatus| {
            let name = self.parts.events.name(peer.id);
            (name, status.last_index.saturating_sub(peer.match_index))
        };
        Inspection {
            status,
            applied_index: self.applied.index,
            pending_proposals: self.proposals.len(),
            follower_lag: self.raft.peers().map(lag).collect(),
        }
    }
}
