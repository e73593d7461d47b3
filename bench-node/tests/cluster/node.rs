//! One node: its disk, and, while it runs, all of the shipped code that a process holds.
//!
//! Invariant: what the shipped code decides is decided by it (recovery, the log's bytes and order,
//! who is let in, what is applied and answered when); this file only carries things between its
//! parts, as the node's own threads do, and takes the time that disks take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bench_node::disk::Simulated;
use bench_node::identity::{DataDir, Fresh, IdentityError};
use bench_node::kv::{Frozen, Store};
use bench_node::snapshot::{Incoming, Outgoing, SnapshotError, SnapshotMeta, Snapshots};
use bench_node::store::{Groups, Steps, Waiters};
use bench_node::wal::{self, Durable, GroupWrite, Wal, WalError};
use bench_node::{GroupId, RecoveredGroup, recover};
use bytes::Bytes;
use raft::{EntryId, NodeId, Recovered, Term};

use crate::plan::Plan;
use crate::random::Random;

const DATA_DIR: &str = "/data";
const CLUSTER: u64 = 7;

/// Whoever waits is an operation of a client, by its number.
pub(crate) struct Numbers;

impl Waiters for Numbers {
    type Write = u64;
    type Read = u64;
    type Transfer = ();
}

/// A running process.
pub(crate) struct Process {
    pub(crate) data_dir: DataDir<Simulated>,
    pub(crate) wal: Wal<Simulated>,
    pub(crate) snapshots: Snapshots<Simulated>,
    /// Absent until a majority of the others knows this node.
    pub(crate) groups: Option<Groups<Numbers>>,
    pub(crate) kvs: BTreeMap<GroupId, Arc<RwLock<Store>>>,
    /// What the groups start from, until they do.
    waiting: BTreeMap<GroupId, Recovered<Bytes>>,
    /// Who wrote down this node since this start.
    pub(crate) known_by: BTreeSet<NodeId>,
    /// Writes for the log's thread that are not on their way yet.
    pub(crate) queued: Vec<GroupWrite>,
    /// A snapshot that is being written.
    pub(crate) snapshot: Option<(SnapshotMeta, Frozen)>,
    pub(crate) sending: BTreeMap<u64, Transfer>,
    /// From whom a snapshot is being received, in which transfer of its.
    pub(crate) receiving: Option<(NodeId, u64, Incoming<Simulated>)>,
    /// It was told to stop; when it stops waiting.
    pub(crate) stops_us: Option<u64>,
}

/// A snapshot on its way to a member.
pub(crate) struct Transfer {
    pub(crate) group: GroupId,
    pub(crate) to: NodeId,
    pub(crate) term: Term,
    pub(crate) outgoing: Outgoing<Simulated>,
    pub(crate) offset: Option<u64>,
    pub(crate) attempts: u32,
}

/// Why a process did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    Identity(IdentityError),
    Log(WalError),
    Snapshot(SnapshotError),
}

impl StartError {
    /// Whether the disk failed, rather than what is on it.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        matches!(
            self,
            Self::Identity(IdentityError::Disk(_))
                | Self::Log(WalError::Disk(_))
                | Self::Snapshot(SnapshotError::Disk(_))
        )
    }
}

impl From<IdentityError> for StartError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

impl From<WalError> for StartError {
    fn from(error: WalError) -> Self {
        Self::Log(error)
    }
}

impl From<SnapshotError> for StartError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

/// Where the log lies.
pub(crate) fn wal_dir() -> &'static Path {
    Path::new("/data/wal")
}

impl Process {
    /// Recovers what the disk has, as a node does.
    pub(crate) fn start(
        disk: &Simulated,
        id: NodeId,
        plan: &Plan,
        random: &mut Random,
    ) -> Result<Self, StartError> {
        let fresh = Fresh { incarnation: random.next(), founders: &[] };
        let mut data_dir = DataDir::open_on(disk.clone(), Path::new(DATA_DIR), CLUSTER, id, fresh)?;
        plan.plant_in_data_dir(&mut data_dir);
        let dir = data_dir.snapshots_dir();
        let snapshots = Snapshots::open(disk.clone(), &dir, plan.snapshots.clone())?;
        let options = wal::Options {
            generation_seed: random.next(),
            must_exist: data_dir.introduced(),
            ..plan.wal.clone()
        };
        let (wal, mut logs) = wal::open(disk.clone(), &data_dir.wal_dir(), options)?;
        if plan.nodes == 1 {
            data_dir.set_introduced()?;
        }
        let (mut waiting, mut kvs) = (BTreeMap::new(), BTreeMap::new());
        for group in 0..plan.groups {
            let log = logs.remove(&group).unwrap_or_default();
            let founding = founding(plan, id);
            let RecoveredGroup { recovered, mut kv, .. } =
                recover(group, log, &snapshots, founding)?;
            plan.plant_in_kv(&mut kv);
            waiting.insert(group, recovered);
            kvs.insert(group, Arc::new(RwLock::new(kv)));
        }
        Ok(Self {
            data_dir,
            wal,
            snapshots,
            groups: None,
            kvs,
            waiting,
            known_by: BTreeSet::new(),
            queued: Vec::new(),
            snapshot: None,
            sending: BTreeMap::new(),
            receiving: None,
            stops_us: None,
        })
    }

    /// What was recovered, until the groups start.
    pub(crate) fn recovered(&self) -> &BTreeMap<GroupId, Recovered<Bytes>> {
        &self.waiting
    }

    /// What the log knows to be durable, in order.
    pub(crate) fn take_durable(&mut self) -> Result<Vec<Durable>, WalError> {
        let mut all = Vec::new();
        while let Some(durable) = self.wal.take_durable()? {
            all.push(durable);
        }
        Ok(all)
    }

    /// Writes what waits, as the log's thread does at its end; how many writes became durable.
    pub(crate) fn write_out(&mut self) -> Result<usize, WalError> {
        let mut writes = 0;
        loop {
            writes += self.take_durable()?.iter().map(|d| d.appended.writes).sum::<usize>();
            if !self.queued.is_empty() && self.wal.has_room() {
                self.wal.submit(&std::mem::take(&mut self.queued))?;
            } else if self.wal.is_idle() {
                return Ok(writes);
            } else {
                self.wal.wait();
            }
        }
    }

    /// This node takes part from now on.
    pub(crate) fn take_part(
        &mut self,
        now: Duration,
        id: NodeId,
        plan: &Plan,
        random: &mut Random,
    ) {
        let mut groups = Groups::new(id, plan.store_options());
        for (group, recovered) in std::mem::take(&mut self.waiting) {
            let config = raft::Config { id, seed: random.next(), ..plan.raft.clone() };
            let kv = Arc::clone(&self.kvs[&group]);
            groups
                .add(now, group, config, recovered, kv, Steps::unseen())
                .unwrap_or_else(|error| panic!("node {id}, group {group}: {error}"));
        }
        self.groups = Some(groups);
    }
}

/// What a group begins with on a node: its founders are its members, others wait to be let in.
pub(crate) fn founding(plan: &Plan, id: NodeId) -> raft::Snapshot<Bytes> {
    let voters = if id <= plan.founders { (1..=plan.founders).collect() } else { Vec::new() };
    let (outgoing, learners, context) = (Vec::new(), Vec::new(), Bytes::new());
    let membership = raft::Membership { voters, outgoing, learners, context };
    raft::Snapshot { last: EntryId::default(), membership }
}
