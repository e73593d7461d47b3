//! A simulated world: nodes with their own clocks and disks, a network that loses and reorders,
//! clients, and everything that breaks. One thread, one seed; the same seed gives the same run.
//!
//! Invariant: what a node does is done by the shipped code. Only disk, clock and socket are
//! simulated: the disk by `disk::Simulated`, with the time that it takes added here; messages pass
//! as the bytes that a socket would carry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::peer::PeerBatch;
use bench_node::GroupId;
use bench_node::disk::{Disk, Simulated};
use bench_node::store::{Batch, Groups};
use bench_node::wire;
use bytes::Bytes;
use prost::Message as _;
use raft::{NodeId, Role};

use crate::agenda::Agenda;
use crate::checker::{Checker, Checks};
use crate::clients::Clients;
use crate::node::{Numbers, Process};
use crate::plan::{BROKEN_US, Bug, ELECTION_TIMEOUT_US, Plan, RECOVERY_US, Theme};
use crate::random::Random;
use crate::tally::Tally;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    pub(crate) hosts: Vec<Host>,
    pub(crate) checker: Checker,
    pub(crate) clients: Clients,
    pub(crate) now_us: u64,
    agenda: Agenda<What>,
    /// Links, from and to, that carry nothing.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// Counts partitions, so that an old one's end does not heal a new one.
    pub(crate) partition: u64,
    pub(crate) healed: bool,
    /// When a batch last arrived over a link, for links that keep their order.
    arrives_us: BTreeMap<(NodeId, NodeId), u64>,
    /// The latest batch that arrived over a link.
    arrived: BTreeMap<(NodeId, NodeId), u64>,
    pub(crate) transfers: u64,
    pub(crate) tally: Tally,
    pub(crate) elections: u64,
    pub(crate) recoveries: u64,
    trace: bool,
}

/// What surrounds one node.
pub(crate) struct Host {
    pub(crate) disk: Simulated,
    pub(crate) process: Option<Process>,
    /// Starts so far: what was addressed to an earlier one is void.
    pub(crate) start: u64,
    clock_offset_ns: u64,
    /// Nanoseconds of its clock per microsecond of the world: 1000 in a good clock.
    clock_rate: u64,
    /// What happened to it while it was paused.
    pub(crate) paused: Option<Vec<What>>,
    pub(crate) turn_due: bool,
    pub(crate) deadline_us: Option<u64>,
    /// Its disk does nothing before this.
    pub(crate) stalled_until_us: u64,
    /// It lost its disk, or something on it: what it promised may be gone.
    pub(crate) lost: bool,
    pub(crate) wiped: bool,
    /// The others knew it once, so that it could take part.
    pub(crate) took_part: bool,
    /// It was refused for that, or refused to start.
    pub(crate) gone: bool,
    /// A member that was removed, and was switched off.
    pub(crate) retired: bool,
    /// A fault was armed at its disk that has not struck yet.
    pub(crate) armed: bool,
}

#[derive(Debug)]
pub(crate) enum What {
    Deliver {
        order: u64,
        from: NodeId,
        from_start: u64,
        to: NodeId,
        bytes: Bytes,
    },
    Introduce {
        id: NodeId,
        start: u64,
    },
    Turn {
        id: NodeId,
        start: u64,
    },
    LogWritten {
        id: NodeId,
        start: u64,
    },
    Persisted {
        id: NodeId,
        start: u64,
        groups: Vec<(GroupId, u64)>,
    },
    SnapshotWritten {
        id: NodeId,
        start: u64,
    },
    SendSnapshot {
        id: NodeId,
        start: u64,
        transfer: u64,
    },
    /// A client's operation reaches a node.
    Arrive {
        id: NodeId,
        operation: u64,
    },
    /// A client learns what came of it.
    Answer {
        operation: u64,
        answer: crate::clients::Answer,
    },
    GiveUp {
        operation: u64,
    },
    Ask {
        client: usize,
    },
    Fault,
    Restart {
        id: NodeId,
        start: u64,
    },
    Resume {
        id: NodeId,
    },
    Administrate,
    ConnectionLost {
        id: NodeId,
        peer: NodeId,
    },
    Flap {
        id: NodeId,
        partition: u64,
        left: u64,
    },
    HealPartition {
        partition: u64,
    },
    DiskFreed {
        id: NodeId,
    },
}

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) steps: u64,
    pub(crate) committed: u64,
    pub(crate) elections: u64,
    pub(crate) recoveries: u64,
    pub(crate) operations: u64,
    pub(crate) simulated_us: u64,
    /// From the healing of the world to the end of all that was asked.
    pub(crate) recovery_us: u64,
}

