//! A simulated world: members with their own clocks and disks, a network that loses and reorders,
//! clients, and everything that breaks. One thread, one seed; the same seed gives the same run.
//!
//! Invariant: members are driven as a real loop drives them (inputs, then a turn, then its
//! effects), so what holds here holds for any loop that keeps that contract.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use raft::{Effects, Entry, Index, Message, NodeId, Term};

use crate::agenda::Agenda;
use crate::harness::Command;
use crate::harness::checker::Checks;
use crate::harness::cluster::Cluster;
use crate::plan::{
    BROKEN_US, Bug, CALM_ROUND_TRIP_US, ELECTION_TIMEOUT_US, Plan, RECOVERY_US, Theme,
};
use crate::random::Random;
use crate::syncs::Syncs;
use crate::tally::Tally;
use crate::watch::Watch;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    pub(crate) cluster: Cluster,
    pub(crate) hosts: Vec<Host>,
    pub(crate) now_us: u64,
    agenda: Agenda<What>,
    /// Links, from and to, that carry nothing.
    pub(crate) cut: HashSet<(NodeId, NodeId)>,
    /// Counts partitions, so that an old one's end does not heal a new one.
    pub(crate) partition: u64,
    pub(crate) healed: bool,
    /// Removed members that were switched off.
    pub(crate) retired: HashSet<NodeId>,
    /// When a message last arrived over a link, for links that keep their order.
    arrives_us: HashMap<(NodeId, NodeId), u64>,
    pub(crate) proposed: HashSet<Command>,
    pub(crate) commands: u64,
    pub(crate) reads: u64,
    /// The index of an entry that was proposed after the world was healed, and committed.
    pub(crate) progress: Option<Index>,
    pub(crate) watch: Watch,
    trace: bool,
}

/// What surrounds one member.
pub(crate) struct Host {
    /// Starts so far: what was addressed to an earlier start is void.
    pub(crate) start: u64,
    clock_offset_ns: u64,
    /// Nanoseconds of its clock per microsecond of the world: 1000 in a good clock.
    clock_rate: u64,
    /// What happened to it while it was paused.
    pub(crate) paused: Option<Vec<What>>,
    pub(crate) turn_due: bool,
    pub(crate) deadline_us: Option<u64>,
    pub(crate) syncs: Syncs,
    pub(crate) durable_write: u64,
    pub(crate) reported_write: u64,
    pub(crate) proposals: HashMap<(Term, Index), Command>,
}

