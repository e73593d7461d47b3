//! The one loop that joins the groups, the log, the state and the peers.
//!
//! Invariant: it decides nothing. What comes in is handed to `store`, which is pure; what that says
//! is to be done is done here, the log and the peers first. After a failure of the log nothing is
//! answered with a result at all. Every turn takes in all that waits, then asks once what to do: so
//! under load a turn costs one write of the log, one message batch per peer, and one lock of the
//! state, however many requests it carries.
//!
//! The loop is a task among those that serve requests. It yields once before it takes in, so that
//! the requests that were read from the sockets together are proposed together.

mod changes;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::{Index, NodeId, Role, Status, Term, TransferError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use crate::config::Settings;
use crate::error::NodeError;
use crate::events::EventLog;
use crate::kv::{Frozen, KvError, Response, Store};
use crate::members::{Ask, Rosters};
use crate::metrics::Metrics;
use crate::peers::Outboxes;
use crate::snapshot::{SnapshotError, SnapshotMeta};
use crate::store::{
    Batch, Groups, Options, ReceivedSnapshot, SnapshotLimits, SnapshotTask, Steps, Waiters,
};
pub(crate) use crate::store::{Refusal, TransferRefusal};
use crate::wal::{self, WalError};
use crate::{DEFAULT_GROUP, GroupId};
use changes::Changes;
pub(crate) use changes::{ChangeSender, Changed, NoChange};

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
        /// Of the data directory that it speaks from.
        incarnation: u64,
        /// All of it its own.
        batch: Batch,
    },
    /// This write of a group, and all before it, are durable since then.
    Persisted(GroupId, u64, Instant),
    /// The log takes so many bytes on the disk; these groups need its oldest segment until a
    /// snapshot of theirs reaches that index.
    LogGrew(u64, Vec<(GroupId, Index)>),
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
    /// Writing a group's snapshot ended: where the snapshot ends.
    SnapshotWritten(GroupId, Result<Index, SnapshotError>),
    /// Sending a group's snapshot ended, well or not.
    SnapshotSent(GroupId, NodeId),
    /// A snapshot came from a leader.
    SnapshotReceived(Box<ReceivedSnapshot>),
    /// Where does this member stand?
    Inspect(oneshot::Sender<Inspection>),
    /// Answer what is on its way, hand over, and end.
    Stop,
}

/// A proposal that was committed, and applied here.
pub(crate) struct Applied {
    /// What the store made of it.
    pub result: Result<Response, KvError>,
    /// Since when the store holds it.
    pub at: Instant,
}

/// What became of a proposal.
pub(crate) type Outcome = Result<Applied, Refusal>;

/// Tells a proposer what became of its command.
pub(crate) enum OutcomeSender {
    /// A call, which waits for it alone.
    Call(oneshot::Sender<Outcome>),
    /// One of many requests that share a stream.
    Session(Ticket),
}

/// Whoever has many commands on their way, by its own numbers.
pub(crate) trait Proposer: Send + Sync {
    /// What became of one; the command comes back with it.
    fn settle(self: Arc<Self>, number: u64, command: Bytes, outcome: Outcome);
}

/// A command on its way. It is settled once, whatever happens: one that is dropped has an unknown
/// outcome, for the loop has ended.
pub(crate) struct Ticket(Option<(Arc<dyn Proposer>, u64, Bytes)>);

impl OutcomeSender {
    /// Whoever waits may have given up.
    pub(crate) fn send(self, outcome: Outcome) {
        match self {
            Self::Call(reply) => drop(reply.send(outcome)),
            Self::Session(ticket) => ticket.settle(outcome),
        }
    }
}

impl Ticket {
    pub(crate) fn new(proposer: Arc<dyn Proposer>, number: u64, command: Bytes) -> Self {
        Self(Some((proposer, number, command)))
    }

