//! A node's life: how it starts, is let in, writes, and ends.

use std::path::PathBuf;

use bench_node::disk::{Disk, Fault, Simulated};
use bench_node::identity::IdentityError;
use bench_node::store::{Outcomes, SnapshotTask};
use bench_node::wal::{Durable, GroupWrite, WalError};
use raft::{NodeId, Reason};

use crate::node::{Numbers, Process, StartError};
use crate::plan::ELECTION_TIMEOUT_US;
use crate::world::{What, World};

/// How long a node that stops waits for what is on its way.
const GRACE_US: u64 = ELECTION_TIMEOUT_US * 2;
const INTRODUCE_EVERY_US: u64 = 20_000;

impl World {
    /// Starts a node on what its disk has, and lets others know it.
    pub(crate) fn start(&mut self, id: NodeId) {
        self.reset_clock(id);
        if !self.healed && self.now_us > 0 && self.random.chance(5 * self.plan.disk_faults) {
            self.arm(id, 40);
        }
        let disk = self.host(id).disk.clone();
        let started = Process::start(&disk, id, &self.plan, &mut self.random);
        let start = self.host(id).start;
        let process = match started {
            Ok(process) => process,
            Err(error) if error.is_of_the_disk() => {
                self.say(|_| format!("{id} cannot start: {error:?}"));
                self.tally.note("fault: disk failed a start");
                self.end(id, false);
                let delay = self.random.below(ELECTION_TIMEOUT_US);
                self.schedule(delay, What::Restart { id, start });
                return;
            }
            Err(error) => return self.lose_node(id, &error),
        };
        if process.wal.cut().is_some() {
            self.tally.note("log: torn tail cut");
        }
        let found = process.recovered();
        if found.values().any(|found| found.hard_state.term > 0) {
            self.recoveries += 1;
            self.tally.note("start: from what was on the disk");
        }
        if found.values().any(|found| found.snapshot.last.index > 0) {
            self.tally.note("start: from a snapshot");
        }
        self.checker.started(id, found);
        for (&group, found) in found {
            let kv = process.kvs[&group].read().expect("one thread");
            self.checker.check_state(id, group, found.snapshot.last.index, &kv);
        }
        self.say(|_| format!("{id} starts"));
        let host = self.host_mut(id);
        // What rotted was not needed any more.
        host.lost &= host.wiped;
        host.process = Some(process);
        self.introduce(id);
    }

    /// A node whose data is gone or rotten refuses to start, and has to: others do without it.
    fn lose_node(&mut self, id: NodeId, error: &StartError) {
        assert!(self.host(id).lost, "node {id} lost nothing, and does not start: {error:?}");
        self.say(|_| format!("{id} refuses to start: {error:?}"));
        self.tally.note("loss: rotten bytes refused at the start");
        self.host_mut(id).gone = true;
        self.end(id, false);
    }

    /// A node makes itself known to those that it reaches, and takes part once enough know it.
    pub(crate) fn introduce(&mut self, id: NodeId) {
        for peer in self.ids().filter(|&peer| peer != id) {
            let apart = self.cut.contains(&(id, peer)) || self.cut.contains(&(peer, id));
            let there = self.host(peer).process.is_some() && self.host(peer).paused.is_none();
            if !apart && there {
                self.are_introduced(id, peer);
            }
        }
        let Some(process) = &self.host(id).process else { return };
        let start = self.host(id).start;
        if process.groups.is_some() {
            return;
        }
        if process.data_dir.introduced() {
            let now = self.clock(id);
            let host = &mut self.hosts[id as usize - 1];
            let process = host.process.as_mut().expect("it runs");
            process.take_part(now, id, &self.plan, &mut self.random);
            host.took_part = true;
            self.turn(id);
        } else {
            self.schedule(INTRODUCE_EVERY_US, What::Introduce { id, start });
        }
    }

