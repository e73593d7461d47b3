//! What breaks, and how it is healed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bench_node::disk::{Fault, Simulated};
use bench_node::wal::inspect::inspect;
use raft::NodeId;

use crate::node::wal_dir;
use crate::plan::{ELECTION_TIMEOUT_US, Theme};
use crate::world::{What, World};

impl World {
    pub(crate) fn break_something(&mut self) {
        let delay = self.random.below(2 * self.plan.fault_every_us) + 1;
        self.schedule(delay, What::Fault);
        if self.healed {
            return;
        }
        let lasts_us = self.random.within(ELECTION_TIMEOUT_US / 10..4 * ELECTION_TIMEOUT_US);
        let group = self.random.below(self.plan.groups);
        let leader = if self.plan.theme == Theme::Leases { 900 } else { 400 };
        let Some(id) = self.pick_node(group, leader) else { return };
        // Before all know each other, those that are left could not let the last one in.
        if self.plan.theme == Theme::Losses
            && self.hosts.iter().all(|host| host.took_part && !host.lost)
            && self.random.chance(400)
        {
            return self.lose(id, lasts_us);
        }
        let kind = match self.plan.theme {
            Theme::Any | Theme::Losses | Theme::Groups => self.random.below(100),
            Theme::Crashes => self.random.below(52),
            Theme::Network => self.random.within(46..100),
            Theme::Members => self.random.pick(&[0, 25, 60, 75, 75, 90]),
            // One crash, so that the seed counts, and then what leases fear.
            Theme::Leases if self.recoveries == 0 => 0,
            Theme::Leases => self.random.pick(&[35, 46, 52, 52, 62, 72]),
        };
        match kind {
            0..22 => self.crash(id, lasts_us),
            22..25 => {
                self.tally.note("fault: all crashed at once");
                self.ids().for_each(|id| self.crash(id, lasts_us));
            }
            25..31 => self.stop(id),
            31..38 => self.pause(id, lasts_us),
            38..42 => {
                self.tally.note("fault: disk stall");
                let until_us = self.now_us + lasts_us;
                self.host_mut(id).stalled_until_us = until_us;
            }
            42..46 => {
                self.tally.note("fault: disk full");
                let free = self.random.below(16 << 10);
                self.host(id).disk.set_free_bytes(Some(free));
                self.schedule(2 * lasts_us, What::DiskFreed { id });
            }
            46..52 => self.break_connections(id),
            kind => self.part(id, kind, lasts_us),
        }
    }

    /// Cuts links for a while, in place of those that were cut before.
    fn part(&mut self, id: NodeId, kind: u64, lasts_us: u64) {
        self.cut.clear();
        self.partition += 1;
        let partition = self.partition;
        let ids: Vec<_> = self.ids().collect();
        let side: BTreeSet<_> = ids.iter().copied().filter(|_| self.random.chance(500)).collect();
        let crosses = |from: NodeId, to: NodeId| side.contains(&from) != side.contains(&to);
        let other = self.random.pick(&ids);
        let cut: Box<dyn Fn(NodeId, NodeId) -> bool> = match kind {
            52..62 => {
                self.tally.note("fault: node isolated");
                Box::new(|from, to| from == id || to == id)
            }
            62..72 => {
                self.tally.note("fault: node cut off one way");
                let hears = self.random.chance(500);
                Box::new(move |from, to| if hears { from == id } else { to == id })
            }
            72..80 => {
                self.tally.note("fault: partition into two sides");
                Box::new(crosses)
            }
            80..85 => {
                self.tally.note("fault: partition into a bridge");
                Box::new(move |from, to| crosses(from, to) && from != id && to != id)
            }
            85..90 if ids.len() > 3 => {
                self.tally.note("fault: partition into a ring");
                let around = ids.len() as u64;
                Box::new(move |from, to| {
                    let apart = from.abs_diff(to);
                    apart != 1 && apart != around - 1
                })
            }
            85..95 => {
                self.tally.note("fault: two nodes cut off from each other");
                Box::new(move |from, to| (from, to) == (id, other) || (to, from) == (id, other))
            }
            _ => {
                self.tally.note("fault: node flaps");
                let left = self.random.within(4..20);
                return self.flap(id, partition, left);
            }
        };
        for &from in &ids {
            for &to in ids.iter().filter(|&&to| to != from && cut(from, to)) {
                self.cut.insert((from, to));
            }
        }
        drop(cut);
        self.say(|world| format!("cut: {:?}", world.cut));
        self.schedule(lasts_us, What::HealPartition { partition });
    }

    /// A node is cut off and back again, so many times.
    pub(crate) fn flap(&mut self, id: NodeId, partition: u64, left: u64) {
        if self.partition != partition || self.healed {
            return;
        }
        if left == 0 {
            return self.cut.clear();
        }
        if left.is_multiple_of(2) {
            let others = self.ids().filter(|&other| other != id);
            self.cut.extend(others.flat_map(|other| [(id, other), (other, id)]));
        } else {
            self.cut.clear();
        }
        let delay = self.random.below(ELECTION_TIMEOUT_US / 2);
        self.schedule(delay, What::Flap { id, partition, left: left - 1 });
    }