#[derive(Debug)]
pub(crate) enum What {
    Deliver { order: u64, message: Message<Command> },
    Turn { id: NodeId, start: u64 },
    Durable { id: NodeId, start: u64, write: u64 },
    Report { id: NodeId, start: u64, write: u64 },
    Request,
    Fault,
    Crash { id: NodeId, start: u64 },
    Restart { id: NodeId, start: u64 },
    Resume { id: NodeId },
    Administrate,
    Snapshot { message: Message<Command>, entries: Vec<Entry<Command>> },
    SnapshotEnded { id: NodeId, start: u64, to: NodeId },
    ConnectionLost { id: NodeId, peer: NodeId },
    HealPartition { partition: u64 },
}

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) steps: u64,
    pub(crate) committed: usize,
    /// From the healing of the world to the end of all that was asked.
    pub(crate) recovery_us: u64,
    /// The share of the time allowed for that.
    pub(crate) allowed: f64,
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
    let allowed_us = world.recovery_allowed_us();
    while !world.is_done() {
        assert!(
            world.now_us < BROKEN_US + allowed_us,
            "no progress within {allowed_us} us of a healed world: {}",
            world.describe()
        );
        world.step();
        steps += 1;
    }
    world.check_end();
    Outcome {
        allowed: (world.now_us - BROKEN_US) as f64 / allowed_us as f64,
        steps,
        committed: world.cluster.checker.ledger.len(),
        recovery_us: world.now_us - BROKEN_US,
        tally: world.watch.tally,
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, checks: Checks, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, bug);
        let cluster = Cluster::new(plan.configs.clone(), plan.founders, checks);
        let hosts = cluster.ids().map(|_| Host {
            start: 0,
            clock_offset_ns: 0,
            clock_rate: match plan.theme {
                Theme::Leases => random.pick(&[1000 - plan.skew, 1000 + plan.skew]),
                _ => random.within(1000 - plan.skew..1001 + plan.skew),
            },
            paused: None,
            turn_due: false,
            deadline_us: None,
            syncs: Syncs::default(),
            durable_write: 0,
            reported_write: 0,
            proposals: HashMap::new(),
        });
        let mut world = Self {
            hosts: hosts.collect(),
            random,
            plan,
            cluster,
            now_us: 0,
            agenda: Agenda::default(),
            cut: HashSet::new(),
            partition: 0,
            healed: false,
            retired: HashSet::new(),
            arrives_us: HashMap::new(),
            proposed: HashSet::new(),
            commands: 0,
            reads: 0,
            progress: None,
            watch: Watch::default(),
            trace,
        };
        if world.plan.skew > 0 {
            world.watch.tally.note("fault: clocks at different rates");
        }
        for id in world.cluster.ids() {
            world.start(id);
        }
        world.schedule(0, What::Request);
        world.schedule(world.plan.fault_every_us, What::Fault);
        world.schedule(world.plan.admin_every_us, What::Administrate);
        world
    }

    /// The next thing that happens: a timer, or what was scheduled.
    fn step(&mut self) {
        let running = |id: &NodeId| self.host(*id).paused.is_none();
        let timer = self
            .cluster
            .ids()
            .filter(running)
            .filter_map(|id| Some((self.host(id).deadline_us?, id)))
            .min();
        let next_us = self.agenda.next_us().unwrap_or(u64::MAX);
        match timer {
            Some((at_us, id)) if at_us <= next_us => {
                self.now_us = self.now_us.max(at_us);
                self.host_mut(id).deadline_us = None;
                self.tick(id);
            }
            _ => {
                let (at_us, what) = self.agenda.take().expect("requests never end");
                self.now_us = self.now_us.max(at_us);
                self.happen(what);
            }
        }
    }

    pub(crate) fn happen(&mut self, what: What) {
        let addressee = match &what {
            What::Deliver { message, .. } | What::Snapshot { message, .. } => Some(message.to),
            What::Turn { id, .. }
            | What::Report { id, .. }
            | What::SnapshotEnded { id, .. }
            | What::ConnectionLost { id, .. } => Some(*id),
            _ => None,
        };
        if let Some(backlog) = addressee.and_then(|id| self.host_mut(id).paused.as_mut()) {
            backlog.push(what);
            return;
        }
        match what {
            What::Deliver { order, message } => self.deliver(order, message),
            What::Turn { id, start } if self.is_current(id, start) => self.turn(id),
            What::Durable { id, start, write } if self.is_current(id, start) => {
                self.cluster.member_mut(id).disk.complete(write);
                self.host_mut(id).durable_write = write;
            }
            What::Report { id, start, write } if self.is_current(id, start) => {
                self.host_mut(id).reported_write = write;
                self.input(id, |raft, _| raft.persisted(write));
            }
            What::Crash { id, start } if self.is_current(id, start) => {
                let lasts_us = self.random.below(2 * ELECTION_TIMEOUT_US);
                self.crash(id, lasts_us);
            }
            What::SnapshotEnded { id, start, to } if self.is_current(id, start) => {
                self.input(id, |raft, _| raft.snapshot_ended(to));
            }
            What::Turn { .. }
            | What::Durable { .. }
            | What::Report { .. }
            | What::Crash { .. }
            | What::SnapshotEnded { .. } => {}
            What::Snapshot { message, entries } => self.receive_snapshot(message, entries),
            What::ConnectionLost { id, peer } => self.lose_connection(id, peer),
            What::Administrate => self.administrate(),
            What::Request => self.request(),
            What::Fault => self.break_something(),
            What::Restart { id, start } => {
                let off = self.cluster.raft(id).is_none() && !self.retired.contains(&id);
                if self.host(id).start == start && off {
                    self.start(id);
                }
            }
            What::Resume { id } => self.resume(id),
            What::HealPartition { partition } => {
                if self.partition == partition {
                    self.cut.clear();
                }
            }
        }
    }

    pub(crate) fn tick(&mut self, id: NodeId) {
        self.input(id, |raft, now| raft.tick(now));
    }

    /// An input to a member, and the turn that it calls for.
    pub(crate) fn input<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut raft::Raft<Command>, Duration) -> T,
    ) -> Option<T> {
        let now = self.clock(id);
        let result = self.cluster.input(id, |raft| act(raft, now))?;
        let start = self.host(id).start;
        if !std::mem::replace(&mut self.host_mut(id).turn_due, true) {
            let delay = self.random.below(self.plan.turn_us + 1);
            self.schedule(delay, What::Turn { id, start });
        }
        Some(result)
    }

    fn turn(&mut self, id: NodeId) {
        let now = self.clock(id);
        let log_before = self.cluster.member(id).log.len();
        self.host_mut(id).turn_due = false;
        let Some(effects) = self.cluster.turn(id, now) else { return };
        self.watch.turned(&self.cluster, id, log_before, &effects);
        self.trace_turn(id, &effects);
        let deadline = self.cluster.raft(id).expect("it runs").deadline().as_nanos() as u64;
        let host = self.host_mut(id);
        host.deadline_us =
            Some(deadline.saturating_sub(host.clock_offset_ns).div_ceil(host.clock_rate));
        if let Some(write) = &effects.write {
            self.write(id, write.id);
        }
        for message in effects.messages {
            self.send(message);
        }
        for to in effects.snapshots {
            self.send_snapshot(id, to);
        }
        for entry in &effects.committed {
            let key = (entry.term, entry.index);
            let Some(command) = self.host_mut(id).proposals.remove(&key) else { continue };
            assert_eq!(
                entry.payload,
                raft::Payload::Data(command.clone()),
                "a client is told of its own command"
            );
            self.watch.tally.note("client: told that it is committed");
            if self.healed && command.0.starts_with("healed") {
                self.progress.get_or_insert(entry.index);
            }
        }
    }

    /// Hands a write to the disk; now and then the power goes just after.
    fn write(&mut self, id: NodeId, write: u64) {
        let mut latency = self.random.below(self.plan.disk_us + 1);
        if !self.healed && self.random.chance(self.plan.stalls) {
            latency += self.random.within(ELECTION_TIMEOUT_US / 2..3 * ELECTION_TIMEOUT_US);
            self.watch.tally.note("fault: disk stall");
        }
        let report = self.random.below(self.plan.disk_us / 2 + 1);
        let now_us = self.now_us;
        let host = self.host_mut(id);
        let start = host.start;
        let delay = host.syncs.submit(now_us, latency) - now_us;
        self.schedule(delay, What::Durable { id, start, write });
        self.schedule(delay + report, What::Report { id, start, write });
        if !self.healed && self.random.chance(self.plan.crashes_on_write) {
            let delay = self.random.below(delay + report + 1);
            self.schedule(delay, What::Crash { id, start });
        }
    }

    fn send(&mut self, message: Message<Command>) {
        let copies = if !self.healed && self.random.chance(self.plan.duplicates) {
            self.watch.tally.note("fault: message duplicated");
            2
        } else {
            1
        };
        for _ in 0..copies {
            if !self.healed && self.random.chance(self.plan.drops) {
                self.watch.tally.note("fault: message dropped");
                continue;
            }
            let mut at_us = self.now_us + self.random.within(50..51 + self.plan.delay_us);
            if !self.healed && self.random.chance(self.plan.late) {
                self.watch.tally.note("fault: message late");
                at_us += self.random.below(3 * ELECTION_TIMEOUT_US);
            } else if self.plan.in_order {
                let arrives_us = self.arrives_us.entry((message.from, message.to)).or_default();
                *arrives_us = at_us.max(*arrives_us);
                at_us = *arrives_us;
            }
            let order = self.agenda.put_down();
            let message = message.clone();
            self.schedule(at_us - self.now_us, What::Deliver { order, message });
        }
    }

    fn deliver(&mut self, order: u64, message: Message<Command>) {
        let link = (message.from, message.to);
        if self.cut.contains(&link) || self.cluster.raft(message.to).is_none() {
            return;
        }
        self.watch.delivered(link, order);
        self.input(message.to, |raft, now| raft.receive(now, message));
    }

    pub(crate) fn start(&mut self, id: NodeId) {
        let offset = self.random.below(1 << 40);
        let seed = self.random.next();
        let host = self.host_mut(id);
        host.start += 1;
        host.clock_offset_ns = offset;
        host.syncs = Syncs::default();
        (host.durable_write, host.reported_write) = (0, 0);
        let now = self.clock(id);
        self.cluster.member_mut(id).config.seed = seed;
        self.cluster.start(id, now);
        self.watch.started(id);
        self.say(|_| format!("{id} starts"));
        self.turn(id);
    }

    /// Elections need some timeouts; beyond that, the narrowest window sends one entry per round
    /// trip, after finding where the logs meet one entry per round trip.
    fn recovery_allowed_us(&self) -> u64 {
        let longest = self.cluster.members.iter().map(|member| member.log.len() as u64).max();
        // Members that were removed may disturb the others for a while.
        let elections = if self.plan.theme == Theme::Members { 2 } else { 1 };
        elections * RECOVERY_US + 2 * longest.unwrap_or(0) * CALM_ROUND_TRIP_US
    }

    /// A command of the healed world is applied everywhere, and every read is settled.
    fn is_done(&self) -> bool {
        let Some(index) = self.progress else { return false };
        let members = self.committed_membership();
        !members.is_joint()
            && members.ids().all(|id| self.cluster.member(id).applied >= index)
            && self.cluster.ids().all(|id| self.cluster.checker.open_reads(id) == 0)
    }

    fn check_end(&mut self) {
        for id in self.cluster.ids() {
            self.turn(id);
        }
        for member in &self.cluster.members {
            self.cluster.checker.check_whole_log(member);
        }
        for (entry, _) in &self.cluster.checker.ledger {
            if let raft::Payload::Data(command) = &entry.payload {
                assert!(self.proposed.contains(command), "{command:?} was refused, and happened");
            }
        }
    }

    pub(crate) fn schedule(&mut self, delay_us: u64, what: What) {
        self.agenda.put(self.now_us + delay_us, what);
    }

    fn is_current(&self, id: NodeId, start: u64) -> bool {
        self.host(id).start == start && self.cluster.raft(id).is_some()
    }

    fn clock(&self, id: NodeId) -> Duration {
        let host = self.host(id);
        Duration::from_nanos(host.clock_offset_ns + self.now_us * host.clock_rate)
    }

    pub(crate) fn host(&self, id: NodeId) -> &Host {
        &self.hosts[id as usize - 1]
    }

    pub(crate) fn host_mut(&mut self, id: NodeId) -> &mut Host {
        &mut self.hosts[id as usize - 1]
    }

    fn describe(&self) -> String {
        let members = self.cluster.ids().map(|id| match self.cluster.raft(id) {
            Some(raft) => format!("{id}: {:?}", raft.status()),
            None => format!("{id}: down"),
        });
        let members: Vec<_> = members.collect();
        format!("{members:#?}, progress {:?}", self.progress)
    }

    pub(crate) fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.trace {
            println!("{:>9} us  {}", self.now_us, what(self));
        }
    }

    fn trace_turn(&self, id: NodeId, effects: &Effects<Command>) {
        if !self.trace {
            return;
        }
        for event in &effects.events {
            self.say(|_| format!("{id} {event:?}"));
        }
        if let Some(write) = &effects.write {
            self.say(|_| format!("{id} writes {write:?}"));
        }
        for Message { to, term, body, .. } in &effects.messages {
            self.say(|_| format!("{id} -> {to} term {term} {body:?}"));
        }
        if let (Some(first), Some(last)) = (effects.committed.first(), effects.committed.last()) {
            self.say(|_| format!("{id} commits {} to {}", first.index, last.index));
        }
        for read in &effects.reads {
            self.say(|_| format!("{id} {read:?}"));
        }
    }
}