    /// Whether two running nodes know each other; they introduce themselves if they do not. A node
    /// that is known by another disk than the one it comes with is refused, and ends for good.
    pub(crate) fn are_introduced(&mut self, one: NodeId, other: NodeId) -> bool {
        for (from, to) in [(one, other), (other, one)] {
            let Some(process) = &self.host(from).process else { return false };
            let incarnation = process.data_dir.incarnation();
            let Some(receiver) = self.host(to).process.as_ref() else { return false };
            if receiver.data_dir.known_peers().get(&from) == Some(&incarnation) {
                continue;
            }
            let remembered =
                self.at_disk(to, |process, _| process.data_dir.remember(from, incarnation));
            match remembered {
                Some(Ok(())) => {}
                Some(Err(IdentityError::Stranger { .. })) => {
                    assert!(self.host(from).lost, "{to} takes {from} for a stranger");
                    self.say(|_| format!("{to} refuses {from}, which lost its disk"));
                    self.tally.note("loss: wiped member refused");
                    self.host_mut(from).gone = true;
                    self.end(from, false);
                    return false;
                }
                Some(Err(_)) => {
                    // Its disk failed: it must not go on.
                    self.fail(to);
                    return false;
                }
                None => return false,
            }
        }
        for (from, to) in [(one, other), (other, one)] {
            let majority = (self.hosts.len() - 1) / 2 + 1;
            let Some(process) = &mut self.host_mut(from).process else { return false };
            process.known_by.insert(to);
            if process.known_by.len() >= majority && !process.data_dir.introduced() {
                match self.at_disk(from, |process, _| process.data_dir.set_introduced()) {
                    Some(Ok(())) => {}
                    Some(Err(_)) => {
                        self.fail(from);
                        return false;
                    }
                    None => return false,
                }
            }
        }
        true
    }