    /// A process is killed, or its machine loses power; what was under way at its disk got as far as
    /// it did.
    pub(crate) fn crash(&mut self, id: NodeId, lasts_us: u64) {
        if self.host(id).process.is_none() {
            return;
        }
        let power = self.random.chance(500);
        self.tally.note(if power { "fault: power lost" } else { "fault: process killed" });
        let (interrupts, after) = (self.random.chance(600), self.random.below(5));
        let host = self.host_mut(id);
        let process = host.process.as_mut().expect("it runs");
        if interrupts && !host.armed {
            let fault = if power { Fault::PowerLoss } else { Fault::Kill };
            let waits = !process.wal.is_idle() || process.snapshot.is_some();
            host.disk.arm(after, fault);
            if let Some((meta, frozen)) = process.snapshot.take() {
                // Whatever comes of it, nobody hears of it.
                let _ = process.snapshots.write(meta, frozen);
            }
            // Some of what is on its way lands before the fault, one batch in the middle of it.
            let _ = process.write_out();
            if waits {
                self.tally.note("fault: crash in the middle of a step at the disk");
            }
        }
        self.say(|_| format!("{id} crashes, {}", if power { "no power" } else { "killed" }));
        self.end(id, power);
        self.break_connections(id);
        let start = self.host(id).start;
        self.schedule(lasts_us, What::Restart { id, start });
    }

    fn pause(&mut self, id: NodeId, lasts_us: u64) {
        if self.host(id).process.is_none() || self.host(id).paused.is_some() {
            return;
        }
        self.tally.note("fault: pause");
        self.host_mut(id).paused = Some(Vec::new());
        self.say(|_| format!("{id} is paused"));
        self.schedule(lasts_us, What::Resume { id });
    }

    /// A node that goes on finds its timers overdue and messages waiting, in any order.
    pub(crate) fn resume(&mut self, id: NodeId) {
        let Some(backlog) = self.host_mut(id).paused.take() else { return };
        self.say(|_| format!("{id} goes on"));
        if self.random.chance(300) {
            self.input(id, |_, _| ());
            self.turn(id);
        }
        backlog.into_iter().for_each(|what| self.happen(what));
    }

    /// A member's disk is replaced by an empty one, or bits of it rot where they cannot be taken
    /// for a torn tail: the last segment that was written to is left out.
    fn lose(&mut self, id: NodeId, lasts_us: u64) {
        if id > self.plan.founders {
            return;
        }
        self.crash(id, lasts_us);
        let seed = self.random.next();
        if self.random.chance(500) {
            self.tally.note("loss: disk wiped");
            self.say(|_| format!("{id} loses its disk"));
            self.checker.wiped(id);
            let host = self.host_mut(id);
            host.disk = Simulated::new(seed);
            (host.lost, host.wiped) = (true, true);
            return;
        }
        let snapshots = PathBuf::from("/data/snapshots");
        let mut files: Vec<PathBuf> = Vec::new();
        let segments = inspect(&self.host(id).disk, wal_dir()).expect("the disk works");
        let written = segments.iter().rposition(|segment| !segment.batches.is_empty());
        files.extend(segments.iter().take(written.unwrap_or(0)).map(|s| s.path.clone()));
        let names = self.files(id, &snapshots).into_iter();
        let whole = names.filter(|name| name.starts_with("snapshot-") && !name.ends_with(".new"));
        files.extend(whole.map(|name| snapshots.join(name)));
        if files.is_empty() {
            return;
        }
        let file = files[seed as usize % files.len()].clone();
        self.tally.note("loss: bits rotten");
        self.say(|_| format!("{id}: a bit rots in {}", file.display()));
        let host = self.host_mut(id);
        host.lost = true;
        host.disk.corrupt(&file, |bytes| {
            if let Some(at) = (seed >> 8).checked_rem(bytes.len() as u64) {
                bytes[at as usize] ^= 1 << (seed % 8);
            }
        });
    }

    pub(crate) fn heal(&mut self) {
        if self.recoveries == 0
            && let Some(id) = self.pick_node(0, 500)
        {
            // A seed without a recovery would prove little.
            self.crash(id, 1);
        }
        self.healed = true;
        self.cut.clear();
        self.partition += 1;
        self.plan.calm_down();
        let (groups, keys) = (self.plan.groups, self.plan.keys);
        self.clients.heal(groups, keys);
        self.say(|_| "the world is healed".into());
        self.retire();
        for id in self.ids() {
            let host = self.host_mut(id);
            host.stalled_until_us = 0;
            host.disk.set_free_bytes(None);
            if std::mem::take(&mut host.armed) {
                // What was about to go wrong goes wrong now.
                self.crash(id, 1);
            }
            self.resume(id);
            let host = self.host(id);
            if host.process.is_none() && !host.gone && !host.retired {
                self.start(id);
            }
        }
        let clients = self.plan.clients as usize;
        (0..clients).for_each(|client| self.schedule(0, What::Ask { client }));
    }
}