impl Outcome {
    /// Whether enough happened for the seed to prove something.
    pub(crate) fn counts(&self) -> bool {
        self.committed >= 100 && self.elections > 0 && self.recoveries > 0
    }
}

/// Runs one seed to its end. Panics where a property does not hold.
pub(crate) fn run(seed: u64, bug: Option<Bug>, checks: Checks, trace: bool) -> Outcome {
    let mut world = World::new(seed, bug, checks, trace);
    let mut steps = 0;
    while world.now_us < BROKEN_US {
        world.step();
        steps += 1;
    }
    world.heal();
    while !world.is_done() {
        assert!(
            world.now_us < BROKEN_US + RECOVERY_US,
            "no progress within {RECOVERY_US} us of a healed world: {}",
            world.describe()
        );
        world.step();
        steps += 1;
    }
    world.check_end();
    Outcome {
        steps,
        committed: world.checker.committed() as u64,
        elections: world.elections,
        recoveries: world.recoveries,
        operations: world.clients.history.len() as u64,
        simulated_us: world.now_us,
        recovery_us: world.now_us - BROKEN_US,
        tally: world.tally,
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, checks: Checks, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, bug);
        let fixed_members = !plan.changes_members() && plan.theme != Theme::Losses;
        let checker = Checker::new(checks, plan.nodes, plan.founders, plan.groups, fixed_members);
        let hosts = (0..plan.nodes).map(|_| Host {
            disk: Simulated::new(random.next()),
            process: None,
            start: 0,
            clock_offset_ns: 0,
            clock_rate: match plan.theme {
                Theme::Leases => random.pick(&[1000 - plan.skew, 1000 + plan.skew]),
                _ => random.within(1000 - plan.skew..1001 + plan.skew),
            },
            paused: None,
            turn_due: false,
            deadline_us: None,
            stalled_until_us: 0,
            lost: false,
            wiped: false,
            took_part: false,
            gone: false,
            retired: false,
            armed: false,
        });
        let hosts = hosts.collect();
        let mut world = Self {
            clients: Clients::new(plan.clients),
            hosts,
            checker,
            random,
            plan,
            now_us: 0,
            agenda: Agenda::default(),
            cut: BTreeSet::new(),
            partition: 0,
            healed: false,
            arrives_us: BTreeMap::new(),
            arrived: BTreeMap::new(),
            transfers: 0,
            tally: Tally::default(),
            elections: 0,
            recoveries: 0,
            trace,
        };
        world.say(|world| {
            format!(
                "{:?}, {} nodes, {} groups",
                world.plan.theme, world.plan.nodes, world.plan.groups
            )
        });
        if world.plan.skew > 0 {
            world.tally.note("fault: clocks at different rates");
        }
        if world.plan.groups > 1 {
            world.tally.note("groups: several on a node");
        }
        for id in world.ids() {
            world.start(id);
        }
        for client in 0..world.plan.clients as usize {
            world.schedule(client as u64, What::Ask { client });
        }
        world.schedule(world.plan.fault_every_us, What::Fault);
        world.schedule(world.plan.admin_every_us, What::Administrate);
        world
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        1..=self.hosts.len() as u64
    }

    /// The next thing that happens: a timer, or what was scheduled.
    fn step(&mut self) {
        let running = |id: &NodeId| self.host(*id).paused.is_none();
        let timer = self
            .ids()
            .filter(running)
            .filter_map(|id| Some((self.host(id).deadline_us?, id)))
            .min();
        let next_us = self.agenda.next_us().unwrap_or(u64::MAX);
        match timer {
            Some((at_us, id)) if at_us <= next_us => {
                self.now_us = self.now_us.max(at_us);
                self.host_mut(id).deadline_us = None;
                self.input(id, |_, _| ());
            }
            _ => {
                let (at_us, what) = self.agenda.take().expect("clients never end");
                self.now_us = self.now_us.max(at_us);
                self.happen(what);
            }
        }
    }

    pub(crate) fn happen(&mut self, what: What) {
        let addressee = match &what {
            What::Deliver { to, .. } => Some(*to),
            What::Turn { id, .. }
            | What::Persisted { id, .. }
            | What::Introduce { id, .. }
            | What::SendSnapshot { id, .. }
            | What::Arrive { id, .. }
            | What::ConnectionLost { id, .. } => Some(*id),
            _ => None,
        };
        if let Some(backlog) = addressee.and_then(|id| self.host_mut(id).paused.as_mut()) {
            backlog.push(what);
            return;
        }
        match what {
            What::Deliver { order, from, from_start, to, bytes } => {
                self.deliver(order, from, from_start, to, bytes);
            }
            What::Introduce { id, start } if self.is_current(id, start) => self.introduce(id),
            What::Turn { id, start } if self.is_current(id, start) => self.turn(id),
            What::LogWritten { id, start } if self.is_current(id, start) => self.log_written(id),
            What::Persisted { id, start, groups } if self.is_current(id, start) => {
                self.input(id, |node, now| {
                    for (group, write) in groups {
                        node.persisted(group, write, now);
                    }
                });
            }
            What::SnapshotWritten { id, start } if self.is_current(id, start) => {
                self.snapshot_written(id);
            }
            What::SendSnapshot { id, start, transfer } if self.is_current(id, start) => {
                self.send_snapshot(id, transfer);
            }
            What::Introduce { .. }
            | What::Turn { .. }
            | What::LogWritten { .. }
            | What::Persisted { .. }
            | What::SnapshotWritten { .. }
            | What::SendSnapshot { .. } => {}
            What::Arrive { id, operation } => self.arrive(id, operation),
            What::Answer { operation, answer } => self.answer(operation, answer),
            What::GiveUp { operation } => self.give_up(operation),
            What::Ask { client } => self.ask(client),
            What::Fault => self.break_something(),
            What::Restart { id, start } => {
                let host = self.host(id);
                if host.start == start && host.process.is_none() && !host.gone && !host.retired {
                    self.start(id);
                }
            }
            What::Resume { id } => self.resume(id),
            What::Administrate => self.administrate(),
            What::ConnectionLost { id, peer } => self.lose_connection(id, peer),
            What::Flap { id, partition, left } => self.flap(id, partition, left),
            What::HealPartition { partition } => {
                if self.partition == partition {
                    self.cut.clear();
                }
            }
            What::DiskFreed { id } => self.host(id).disk.set_free_bytes(None),
        }
    }

    /// An input to a node that takes part, and the turn that it calls for.
    pub(crate) fn input<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Groups<Numbers>, Duration) -> T,
    ) -> Option<T> {
        let now = self.clock(id);
        let groups = self.host_mut(id).process.as_mut()?.groups.as_mut()?;
        let result = act(groups, now);
        let start = self.host(id).start;
        if !std::mem::replace(&mut self.host_mut(id).turn_due, true) {
            let delay = self.random.below(self.plan.turn_us + 1);
            self.schedule(delay, What::Turn { id, start });
        }
        Some(result)
    }

    /// A turn of a node's loop, as `driver` has it.
    pub(crate) fn turn(&mut self, id: NodeId) {
        let now = self.clock(id);
        let host = self.host_mut(id);
        host.turn_due = false;
        let Some(groups) = host.process.as_mut().and_then(|process| process.groups.as_mut()) else {
            return;
        };
        groups.ready(now);
        let writes = groups.take_writes();
        let mut batches = Vec::new();
        for batch in groups.batches().iter_mut().filter(|batch| !batch.is_empty()) {
            let (from, to) = (batch.from, batch.to);
            batches.push(std::mem::replace(batch, Batch { from, to, ..Batch::default() }));
        }
        self.checker.wrote(id, &writes);
        self.trace_writes(id, &writes);
        if !writes.is_empty() {
            self.write(id, writes);
        }
        for batch in batches {
            self.send(batch);
        }
        let Some(process) = self.host_mut(id).process.as_mut() else { return };
        let groups = process.groups.as_mut().expect("it takes part");
        let outcomes = match groups.apply(now, &|| now) {
            Ok(outcomes) => std::mem::take(outcomes),
            Err(error) => panic!("node {id}: {error}"),
        };
        let deadline = groups.deadline().as_nanos() as u64;
        let host = self.host_mut(id);
        host.deadline_us =
            Some(deadline.saturating_sub(host.clock_offset_ns).div_ceil(host.clock_rate));
        self.check_turn(id, &outcomes);
        self.carry_out(id, outcomes);
        self.stop_if_settled(id);
    }

    fn send(&mut self, batch: Batch) {
        let (from, to) = (batch.from, batch.to);
        if to > self.hosts.len() as u64 {
            return;
        }
        self.note_batch(&batch);
        let Batch { messages, heartbeats, answers, .. } = batch;
        let encoded = PeerBatch {
            messages: messages.into_iter().map(|(group, m)| wire::encode(group, m)).collect(),
            heartbeats: heartbeats.into_iter().map(wire::encode_heartbeat).collect(),
            answers: answers.into_iter().map(wire::encode_answer).collect(),
        };
        let bytes = Bytes::from(encoded.encode_to_vec());
        let copies = if !self.healed && self.random.chance(self.plan.duplicates) {
            self.tally.note("fault: batch duplicated");
            2
        } else {
            1
        };
        let from_start = self.host(from).start;
        for _ in 0..copies {
            if !self.healed && self.random.chance(self.plan.drops) {
                self.tally.note("fault: batch dropped");
                continue;
            }
            let mut at_us = self.now_us + self.random.within(50..51 + self.plan.delay_us);
            if !self.healed && self.random.chance(self.plan.late) {
                self.tally.note("fault: batch late");
                at_us += self.random.below(3 * ELECTION_TIMEOUT_US);
            } else if self.plan.in_order {
                let arrives_us = self.arrives_us.entry((from, to)).or_default();
                *arrives_us = at_us.max(*arrives_us);
                at_us = *arrives_us;
            }
            let (order, bytes) = (self.agenda.put_down(), bytes.clone());
            let what = What::Deliver { order, from, from_start, to, bytes };
            self.schedule(at_us - self.now_us, what);
        }
    }

    fn deliver(&mut self, order: u64, from: NodeId, from_start: u64, to: NodeId, bytes: Bytes) {
        if self.cut.contains(&(from, to)) || self.host(to).process.is_none() {
            return;
        }
        let latest = self.arrived.entry((from, to)).or_default();
        if order < *latest {
            self.tally.note("fault: batches reordered");
        }
        *latest = order.max(*latest);
        // A stream's batches count once its sender introduced itself. One that restarted meanwhile
        // closed the stream, but what was in it may still arrive.
        if self.host(from).start == from_start && !self.are_introduced(from, to) {
            return;
        }
        let batch = PeerBatch::decode(bytes).expect("as it was encoded");
        let batch = wire::decode_batch(from, to, batch).expect("as it was encoded");
        self.input(to, |groups, now| groups.receive(now, batch));
    }

    /// Everything that was asked is done, everywhere, and nobody waits.
    fn is_done(&self) -> bool {
        self.clients.are_done(self.plan.groups)
            && (0..self.plan.groups).all(|group| {
                let last = self.checker.last_committed(group);
                let members = self.committed_membership(group);
                let behind = |id: NodeId| {
                    let process = self.host(id).process.as_ref();
                    let groups = process.and_then(|process| process.groups.as_ref());
                    groups.is_none_or(|groups| groups.applied_index(group) < last)
                };
                !members.is_joint() && !members.ids().any(|id| !self.host(id).lost && behind(id))
            })
    }

    fn check_end(&mut self) {
        self.check_history();
        for id in self.ids() {
            for group in 0..self.plan.groups {
                let Some(groups) = self.groups(id) else { continue };
                let process = self.host(id).process.as_ref().expect("it has groups");
                let kv = process.kvs[&group].read().expect("one thread");
                self.checker.check_state(id, group, groups.applied_index(group), &kv);
            }
        }
    }

    pub(crate) fn schedule(&mut self, delay_us: u64, what: What) {
        self.agenda.put(self.now_us + delay_us, what);
    }

    fn is_current(&self, id: NodeId, start: u64) -> bool {
        self.host(id).start == start && self.host(id).process.is_some()
    }

    pub(crate) fn clock(&self, id: NodeId) -> Duration {
        let host = self.host(id);
        Duration::from_nanos(host.clock_offset_ns + self.now_us * host.clock_rate)
    }

    /// Another start, with another clock.
    pub(crate) fn reset_clock(&mut self, id: NodeId) {
        let offset = self.random.below(1 << 40);
        let host = self.host_mut(id);
        host.start += 1;
        host.clock_offset_ns = offset;
        host.stalled_until_us = 0;
        (host.turn_due, host.deadline_us, host.paused) = (false, None, None);
    }

    pub(crate) fn host(&self, id: NodeId) -> &Host {
        &self.hosts[id as usize - 1]
    }

    pub(crate) fn host_mut(&mut self, id: NodeId) -> &mut Host {
        &mut self.hosts[id as usize - 1]
    }

    /// The groups of a node that takes part.
    pub(crate) fn groups(&self, id: NodeId) -> Option<&Groups<Numbers>> {
        self.host(id).process.as_ref()?.groups.as_ref()
    }

    pub(crate) fn leads(&self, id: NodeId, group: GroupId) -> bool {
        let status = self.groups(id).and_then(|groups| groups.status(group));
        status.is_some_and(|status| status.role == Role::Leader)
    }

    fn describe(&self) -> String {
        let groups = |id| -> Vec<_> {
            let applied = |group| self.groups(id).map(|groups| groups.applied_index(group));
            let status = |group| self.groups(id).and_then(|groups| groups.status(group));
            (0..self.plan.groups).map(|group| (status(group), applied(group))).collect()
        };
        let nodes: Vec<_> = self.ids().map(|id| (id, self.host(id).lost, groups(id))).collect();
        let members: Vec<_> =
            (0..self.plan.groups).map(|group| self.committed_membership(group)).collect();
        format!("{nodes:#?}, members {members:?}, {}", self.clients.describe())
    }

    pub(crate) fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.trace {
            println!("{:>9} us  {}", self.now_us, what(self));
        }
    }

    fn trace_writes(&self, id: NodeId, writes: &[bench_node::wal::GroupWrite]) {
        if self.trace {
            for write in writes {
                self.say(|_| format!("{id} writes {write:?}"));
            }
        }
    }

    /// The names in a directory of a node's disk, for who wants to break something.
    pub(crate) fn files(&self, id: NodeId, dir: &std::path::Path) -> Vec<String> {
        self.host(id).disk.list(dir).ok().flatten().unwrap_or_default()
    }
}
