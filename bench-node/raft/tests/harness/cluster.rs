//! Members, each a core with its disk. Every input and every turn passes the checker.

use std::time::Duration;

use raft::{Config, Effects, Entry, Index, NodeId, Raft, Term};

use super::Command;
use super::checker::{Checker, Checks};
use super::disk::Disk;

/// One member, running or not.
pub(crate) struct Member {
    pub(crate) config: Config,
    pub(crate) raft: Option<Raft<Command>>,
    pub(crate) disk: Disk,
    /// The log in memory, rebuilt from the writes alone.
    pub(crate) log: Vec<Entry<Command>>,
    /// The latest term and commit index seen since the start.
    pub(crate) term: Term,
    pub(crate) commit_index: Index,
    /// Committed entries handed out since the start.
    pub(crate) applied: Index,
    /// Writes asked for since the start.
    pub(crate) writes: u64,
}

/// All members, ids 1 to n, and what is known to be true of them together.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) checker: Checker,
}

impl Cluster {
    pub(crate) fn new(configs: Vec<Config>, checks: Checks) -> Self {
        let members = configs.into_iter().map(|config| Member {
            config,
            raft: None,
            disk: Disk::default(),
            log: Vec::new(),
            term: 0,
            commit_index: 0,
            applied: 0,
            writes: 0,
        });
        Self { members: members.collect(), checker: Checker::new(checks) }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        1..=self.members.len() as u64
    }

    pub(crate) fn member(&self, id: NodeId) -> &Member {
        &self.members[id as usize - 1]
    }

    pub(crate) fn member_mut(&mut self, id: NodeId) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    pub(crate) fn raft(&self, id: NodeId) -> Option<&Raft<Command>> {
        self.member(id).raft.as_ref()
    }

    /// Starts a member from its disk.
    pub(crate) fn start(&mut self, id: NodeId, now: Duration) {
        let member = self.member_mut(id);
        let raft = Raft::new(member.config.clone(), member.disk.recovered(), now);
        member.raft = Some(raft.expect("what became durable can be recovered"));
        member.log = member.disk.entries.clone();
        member.term = member.disk.hard_state.term;
        (member.commit_index, member.applied, member.writes) = (0, 0, 0);
        self.checker.started(&self.members, id);
    }

    /// Stops a member; what its disk kept of the writes on their way is the caller's choice.
    pub(crate) fn crash(&mut self, id: NodeId, whole: usize, torn: Option<usize>) {
        let member = self.member_mut(id);
        member.raft = None;
        member.disk.crash(whole, torn);
    }

    /// Gives a running member an input, if it runs.
    pub(crate) fn input<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Raft<Command>) -> T,
    ) -> Option<T> {
        let result = act(self.member_mut(id).raft.as_mut()?);
        self.checker.stands(&mut self.members, id);
        Some(result)
    }

    /// Asks a running member for its effects, and hands its write to its disk.
    pub(crate) fn turn(&mut self, id: NodeId, now: Duration) -> Option<Effects<Command>> {
        let member = self.member_mut(id);
        let effects = member.raft.as_mut()?.ready(now);
        self.checker.turned(&mut self.members, id, &effects);
        if let Some(write) = &effects.write {
            self.member_mut(id).disk.submit(write.clone());
        }
        Some(effects)
    }
}
