//! What breaks, and how it is healed.

use std::collections::BTreeSet;

use raft::NodeId;

use crate::plan::{ELECTION_TIMEOUT_US, Theme};
use crate::world::{What, World};

impl World {
    pub(crate) fn break_something(&mut self) {
        let delay = self.random.below(2 * self.plan.fault_every_us) + 1;
        self.schedule(delay, What::Fault);
        if self.healed {
            return;
        }
        let lasts_us = self.random.within(ELECTION_TIMEOUT_US / 10..6 * ELECTION_TIMEOUT_US);
        let leases = self.plan.theme == Theme::Leases;
        let Some(id) = self.pick_member(if leases { 900 } else { 400 }) else { return };
        let kind = match self.plan.theme {
            Theme::Any => self.random.below(100),
            Theme::Leases => self.random.within(60..100),
            Theme::Members => self.random.within(70..90),
        };
        match kind {
            0..30 => self.crash(id, lasts_us),
            30..33 => {
                self.watch.tally.note("fault: all crashed at once");
                let ids: Vec<_> = self.cluster.ids().collect();
                ids.into_iter().for_each(|id| self.crash(id, lasts_us));
            }
            33..50 => self.pause(id, lasts_us),
            50..54 => self.break_connections(id),
            54..60 => {
                self.watch.tally.note("fault: disk stall");
                self.host_mut(id).syncs.stalled_until_us = self.now_us + lasts_us;
            }
            kind => self.part(id, kind, lasts_us),
        }
    }

    /// Cuts links for a while, in place of those that were cut before.
    fn part(&mut self, id: NodeId, kind: u64, lasts_us: u64) {
        self.cut.clear();
        let ids: Vec<_> = self.cluster.ids().collect();
        let side: BTreeSet<_> = match kind {
            60..80 => {
                self.watch.tally.note("fault: member isolated");
                BTreeSet::from([id])
            }
            _ => ids.iter().copied().filter(|_| self.random.chance(500)).collect(),
        };
        let one_way = kind >= 90;
        for &from in &ids {
            for &to in ids.iter().filter(|&&to| to != from) {
                let crosses = side.contains(&from) != side.contains(&to);
                if crosses && (!one_way || side.contains(&from)) {
                    self.cut.insert((from, to));
                }
            }
        }
        if !self.cut.is_empty() && kind >= 80 {
            self.watch.tally.note(if one_way {
                "fault: link cut one way"
            } else {
                "fault: partition into two sides"
            });
        }
        self.partition += 1;
        let partition = self.partition;
        self.say(|world| format!("cut: {:?}", world.cut));
        self.schedule(lasts_us, What::HealPartition { partition });
    }

    pub(crate) fn crash(&mut self, id: NodeId, lasts_us: u64) {
        let Some(raft) = self.cluster.raft(id) else { return };
        let reported = raft.status().persisted_index as usize;
        let waiting = self.cluster.member(id).disk.waiting() as u64;
        let whole = self.random.below(waiting + 1);
        let torn = self.random.chance(500).then(|| self.random.below(3) as usize);
        let tally = &mut self.watch.tally;
        tally.note("fault: crash");
        if whole < waiting {
            tally.note(if torn.is_some() {
                "fault: crash tore a write"
            } else {
                "fault: crash lost whole writes"
            });
        }
        let host = &mut self.hosts[id as usize - 1];
        if host.durable_write > host.reported_write {
            tally.note("fault: crash after a write was durable but not reported");
        }
        self.cluster.crash(id, whole as usize, torn);
        if self.cluster.member(id).disk.entries.len() > reported {
            tally.note("log: recovered log longer than what was reported durable");
        }
        self.cluster.checker.stopped(id);
        let host = self.host_mut(id);
        (host.paused, host.turn_due, host.deadline_us) = (None, false, None);
        host.proposals.clear();
        let start = host.start;
        self.say(|_| format!("{id} crashes"));
        self.break_connections(id);
        self.schedule(lasts_us, What::Restart { id, start });
    }

    fn pause(&mut self, id: NodeId, lasts_us: u64) {
        if self.cluster.raft(id).is_none() || self.host(id).paused.is_some() {
            return;
        }
        self.watch.tally.note("fault: pause");
        self.host_mut(id).paused = Some(Vec::new());
        self.say(|_| format!("{id} is paused"));
        self.schedule(lasts_us, What::Resume { id });
    }

    /// A member that goes on finds its timers overdue, messages waiting, and maybe a client that
    /// still takes it for the leader, in any order.
    pub(crate) fn resume(&mut self, id: NodeId) {
        let Some(backlog) = self.host_mut(id).paused.take() else { return };
        self.say(|_| format!("{id} goes on"));
        if self.random.chance(300) {
            self.read(id);
        }
        if self.random.chance(300) {
            self.tick(id);
        }
        backlog.into_iter().for_each(|what| self.happen(what));
    }

    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
        self.plan.calm_down();
        self.retire();
        for id in self.cluster.ids().filter(|id| !self.retired.contains(id)).collect::<Vec<_>>() {
            self.host_mut(id).syncs.stalled_until_us = 0;
            if self.cluster.raft(id).is_none() {
                self.start(id);
            }
            self.resume(id);
        }
        self.say(|_| "the world is healed".into());
    }
}
