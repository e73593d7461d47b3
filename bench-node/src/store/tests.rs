//! Nodes that say everything to each other at once, and whose disks take no time.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use api::etcdserverpb::PutRequest;
use raft::Role;

use super::*;
use crate::kv::Command;

const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
const HEARTBEAT: Duration = Duration::from_millis(100);

struct Numbers;

impl Waiters for Numbers {
    type Write = u64;
    type Read = u64;
    type Transfer = u64;
}

struct Nodes {
    nodes: Vec<Groups<Numbers>>,
    now: Duration,
    answers: Vec<(u64, Result<Applied, Refusal>)>,
    /// The voters of what was committed, as nodes heard of it.
    memberships: Vec<(Index, Vec<NodeId>)>,
    /// What was said in the last step.
    said: Vec<Batch>,
    /// Whom nobody hears, and who hears nobody.
    cut: Option<NodeId>,
}

impl Nodes {
    /// Three members of so many groups, of which the first one leads all.
    fn new(groups: GroupId, limits: SnapshotLimits) -> Self {
        let options = Options {
            patience: Duration::from_secs(5),
            heartbeat: HEARTBEAT,
            snapshots: limits,
            #[cfg(feature = "seeded-bugs")]
            bug: None,
        };
        let node = |id: NodeId| {
            let mut node = Groups::new(id, options.clone());
            for group in 0..groups {
                let mut config = raft::Config::new(id, 7 * id + group);
                config.election_timeout = ELECTION_TIMEOUT * if id == 1 { 1 } else { 10 };
                config.heartbeat = HEARTBEAT;
                let founding = Recovered::founding(vec![1, 2, 3], Bytes::new());
                let kv = Arc::new(RwLock::new(Store::default()));
                node.add(Duration::ZERO, group, config, founding, kv, Steps::unseen())
                    .expect("a good configuration");
            }
            node
        };
        let nodes = (1..=3).map(node).collect();
        let (answers, memberships, said) = (Vec::new(), Vec::new(), Vec::new());
        let mut nodes = Self { nodes, now: Duration::ZERO, answers, memberships, said, cut: None };
        while (0..groups).any(|group| nodes.role(1, group) != Role::Leader) {
            nodes.step();
        }
        nodes
    }

    fn node(&mut self, id: NodeId) -> &mut Groups<Numbers> {
        &mut self.nodes[id as usize - 1]
    }

    fn role(&self, id: NodeId, group: GroupId) -> Role {
        self.nodes[id as usize - 1].status(group).expect("it has the group").role
    }

    /// A millisecond.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        self.said.clear();
        loop {
            let mut batches = Vec::new();
            for node in &mut self.nodes {
                node.ready(self.now);
                for write in node.take_writes() {
                    node.persisted(write.group, write.write.id, self.now);
                }
                let said = node.batches().iter_mut().filter(|batch| !batch.is_empty());
                batches.extend(said.map(|batch| Batch {
                    from: batch.from,
                    to: batch.to,
                    messages: std::mem::take(&mut batch.messages),
                    heartbeats: std::mem::take(&mut batch.heartbeats),
                    answers: std::mem::take(&mut batch.answers),
                }));
                let outcomes = node.apply(self.now, &|| self.now).expect("good commands");
                self.answers.append(&mut outcomes.writes);
                for (_, at, membership) in outcomes.committed_memberships.drain(..) {
                    self.memberships.push((at.index, membership.voters));
                }
            }
            batches.retain(|batch| batch.to <= 3);
            batches.retain(|batch| self.cut.is_none_or(|cut| batch.from != cut && batch.to != cut));
            if batches.is_empty() {
                return;
            }
            for batch in batches {
                self.said.push(batch.clone());
                let now = self.now;
                self.node(batch.to).receive(now, batch);
            }
        }
    }

    fn steps(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn put(&mut self, id: NodeId, group: GroupId, waiter: u64, bytes: usize) {
        let value = vec![b'v'; bytes].into();
        let put = PutRequest { key: waiter.to_string().into(), value, ..Default::default() };
        let (now, data) = (self.now, Command::Put(put).encode());
        self.node(id).propose(now, group, data, now, waiter);
    }

    fn answer(&self, waiter: u64) -> Option<&Result<Applied, Refusal>> {
        self.answers.iter().find(|(other, _)| *other == waiter).map(|(_, answer)| answer)
    }
}

const SELDOM: SnapshotLimits =
    SnapshotLimits { every_entries: 1 << 40, every_bytes: 1 << 40, keep_entries: 0 };

#[test]
fn heartbeats_of_all_groups_leave_together_as_one_message() {
    let mut nodes = Nodes::new(3, SELDOM);
    // Out of step with the others at first.
    nodes.steps(HEARTBEAT / 3);
    nodes.put(1, 2, 1, 10);
    nodes.steps(4 * HEARTBEAT);
    let mut beats = 0;
    for _ in 0..(10 * HEARTBEAT).as_millis() {
        nodes.step();
        for batch in &nodes.said {
            assert_eq!(batch.messages, [], "only heartbeats in an idle cluster");
            let groups: Vec<_> = match batch.from {
                1 => batch.heartbeats.iter().map(|beat| beat.group).collect(),
                _ => batch.answers.iter().map(|answer| answer.group).collect(),
            };
            assert_eq!(groups, [0, 1, 2]);
            beats += u32::from(batch.from == 1);
        }
    }
    assert!((18..=22).contains(&beats), "one to each peer in each interval, not {beats}");
}

