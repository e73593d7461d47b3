//! Members, each a core with its disk. Every input and every turn passes the checker.

use std::time::Duration;

use raft::{Config, Effects, Entry, Index, Message, NodeId, Raft, Snapshot, Term};

use super::Command;
use super::checker::{Checker, Checks};
use super::disk::Disk;
use super::{Membership, membership};

/// One member, running or not.
pub(crate) struct Member {
    pub(crate) config: Config,
    /// What it starts from while its log says nothing else.
    pub(crate) founding: Membership,
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
    /// The `founders` first members found the group; the others wait to be let in.
    pub(crate) fn new(configs: Vec<Config>, founders: usize, checks: Checks) -> Self {
        let voters: Vec<_> = configs[..founders].iter().map(|config| config.id).collect();
        let members = configs.into_iter().map(|config| Member {
            founding: membership(
                if voters.contains(&config.id) { voters.clone() } else { Vec::new() },
                Vec::new(),
            ),
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
        let group = self.members[0].founding.clone();
        let member = self.member_mut(id);
        if !member.disk.snapshot.is_empty() {
            member.founding = group;
        }
        let recovered = member.disk.recovered(&member.founding);
        let base = recovered.snapshot.last.index;
        let raft = Raft::new(member.config.clone(), recovered, now);
        member.raft = Some(raft.expect("what became durable can be recovered"));
        member.log = member.disk.log().0;
        member.term = member.disk.hard_state.term;
        (member.commit_index, member.applied, member.writes) = (base, base, 0);
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

    /// Takes a snapshot of what a member applied, and cuts its log at `index` or before.
    pub(crate) fn compact(&mut self, id: NodeId, index: Index) {
        let member = self.member_mut(id);
        let Some(raft) = &mut member.raft else { return };
        member.disk.keep_snapshot(&member.log[..member.applied as usize]);
        raft.compact(index);
    }

    /// What a member sends to one that lacks the beginning of its log: the last message of that,
    /// and the entries whose outcome goes before it.
    pub(crate) fn snapshot(
        &self,
        from: NodeId,
        to: NodeId,
    ) -> Option<(Message<Command>, Vec<Entry<Command>>)> {
        let member = self.member(from);
        let entries = member.disk.snapshot.clone();
        let last = super::disk::id_of(entries.last()?);
        let membership = super::disk::membership_of(&entries, &self.members[0].founding);
        let body = raft::Body::InstallSnapshot(Snapshot { last, membership });
        let term = member.raft.as_ref()?.status().term;
        Some((Message { from, to, term, body }, entries))
    }
}
