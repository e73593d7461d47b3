//! What clients ask, and whom.

use raft::{NodeId, Role, Status};

use crate::harness::Command;
use crate::plan::OUTSTANDING;
use crate::world::{What, World};

impl World {
    /// Clients ask, mostly one who leads, or believes so.
    pub(crate) fn request(&mut self) {
        let delay = self.random.below(2 * self.plan.request_every_us) + 1;
        self.schedule(delay, What::Request);
        let Some(id) = self.pick_member(850) else { return };
        if self.healed {
            if self.progress.is_none() {
                self.propose(id, "healed");
            }
        } else if self.random.chance(500) {
            let behind = |status: Status| status.last_index - status.commit_index;
            if self.cluster.raft(id).is_some_and(|raft| behind(raft.status()) > OUTSTANDING) {
                return;
            }
            for _ in 0..self.random.within(1..5) {
                self.propose(id, "command");
            }
        } else {
            for _ in 0..self.random.within(1..4) {
                self.read(id);
            }
        }
    }

    fn propose(&mut self, id: NodeId, kind: &str) {
        self.commands += 1;
        let command = Command(format!("{kind} {}", self.commands).into());
        match self.input(id, |raft, _| raft.propose(command.clone())) {
            Some(Ok(place)) => {
                self.watch.tally.note("client: proposed");
                self.proposed.insert(command.clone());
                let before = self.host_mut(id).proposals.insert(place, command);
                assert_eq!(before, None, "one place in the log was given to two commands");
            }
            Some(Err(_)) => self.watch.tally.note("client: refused by a follower"),
            None => {}
        }
    }

    pub(crate) fn read(&mut self, id: NodeId) {
        self.reads += 1;
        let context = self.reads;
        if let Some(Ok(())) = self.input(id, |raft, _| raft.read(context)) {
            self.cluster.checker.read_began(id, context);
            self.watch.read_began(&self.cluster, id);
        }
    }

    /// A running, unpaused member; with this chance in a thousand one that leads, if any does.
    pub(crate) fn pick_member(&mut self, leader_per_mille: u64) -> Option<NodeId> {
        let leads = |world: &Self, id: NodeId| {
            world.cluster.raft(id).is_some_and(|raft| raft.status().role == Role::Leader)
        };
        let only_leaders = self.random.chance(leader_per_mille);
        let awake: Vec<_> =
            self.cluster.ids().filter(|&id| self.host(id).paused.is_none()).collect();
        let leaders: Vec<_> = awake.iter().copied().filter(|&id| leads(self, id)).collect();
        let choices = if only_leaders && !leaders.is_empty() { leaders } else { awake };
        (!choices.is_empty()).then(|| self.random.pick(&choices))
    }
}