#[test]
fn groups_are_apart_and_one_that_is_not_here_takes_nothing() {
    let mut nodes = Nodes::new(2, SELDOM);
    nodes.put(1, 0, 1, 10);
    nodes.put(1, 1, 2, 10);
    nodes.put(1, 9, 3, 10);
    nodes.put(2, 0, 4, 10);
    nodes.steps(HEARTBEAT);
    assert!(
        nodes.answer(1).is_some_and(Result::is_ok) && nodes.answer(2).is_some_and(Result::is_ok)
    );
    assert_eq!(nodes.answer(3), Some(&Err(Refusal::NotLeader)));
    assert_eq!(nodes.answer(4), Some(&Err(Refusal::NotLeader)));
    for id in 1..=3 {
        let keys = |group| {
            let (_, frozen) = nodes.nodes[id - 1].freeze(group).expect("it has the group");
            frozen.records_after(None).map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        assert_eq!((keys(0), keys(1)), (vec!["1".into()], vec!["2".into()]));
    }
}

#[test]
fn what_comes_while_a_leader_that_stops_hands_over_is_sent_to_its_successor() {
    let mut nodes = Nodes::new(1, SELDOM);
    nodes.put(1, 0, 1, 10);
    nodes.node(1).stop();
    nodes.put(1, 0, 2, 10);
    assert!(!nodes.node(1).is_settled());
    let events = nodes.said.len();
    while !nodes.node(1).is_settled() {
        nodes.step();
    }
    assert!(events < nodes.said.len());
    assert!(nodes.answer(1).is_some_and(Result::is_ok), "it was on its way");
    assert_eq!(
        nodes.answer(2),
        Some(&Err(Refusal::NotLeader)),
        "never taken, so brought elsewhere"
    );
    let leader = nodes.node(1).status(0).expect("a group").leader;
    assert!(leader.is_some_and(|leader| leader != 1), "known before it is left: {leader:?}");
}

#[test]
fn a_leader_that_stops_and_finds_no_successor_takes_nothing_more() {
    let mut nodes = Nodes::new(1, SELDOM);
    nodes.cut = Some(1);
    nodes.node(1).stop();
    nodes.put(1, 0, 1, 10);
    // As long as a transfer may take; then leadership is lost, too.
    nodes.steps(2 * ELECTION_TIMEOUT);
    assert!(matches!(nodes.answer(1), Some(Err(Refusal::Stopped | Refusal::NotLeader))));
}

#[test]
fn the_log_is_bounded_in_bytes_as_well_as_in_entries() {
    let limits = SnapshotLimits { every_entries: 1 << 40, every_bytes: 10_000, keep_entries: 50 };
    let mut nodes = Nodes::new(1, limits);
    let mut snapshots = 0;
    for waiter in 1..=40 {
        nodes.put(1, 0, waiter, 1000);
        nodes.step();
        let now = nodes.now;
        let node = nodes.node(1);
        let tasks: Vec<_> = node.outcomes().snapshots.drain(..).collect();
        for task in tasks {
            if let SnapshotTask::Write { meta, .. } = task {
                snapshots += 1;
                node.snapshot_written(0, Some(meta.last_included.index));
                node.ready(now);
            }
        }
        nodes.step();
    }
    let last = nodes.node(1).status(0).expect("a group").last_index;
    let base = nodes.node(1).log_base(0);
    assert!(snapshots >= 3, "{snapshots}");
    // What came since the last snapshot, and a quarter of that before it.
    assert!(last - base <= 13, "{} entries of 1 kB stay", last - base);
    assert!(last - base >= 2, "some stay for members that lag");
}

#[test]
fn a_group_that_holds_the_log_back_takes_a_snapshot() {
    let limits = SnapshotLimits { every_entries: 1 << 40, every_bytes: 1000, keep_entries: 100 };
    let mut nodes = Nodes::new(2, limits);
    nodes.put(1, 1, 1, 10);
    nodes.steps(HEARTBEAT);
    let applied = nodes.node(1).applied_index(1);
    nodes.node(1).log_grew(8_000, &[(1, applied)]);
    nodes.step();
    assert_eq!(nodes.node(1).outcomes().snapshots.len(), 0, "it is not too long yet");
    nodes.node(1).log_grew(8_001, &[(1, applied)]);
    nodes.step();
    let task = nodes.node(1).outcomes().snapshots.pop();
    let Some(SnapshotTask::Write { meta, .. }) = task else { panic!("a snapshot, not {task:?}") };
    assert_eq!((meta.group, meta.last_included.index), (1, applied));
    nodes.node(1).snapshot_written(1, Some(applied));
    nodes.step();
    assert_eq!(nodes.node(1).log_base(1), applied, "nothing of it stays");
    assert_eq!(nodes.node(1).log_base(0), 0);
}

#[test]
fn a_change_of_members_is_told_when_it_is_committed() {
    let mut nodes = Nodes::new(1, SELDOM);
    let change = |voters: &[NodeId]| Change {
        voters: voters.to_vec(),
        learners: vec![],
        context: Bytes::new(),
    };
    assert!(nodes.node(2).change(0, change(&[1, 2])).is_err(), "it does not lead");
    assert!(nodes.node(1).change(9, change(&[1, 2])).is_err(), "no such group");
    nodes.steps(HEARTBEAT);
    let (_, index) = nodes.node(1).change(0, change(&[1, 2])).expect("it leads");
    nodes.steps(2 * HEARTBEAT);
    // From each that hears of it.
    assert!(nodes.memberships.len() >= 2);
    assert!(nodes.memberships.iter().all(|told| *told == (index, vec![1, 2])));
    assert_eq!(nodes.node(1).membership(0).map(|members| members.voters.len()), Some(2));
}
