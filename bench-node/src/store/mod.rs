//! Many groups on one node: the layer between the core and whatever runs it.
//!
//! Invariant: pure, as the core is. Inputs and the time go in, effects come out: no clock, no IO,
//! no thread, no channel. A client is answered only after its entry is committed and applied here.
//! So one seed replays a whole cluster with this code in it (`tests/cluster`), and the node's loop
//! (`driver`) is left with carrying effects out.
//!
//! # A turn
//! ```text
//! propose, read, receive, persisted, ...   any number of inputs
//! ready(now)      -> one write of the log for all groups, one batch for each peer
//! apply(now, ..)  -> answers, events, snapshots to write or send
//! ```
//! The two steps are apart so that what waits for the disk or the network is on its way before
//! anything is applied. A group that nothing came for and that no timer rang for is not asked.
//!
//! # What groups share
//! One log: the writes of a turn go down together, and a group that holds up the release of old
//! segments is made to take a snapshot ([`Groups::log_grew`]). One stream to each peer: what a turn
//! has for a peer is one batch. Heartbeats of all groups to a peer leave together, and as one
//! message: when one group's are due, the others' that would be due within half an interval go
//! along, which brings idle groups into step (CockroachDB's coalesced heartbeats, "Scaling Raft",
//! 2015). One snapshot is written at a time.

mod bugs;
mod group;
mod messages;
mod outcomes;
mod proposals;
mod snapshots;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use raft::{Change, ChangeError, Index, NodeId, PeerStatus, Recovered, Role, Status, Term};

use crate::GroupId;
use crate::error::NodeError;
use crate::kv::{Frozen, Store};
use crate::snapshot::SnapshotMeta;
use crate::wal::GroupWrite;
#[cfg(feature = "seeded-bugs")]
pub use bugs::SeededBug;
use group::Group;
use messages::Outgoing;
pub use messages::{Batch, Heartbeat, HeartbeatAnswer};
pub use outcomes::{Applied, Outcomes, Refusal, SnapshotTask, TransferRefusal};
pub use snapshots::{ReceivedSnapshot, SnapshotLimits};
pub use steps::Steps;

/// Who waits for answers: what is handed in with a request, and handed back with its outcome. A
/// channel in a node, a number in a simulation.
pub trait Waiters {
    /// For a write.
    type Write;
    /// For a read.
    type Read;
    /// For a transfer of leadership.
    type Transfer;
}

/// What all groups of a node have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a request may wait for its commit.
    pub patience: Duration,
    /// The groups' heartbeat interval.
    pub heartbeat: Duration,
    /// When snapshots are taken and how much of the log stays.
    pub snapshots: SnapshotLimits,
    /// A planted bug, for the tests that prove the checkers.
    #[cfg(feature = "seeded-bugs")]
    pub bug: Option<SeededBug>,
}

/// All groups of one node.
pub struct Groups<W: Waiters> {
    options: Options,
    groups: BTreeMap<GroupId, Group<W>>,
    /// Whose snapshot is being written.
    writing: Option<GroupId>,
    /// Nothing new is taken.
    stopping: bool,
    writes: Vec<GroupWrite>,
    outgoing: Outgoing,
    outcomes: Outcomes<W>,
}

impl<W: Waiters> Groups<W> {
    /// A node without groups yet; it is the member `id` of all that it will have.
    pub fn new(id: NodeId, options: Options) -> Self {
        Self {
            options,
            groups: BTreeMap::new(),
            writing: None,
            stopping: false,
            writes: Vec::new(),
            outgoing: Outgoing::of(id),
            outcomes: Outcomes::default(),
        }
    }

    /// Adds a group, from what the disk held of it. `kv` is the state at the recovered snapshot, and
    /// readers share it.
    ///
    /// # Errors
    /// As [`raft::Raft::new`].
    pub fn add(
        &mut self,
        now: Duration,
        group: GroupId,
        config: raft::Config,
        recovered: Recovered<Bytes>,
        kv: Arc<RwLock<Store>>,
        steps: Steps,
    ) -> Result<(), raft::ConfigError> {
        let limits = self.options.snapshots;
        let added = Group::new(now, group, config, recovered, kv, steps, limits)?;
        self.groups.insert(group, added);
        Ok(())
    }

    /// A command of a client, encoded, which came at `arrived`.
    pub fn propose(
        &mut self,
        now: Duration,
        group: GroupId,
        data: Bytes,
        arrived: Duration,
        waiter: W::Write,
    ) {
        let (stopping, outcomes) = (self.stopping, &mut self.outcomes);
        match self.groups.get_mut(&group) {
            Some(group) => group.propose(now, data, arrived, waiter, stopping, outcomes),
            None => outcomes.writes.push((waiter, Err(Refusal::NotLeader))),
        }
    }