    fn settle(mut self, outcome: Outcome) {
        if let Some((proposer, number, command)) = self.0.take() {
            proposer.settle(number, command, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((proposer, number, command)) = self.0.take() {
            proposer.settle(number, command, Err(Refusal::Stopped));
        }
    }
}
/// Tells a reader that the store is recent enough.
pub(crate) type ReadSender = oneshot::Sender<Result<(), Refusal>>;

/// Those who wait do so at a channel.
struct Channels;

impl Waiters for Channels {
    type Write = OutcomeSender;
    type Read = ReadSender;
    type Transfer = oneshot::Sender<Result<(), TransferRefusal>>;
}

/// Writes and sends snapshots, away from the loop; what comes of it is an input.
pub(crate) trait SnapshotRoom: Send + Sync {
    /// Writes one; [`Input::SnapshotWritten`] tells its end.
    fn write(&self, meta: SnapshotMeta, frozen: Frozen);
    /// Removes those of a group before the one with this index.
    fn remove_older(&self, group: GroupId, index: Index);
    /// Sends a group's newest one, in the name of the leader of `term`; [`Input::SnapshotSent`] tells
    /// its end.
    fn send(self: Arc<Self>, group: GroupId, to: NodeId, term: Term);
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
            Some(Input::Propose { reply, .. }) => reply.send(Err(Refusal::NotLeader)),
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
                | Input::LogGrew(..)
                | Input::ConnectionLost(_)
                | Input::Freeze(_)
                | Input::SnapshotWritten(..)
                | Input::SnapshotSent(..)
                | Input::SnapshotReceived(_),
            ) => {}
        }
    }
    let Settings { snapshot_entries, snapshot_bytes, snapshot_keep_entries, .. } = parts.settings;
    let options = Options {
        patience: parts.patience,
        heartbeat: config.heartbeat,
        snapshots: SnapshotLimits {
            every_entries: snapshot_entries.get(),
            every_bytes: snapshot_bytes.get(),
            keep_entries: snapshot_keep_entries,
        },
        #[cfg(feature = "seeded-bugs")]
        bug: None,
    };
    let (id, election_timeout) = (config.id, config.election_timeout);
    let applied_index = recovered.snapshot.last.index;
    let mut groups = Groups::new(id, options);
    let steps = Steps::new(parts.metrics.step_times());
    let kv = Arc::clone(&parts.store);
    groups.add(Duration::ZERO, DEFAULT_GROUP, config, recovered, kv, steps)?;
    let changes = Changes::new(parts.rosters.clone());
    let origin = Instant::now();
    Driver { groups, origin, parts, id, election_timeout, changes, applied_index }.run().await
}

struct Driver {
    groups: Groups<Channels>,
    /// The groups' time counts from here.
    origin: Instant,
    parts: Parts,
    id: NodeId,
    election_timeout: Duration,
    changes: Changes,
    /// What was applied before this turn.
    applied_index: Index,
}