    /// Does something at a node's disk, in which it may crash; `None` if it did.
    pub(crate) fn at_disk<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Process, &Simulated) -> T,
    ) -> Option<T> {
        if !self.healed && self.random.chance(self.plan.disk_faults) {
            self.arm(id, 8);
        }
        let host = self.host_mut(id);
        let result = act(host.process.as_mut()?, &host.disk);
        if self.host(id).armed && self.host(id).disk.list(&PathBuf::from("/")).is_err() {
            self.tally.note("fault: crash in the middle of a step at the disk");
            let lasts_us = self.random.below(2 * ELECTION_TIMEOUT_US);
            self.crash(id, lasts_us);
            return None;
        }
        Some(result)
    }

    /// Something goes wrong within so many operations of a node's disk.
    pub(crate) fn arm(&mut self, id: NodeId, operations: u64) {
        let fault =
            self.random.pick(&[Fault::PowerLoss, Fault::PowerLoss, Fault::Kill, Fault::Eio]);
        let after = self.random.below(operations);
        let host = self.host_mut(id);
        host.disk.arm(after, fault);
        host.armed = true;
        if fault == Fault::Eio {
            self.tally.note("fault: EIO armed");
        }
    }

    /// Hands writes to the log's thread.
    pub(crate) fn write(&mut self, id: NodeId, writes: Vec<GroupWrite>) {
        let Some(process) = &mut self.host_mut(id).process else { return };
        process.queued.extend(writes);
        self.begin_write(id);
    }

    /// The log's thread sends all that waits on its way, if there is room; it takes a while.
    fn begin_write(&mut self, id: NodeId) {
        let Some(process) = &mut self.host_mut(id).process else { return };
        if process.queued.is_empty() || !process.wal.has_room() {
            return;
        }
        let others_are_on_their_way = !process.wal.is_idle();
        let writes = std::mem::take(&mut process.queued);
        match self.at_disk(id, |process, _| process.wal.submit(&writes)) {
            Some(Ok(())) => {}
            Some(Err(error)) => return self.log_failed(id, &error),
            None => return,
        }
        if others_are_on_their_way {
            self.tally.note("log: several batches on their way");
        }
        let mut latency = self.random.below(self.plan.disk_us + 1);
        if !self.healed && self.random.chance(self.plan.stalls) {
            latency += self.random.within(ELECTION_TIMEOUT_US / 2..3 * ELECTION_TIMEOUT_US);
            self.tally.note("fault: disk stall");
        }
        let now_us = self.now_us;
        let host = self.host_mut(id);
        let (start, stalled_us) = (host.start, host.stalled_until_us);
        let delay = latency + stalled_us.saturating_sub(now_us);
        self.schedule(delay, What::LogWritten { id, start });
    }

    /// One of the batches that are on their way, whichever, is written and synced, if nothing goes
    /// wrong.
    pub(crate) fn log_written(&mut self, id: NodeId) {
        let landed = self.at_disk(id, |process, _| {
            let mut durable = process.take_durable()?;
            if !process.wal.is_idle() {
                process.wal.wait();
                durable.append(&mut process.take_durable()?);
            }
            Ok(durable)
        });
        let landed = match landed {
            Some(Ok(landed)) => landed,
            Some(Err(error)) => return self.log_failed(id, &error),
            None => return,
        };
        if landed.is_empty() {
            self.tally.note("log: a batch landed before an earlier one");
        }
        for Durable { persisted: groups, appended } in landed {
            self.checker.made_durable(id, appended.writes);
            if groups.len() > 1 {
                self.tally.note("groups: writes of several in one batch of the log");
            }
            if !appended.oldest_needed_by.is_empty() {
                let bytes = appended.segments as u64 * self.plan.wal.segment_bytes;
                self.input(id, |groups, _| groups.log_grew(bytes, &appended.oldest_needed_by));
            }
            let start = self.host(id).start;
            let delay = self.random.below(self.plan.disk_us / 4 + 1);
            self.schedule(delay, What::Persisted { id, start, groups });
        }
        self.begin_write(id);
    }

    fn log_failed(&mut self, id: NodeId, error: &WalError) {
        self.say(|_| format!("{id}: {error}"));
        self.tally.note("fault: disk failed the log");
        self.fail(id);
    }

    /// What a turn said is to be done.
    pub(crate) fn carry_out(&mut self, id: NodeId, outcomes: Outcomes<Numbers>) {
        for event in &outcomes.events {
            self.say(|_| format!("{id} {event:?}"));
            if event.1.reason == Reason::VoteWon {
                self.elections += 1;
            }
        }
        for (operation, outcome) in outcomes.writes {
            self.write_ended(operation, outcome);
        }
        for (operation, outcome) in outcomes.reads {
            self.read_ended(id, operation, outcome);
        }
        for (_, outcome) in outcomes.transfers {
            let taken = outcome.is_ok();
            self.tally.note(if taken { "transfer: done" } else { "transfer: refused or failed" });
        }
        for task in outcomes.snapshots {
            match task {
                SnapshotTask::Write { meta, frozen } => self.begin_snapshot(id, meta, frozen),
                SnapshotTask::RemoveOlder { group, index } => {
                    let _ =
                        self.at_disk(id, |process, _| process.snapshots.remove_older(group, index));
                }
                SnapshotTask::Send { group, to, term } => {
                    self.begin_transfer(id, group, to, term);
                }
            }
            if self.host(id).process.is_none() {
                return;
            }
        }
    }

    /// As SIGTERM.
    pub(crate) fn stop(&mut self, id: NodeId) {
        let ends_us = self.now_us + GRACE_US;
        let Some(process) = &mut self.host_mut(id).process else { return };
        if process.groups.is_none() || process.stops_us.is_some() {
            return;
        }
        process.stops_us = Some(ends_us);
        self.tally.note("fault: orderly stop");
        self.say(|_| format!("{id} is told to stop"));
        self.input(id, |groups, _| groups.stop());
    }

    /// A node that was told to stop ends once nothing waits, or it waited long enough.
    pub(crate) fn stop_if_settled(&mut self, id: NodeId) {
        let Some(process) = &self.host(id).process else { return };
        let (Some(ends_us), Some(groups)) = (process.stops_us, &process.groups) else { return };
        if !groups.is_settled() && self.now_us < ends_us {
            return;
        }
        if groups.is_settled() {
            self.tally.note("stop: settled in time");
        }
        // What waits for the log goes down still.
        let written = self.at_disk(id, |process, _| process.write_out());
        if let Some(Ok(writes)) = written {
            self.checker.made_durable(id, writes);
        }
        if written.is_some() {
            self.fail(id);
        }
    }

    /// A node ends by itself, and is started again.
    pub(crate) fn fail(&mut self, id: NodeId) {
        self.end(id, false);
        self.break_connections(id);
        let start = self.host(id).start;
        let delay = self.random.below(2 * ELECTION_TIMEOUT_US);
        self.schedule(delay, What::Restart { id, start });
    }

    /// A process is gone, and with `power` whatever the disk had not synced.
    pub(crate) fn end(&mut self, id: NodeId, power: bool) {
        let host = self.host_mut(id);
        // It is gone before what it waited for: writes on their way end as they may.
        let process = host.process.take();
        host.disk = if power { host.disk.cut_power() } else { host.disk.kill_process() };
        if host.disk.list(&PathBuf::from("/")).is_err() {
            // The fault that struck was the power's.
            host.disk = host.disk.cut_power();
        }
        drop(process);
        let host = self.host_mut(id);
        host.armed = false;
        (host.paused, host.turn_due, host.deadline_us) = (None, false, None);
        self.clients_of_lose(id);
    }
}