    /// A linearizable read: answered once this member's store is recent enough.
    pub fn read(&mut self, group: GroupId, waiter: W::Read) {
        match self.groups.get_mut(&group) {
            Some(group) => group.read(waiter),
            None => self.outcomes.reads.push((waiter, Err(Refusal::NotLeader))),
        }
    }

    /// Messages of a peer.
    pub fn receive(&mut self, now: Duration, batch: Batch) {
        for (group, message) in batch.into_messages() {
            if let Some(group) = self.route(group) {
                group.receive(now, message);
            }
        }
    }

    /// This write of a group, and all before it, are durable since `at`.
    pub fn persisted(&mut self, group: GroupId, write_id: u64, at: Duration) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.persisted(write_id, at);
        }
    }

    /// The log takes so many bytes on the disk, and these groups hold back the release of its
    /// oldest segment, each until a snapshot of it reaches that index.
    pub fn log_grew(&mut self, bytes: u64, needed_by: &[(GroupId, Index)]) {
        if bytes <= self.options.snapshots.most_log_bytes() {
            return;
        }
        for (group, index) in needed_by {
            if let Some(group) = self.groups.get_mut(group) {
                group.want_snapshot(*index);
            }
        }
    }

    /// The connection to this peer broke.
    pub fn connection_lost(&mut self, now: Duration, peer: NodeId) {
        self.groups.values_mut().for_each(|group| group.connection_lost(now, peer));
    }

    /// Hand leadership of a group to this member; answered once it leads, or will not.
    pub fn transfer(&mut self, group: GroupId, to: NodeId, waiter: W::Transfer) {
        let outcomes = &mut self.outcomes;
        match self.groups.get_mut(&group) {
            Some(group) => group.transfer(to, waiter, outcomes),
            None => outcomes.transfers.push((waiter, Err(TransferRefusal::no_leader()))),
        }
    }

    /// Begins a change of a group's members; [`Outcomes::committed_memberships`] tells when it is
    /// committed, and C_new after it where it goes through C_old,new.
    ///
    /// # Errors
    /// As [`raft::Raft::change`]: nothing of it will happen.
    pub fn change(
        &mut self,
        group: GroupId,
        change: Change<Bytes>,
    ) -> Result<(Term, Index), ChangeError> {
        match self.groups.get_mut(&group) {
            Some(group) => group.change(change),
            None => Err(ChangeError::NotLeader { leader: None }),
        }
    }

    /// Makes these the voters in the eyes of this member alone, around the protocol: for experiments.
    pub fn unsafe_swap_membership(&mut self, group: GroupId, voters: Vec<NodeId>) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.unsafe_swap_membership(voters);
        }
    }

    /// Writing a group's snapshot ended; where it ends, if it is durable.
    pub fn snapshot_written(&mut self, group: GroupId, end: Option<Index>) {
        if self.writing == Some(group) {
            self.writing = None;
        }
        if let Some(group) = self.groups.get_mut(&group) {
            group.snapshot_written(end, &mut self.outcomes);
        }
    }

    /// Sending a group's snapshot ended, well or not.
    pub fn snapshot_sent(&mut self, group: GroupId, to: NodeId) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.snapshot_sent(to);
        }
    }

    /// A leader's snapshot is durable here.
    pub fn snapshot_received(&mut self, now: Duration, received: ReceivedSnapshot) {
        if let Some(group) = self.groups.get_mut(&received.group) {
            group.snapshot_received(now, received);
        }
    }

    /// Takes nothing more, and hands over what this member leads, if there is anyone. Ask
    /// [`Groups::is_settled`] for the end of that.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.groups.values_mut().for_each(Group::hand_over);
    }

    /// After [`Groups::stop`]: nothing that was taken waits, and who leads what was handed over is
    /// known, so that whoever asks can be sent there.
    pub fn is_settled(&self) -> bool {
        self.groups.values().all(Group::is_settled)
    }

    /// Whoever still waits for a read is told that this member stops.
    pub fn give_up(&mut self) {
        let outcomes = &mut self.outcomes;
        self.groups.values_mut().for_each(|group| group.give_up(outcomes));
    }

    /// Fires the timers that are due, which [`Groups::ready`] does, too: for who is about to ask for
    /// something that only a leader may do.
    pub fn tick(&mut self, now: Duration) {
        for group in self.groups.values_mut().filter(|group| group.deadline() <= now) {
            group.tick(now);
        }
    }

    /// Asks the protocol what to do. What comes of it is in [`Groups::take_writes`] and
    /// [`Groups::batches`], to be carried out before [`Groups::apply`].
    pub fn ready(&mut self, now: Duration) {
        if self.groups.len() > 1 {
            self.beat_together(now);
        }
        let Self { stopping, writes, outgoing, outcomes, .. } = self;
        for group in self.groups.values_mut().filter(|group| group.is_due(now)) {
            group.ready(now, *stopping, writes, outgoing, outcomes);
        }
        if self.groups.len() > 1 {
            outgoing.coalesce();
        }
    }

    /// What of this turn is to be made durable, in this order, as one submission.
    pub fn take_writes(&mut self) -> Vec<GroupWrite> {
        std::mem::take(&mut self.writes)
    }

    /// What this turn says to each peer; to be emptied by whoever sends it.
    pub fn batches(&mut self) -> &mut [Batch] {
        self.outgoing.batches()
    }

    /// Applies what is committed, and says what else is to be done. `clock` is asked before and
    /// after a group applies, so that this can be timed.
    ///
    /// # Errors
    /// [`NodeError::Command`]: an entry that this version cannot apply; the node must end.
    pub fn apply(
        &mut self,
        now: Duration,
        clock: &dyn Fn() -> Duration,
    ) -> Result<&mut Outcomes<W>, NodeError> {
        let Self { groups, outcomes, writing, options, .. } = self;
        for group in groups.values_mut() {
            group.apply(now, clock, options.patience, writing, outcomes)?;
        }
        Ok(outcomes)
    }

    /// What [`Groups::give_up`] left, and inputs since the last turn.
    pub fn outcomes(&mut self) -> &mut Outcomes<W> {
        &mut self.outcomes
    }

    /// When the protocol wants to be asked, whatever comes in.
    pub fn deadline(&self) -> Duration {
        self.groups.values().map(Group::deadline).min().unwrap_or(Duration::MAX)
    }

    /// The state of a group as it is applied now; `None` where there is no such group, or it is
    /// about to be restored.
    pub fn freeze(&self, group: GroupId) -> Option<(SnapshotMeta, Frozen)> {
        self.groups.get(&group).filter(|group| !group.is_being_restored()).map(Group::freeze)
    }

    /// Where a group stands.
    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.groups.get(&group).map(|group| group.raft().status())
    }

    /// The last index that a group applied; 0 where there is none.
    pub fn applied_index(&self, group: GroupId) -> Index {
        self.groups.get(&group).map_or(0, |group| group.applied().index)
    }

    /// Proposals of a group that wait for their commit.
    pub fn pending_proposals(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, Group::pending_proposals)
    }

    /// What this member knows of its peers in a group that it leads.
    pub fn peers(&self, group: GroupId) -> impl Iterator<Item = PeerStatus> + '_ {
        self.groups.get(&group).into_iter().flat_map(|group| group.raft().peers())
    }

    /// A group's membership in force.
    pub fn membership(&self, group: GroupId) -> Option<&raft::Membership<Bytes>> {
        self.groups.get(&group).map(|group| group.raft().membership())
    }

    /// Where a group's log begins.
    pub fn log_base(&self, group: GroupId) -> Index {
        self.groups.get(&group).map_or(0, |group| group.raft().base().index)
    }

    /// Shows the times of steps that were observed so far.
    pub fn flush_steps(&self) {
        self.groups.values().for_each(Group::flush_steps);
    }

    /// When one group's heartbeats are due, those of the others that are soon go along.
    fn beat_together(&mut self, now: Duration) {
        let beats = |group: &Group<W>| group.leads() && group.deadline() <= now;
        if self.groups.values().any(beats) {
            let soon = now + self.options.heartbeat / 2;
            let others = self.groups.values_mut().filter(|group| group.leads());
            others.filter(|group| group.deadline() <= soon).for_each(|group| group.beat(now));
        }
    }

    fn route(&mut self, group: GroupId) -> Option<&mut Group<W>> {
        let group = match self.options.misroutes() {
            true => self.groups.keys().copied().find(|&other| other > group).unwrap_or(group),
            false => group,
        };
        self.groups.get_mut(&group)
    }
}

/// The term of a group's leader, for what is done in its name.
fn leads(status: &Status) -> Option<Term> {
    (status.role == Role::Leader).then_some(status.term)
}