impl Driver {
    async fn run(mut self) -> Result<(), NodeError> {
        let mut taken_in = Vec::new();
        let mut stopping = false;
        self.turn(Duration::ZERO)?;
        let mut alarm = pin!(sleep_until(self.deadline()));
        while !stopping || !self.is_settled() {
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
            let now = self.origin.elapsed();
            for input in taken_in.drain(..) {
                stopping |= self.take_in(now, input)?;
            }
            self.turn(now)?;
        }
        self.groups.give_up();
        self.changes.refuse_all(Refusal::Stopped);
        for (reply, outcome) in self.groups.outcomes().reads.drain(..) {
            let _ = reply.send(outcome);
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.groups.is_settled() && self.changes.is_idle()
    }

    /// When the groups, or changes that wait, want to be asked, whatever comes in.
    fn deadline(&self) -> tokio::time::Instant {
        (self.origin + self.groups.deadline().min(self.changes.deadline())).into()
    }

    /// Whether the input said to stop.
    fn take_in(&mut self, now: Duration, input: Input) -> Result<bool, NodeError> {
        let (groups, origin) = (&mut self.groups, self.origin);
        match input {
            Input::Propose { data, arrived, reply } => {
                let arrived = arrived.saturating_duration_since(origin);
                groups.propose(now, DEFAULT_GROUP, data, arrived, reply);
            }
            Input::Read(reply) => groups.read(DEFAULT_GROUP, reply),
            Input::Messages { incarnation, batch } => {
                if !self.changes.is_stranger(batch.from, incarnation) {
                    groups.receive(now, batch);
                }
            }
            Input::Persisted(group, id, at) => {
                groups.persisted(group, id, at.saturating_duration_since(origin));
            }
            Input::LogGrew(bytes, needed_by) => groups.log_grew(bytes, &needed_by),
            Input::LogFailed(error) => return Err(NodeError::Log(error)),
            Input::Introduced => {}
            Input::ConnectionLost(peer) => groups.connection_lost(now, peer),
            Input::Transfer(to, reply) => groups.transfer(DEFAULT_GROUP, to, reply),
            Input::ChangeMembers(ask, reply) => self.changes.ask(ask, now, reply),
            Input::SwapMembers(voters, reply) => {
                groups.unsafe_swap_membership(DEFAULT_GROUP, voters);
                let _ = reply.send(());
            }
            // Between a snapshot's arrival and its restoring, who asks is told to ask again.
            Input::Freeze(reply) => {
                if let Some(frozen) = groups.freeze(DEFAULT_GROUP) {
                    drop(reply.send(frozen));
                }
            }
            Input::SnapshotWritten(group, written) => {
                if let Err(error) = &written {
                    // The log goes on growing; the next one may succeed.
                    tracing::error!(reason = error.to_string(), "snapshot not written");
                }
                groups.snapshot_written(group, written.ok());
            }
            Input::SnapshotSent(group, to) => groups.snapshot_sent(group, to),
            Input::SnapshotReceived(received) => groups.snapshot_received(now, *received),
            Input::Inspect(reply) => {
                groups.flush_steps();
                drop(reply.send(self.inspect()));
            }
            Input::Stop => {
                self.changes.stop();
                groups.stop();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks the groups what to do, and does it.
    fn turn(&mut self, now: Duration) -> Result<(), NodeError> {
        let Self { groups, parts, origin, changes, .. } = self;
        // A leader that was away for too long is none any more.
        groups.tick(now);
        changes.begin(groups, self.id, now, self.election_timeout);
        groups.ready(now);
        let writes = groups.take_writes();
        if !writes.is_empty() {
            let entries = writes.iter().map(|write| write.write.entries.len() as u64).sum();
            parts.metrics.log_entries.inc_by(entries);
            // A log that stopped has said why, or is about to: that ends the loop.
            let _ = parts.log.submit(writes);
        }
        for batch in groups.batches().iter_mut().filter(|batch| !batch.is_empty()) {
            parts.outboxes.send(batch);
        }

        let outcomes = groups.apply(now, &|| origin.elapsed())?;
        parts.metrics.proposals_failed.inc_by(std::mem::take(&mut outcomes.failed_proposals));
        parts.metrics.leader_changes.inc_by(std::mem::take(&mut outcomes.leader_changes));
        // Before anyone is answered: who reads the members next reads these.
        for (_, membership) in outcomes.memberships.drain(..) {
            changes.in_force(&membership)?;
        }
        for (_, at, membership) in outcomes.committed_memberships.drain(..) {
            changes.committed(at, &membership)?;
        }
        // Whoever waits may have given up; the command is applied all the same.
        for (reply, outcome) in outcomes.writes.drain(..) {
            let applied = |applied: crate::store::Applied| Applied {
                result: applied.result,
                at: *origin + applied.at,
            };
            reply.send(outcome.map(applied));
        }
        for (reply, outcome) in outcomes.reads.drain(..) {
            let _ = reply.send(outcome);
        }
        for (group, index) in outcomes.restored.drain(..) {
            tracing::info!(group, index, "snapshot restored");
        }
        for (_, event) in outcomes.events.drain(..) {
            if event.role != Role::Leader {
                changes.lost_office();
            }
            parts.events.leadership(&event);
            parts.view.send_replace(View { term: event.term, leader: event.leader });
        }
        for (reply, outcome) in outcomes.transfers.drain(..) {
            let _ = reply.send(outcome);
        }
        for task in outcomes.snapshots.drain(..) {
            match task {
                SnapshotTask::Write { meta, frozen } => parts.snapshots.write(meta, frozen),
                SnapshotTask::RemoveOlder { group, index } => {
                    parts.snapshots.remove_older(group, index);
                }
                SnapshotTask::Send { group, to, term } => {
                    Arc::clone(&parts.snapshots).send(group, to, term);
                }
            }
        }
        let applied_index = groups.applied_index(DEFAULT_GROUP);
        if applied_index > self.applied_index {
            self.applied_index = applied_index;
            // The store's lock is what orders it with the reads.
            parts.restored.store(true, Ordering::Relaxed);
            changes.settled();
        }
        changes.expire(now, parts.patience);
        if changes.has_left(self.id) {
            changes.send_away();
            return Err(NodeError::Removed);
        }
        Ok(())
    }

    fn inspect(&self) -> Inspection {
        let Some(status) = self.groups.status(DEFAULT_GROUP) else {
            return Inspection::unstarted();
        };
        let lag = |peer: raft::PeerStatus| {
            let name = self.parts.events.name(peer.id);
            (name, status.last_index.saturating_sub(peer.match_index))
        };
        Inspection {
            status,
            applied_index: self.groups.applied_index(DEFAULT_GROUP),
            pending_proposals: self.groups.pending_proposals(DEFAULT_GROUP),
            follower_lag: self.groups.peers(DEFAULT_GROUP).map(lag).collect(),
        }
    }
}
