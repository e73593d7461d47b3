//! The safety properties of Raft (paper, figure 3), of every group, and what nodes promise beyond
//! them, checked on what nodes write, say, apply and find again, never on what they believe.
//!
//! Invariant: a check costs what the step brought, but for starts and elections. Log matching is
//! checked by induction: an entry, named by term and index, has one predecessor and one payload
//! wherever it is written.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bench_node::GroupId;
use bench_node::kv::{Command, Store};
use bench_node::wal::GroupWrite;
use bytes::Bytes;
use raft::{
    Body, Entry, EntryId, HardState, Index, Message, NodeId, Payload, Recovered, Role, Status, Term,
};

/// How much is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    /// Also that nothing leaves a node before what it rests on is durable.
    All,
    /// Only what the cluster promises its users: what a planted bug must finally break.
    Outcomes,
}

/// What is known of the whole cluster.
pub(crate) struct Checker {
    checks: Checks,
    /// Whether the founders stay the members, so that a majority can be counted.
    fixed_members: bool,
    founders: u64,
    groups: Vec<Ledger>,
    members: Vec<Member>,
}

/// What is committed in a group, and by whom what was promised.
#[derive(Default)]
struct Ledger {
    leaders: HashMap<Term, NodeId>,
    votes: HashMap<(NodeId, Term), NodeId>,
    /// The term of the predecessor, and the payload, of every entry ever written.
    made: HashMap<(Term, Index), (Term, Payload<Bytes>)>,
    entries: Vec<Entry<Bytes>>,
    /// The term that each entry was committed in.
    committed_in: Vec<Term>,
    kv: Store,
    /// The state's hash after each entry; at 0, in the beginning.
    hashes: Vec<u32>,
}

/// What one node wrote.
#[derive(Default)]
struct Member {
    groups: Vec<Log>,
    /// What of it was reported durable, in this life or an earlier one.
    durable: Vec<Log>,
    /// What was written since, in order.
    pending: VecDeque<GroupWrite>,
    /// Up to here a snapshot that is durable holds what came of the log.
    covered: Vec<Index>,
    /// The latest term and commit index since the start, and what was applied.
    seen: Vec<(Term, Index, Index)>,
}

impl Member {
    /// Whether the disk holds what the log has up to an index.
    fn is_durable(&self, group: GroupId, index: Index) -> bool {
        let (log, durable) = (&self.groups[group as usize], &self.durable[group as usize]);
        index <= self.covered[group as usize] || durable.id(index) == log.id(index)
    }
}

/// A group's log as its writes made it, from index 1 on; what a snapshot took the place of too.
#[derive(Clone, Default)]
struct Log {
    hard_state: HardState,
    entries: Vec<Entry<Bytes>>,
}

impl Log {
    fn id(&self, index: Index) -> Option<EntryId> {
        let at = (index as usize).checked_sub(1)?;
        self.entries.get(at).map(|entry| EntryId { index, term: entry.term })
    }

    /// What a write, of which `committed` are known by now, makes of it.
    fn apply(&mut self, write: &raft::Write<Bytes>, committed: &[Entry<Bytes>]) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(base) = write.base
            && base.index > 0
            && self.id(base.index) != Some(base)
        {
            self.entries = committed[..base.index as usize].to_vec();
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate(first.index as usize - 1);
            self.entries.extend(write.entries.iter().cloned());
        }
    }

    /// Whether a start that found this on the disk would begin with `recovered`.
    fn comes_to(&self, recovered: &Recovered<Bytes>) -> bool {
        let last = recovered.snapshot.last;
        let behind = match self.id(last.index) {
            _ if last.index == 0 => &self.entries[..],
            Some(id) if id == last => &self.entries[last.index as usize..],
            _ => &[],
        };
        self.hard_state == recovered.hard_state && behind == recovered.entries
    }
}

impl Checker {
    pub(crate) fn new(
        checks: Checks,
        nodes: u64,
        founders: u64,
        groups: u64,
        fixed_members: bool,
    ) -> Self {
        let ledger = |_| {
            let kv = Store::default();
            Ledger { hashes: vec![kv.hash()], kv, ..Ledger::default() }
        };
        let mut checker = Self {
            checks,
            fixed_members,
            founders,
            groups: (0..groups).map(ledger).collect(),
            members: Vec::new(),
        };
        checker.members.resize_with(nodes as usize, Member::default);
        (1..=nodes).for_each(|id| checker.wiped(id));
        checker
    }

    /// Entries committed in all groups.
    pub(crate) fn committed(&self) -> usize {
        self.groups.iter().map(|ledger| ledger.entries.len()).sum()
    }

    /// The last index that is committed in a group.
    pub(crate) fn last_committed(&self, group: GroupId) -> Index {
        self.groups[group as usize].entries.len() as Index
    }

    /// The last committed membership of a group.
    pub(crate) fn membership(&self, group: GroupId) -> Option<&raft::Membership<Bytes>> {
        memberships(&self.groups[group as usize].entries).next_back()
    }

    /// What a node's log has behind all that is committed: it may still be, or be undone.
    pub(crate) fn open_memberships(
        &self,
        id: NodeId,
        group: GroupId,
    ) -> impl Iterator<Item = &raft::Membership<Bytes>> {
        let log = &self.members[id as usize - 1].groups[group as usize].entries;
        let committed = self.groups[group as usize].entries.len();
        memberships(log.get(committed..).unwrap_or_default())
    }

    /// A node's disk is empty.
    pub(crate) fn wiped(&mut self, id: NodeId) {
        let groups = self.groups.len();
        let member = &mut self.members[id as usize - 1];
        *member = Member::default();
        member.groups.resize_with(groups, Log::default);
        member.durable.resize_with(groups, Log::default);
        member.covered.resize(groups, 0);
        member.seen.resize(groups, (0, 0, 0));
    }

    /// A node has a snapshot on its disk, its own or a leader's.
    pub(crate) fn snapshot_is_durable(&mut self, id: NodeId, group: GroupId, index: Index) {
        let covered = &mut self.members[id as usize - 1].covered[group as usize];
        *covered = index.max(*covered);
    }

    /// A node found this on its disk: all that was acknowledged, and maybe some of what was written
    /// behind it, in order.
    pub(crate) fn started(&mut self, id: NodeId, recovered: &BTreeMap<GroupId, Recovered<Bytes>>) {
        let member = &mut self.members[id as usize - 1];
        let mut logs = member.durable.clone();
        let pending = std::mem::take(&mut member.pending);
        let mut pending = pending.into_iter();
        while !recovered.iter().all(|(group, found)| logs[*group as usize].comes_to(found)) {
            let Some(GroupWrite { group, write }) = pending.next() else {
                let durable = member.durable.iter().map(|log| (log.hard_state, log.entries.len()));
                let found: Vec<_> = recovered
                    .values()
                    .map(|r| (r.hard_state, r.snapshot.last, r.entries.len()))
                    .collect();
                panic!(
                    "durability: node {id} found what it never wrote, or lacks what it had \
                     acknowledged: {found:?}; durable were {:?}",
                    durable.collect::<Vec<_>>()
                );
            };
            logs[group as usize].apply(&write, &self.groups[group as usize].entries);
        }
        for (group, found) in recovered {
            let last = found.snapshot.last;
            let ledger = &self.groups[*group as usize];
            let committed = last.index == 0
                || ledger.entries.get(last.index as usize - 1).is_some_and(|e| e.term == last.term);
            assert!(committed, "node {id}: a snapshot of what is not committed: {last:?}");
            let log = &mut logs[*group as usize];
            if last.index > 0 && log.id(last.index) != Some(last) {
                log.entries = ledger.entries[..last.index as usize].to_vec();
            }
            member.seen[*group as usize] = (0, 0, last.index);
            member.covered[*group as usize] = last.index;
        }
        member.durable = logs.clone();
        member.groups = logs;
    }

    /// The state that a node begins with, or has after a turn, is that of what it applied.
    pub(crate) fn check_state(&self, id: NodeId, group: GroupId, applied: Index, kv: &Store) {
        let expected = self.groups[group as usize].hashes[applied as usize];
        assert_eq!(
            kv.hash(),
            expected,
            "state machine safety: node {id}, group {group}, after entry {applied}"
        );
    }

    /// A turn's writes, before anything else of that turn.
    pub(crate) fn wrote(&mut self, id: NodeId, writes: &[GroupWrite]) {
        for GroupWrite { group, write } in writes {
            let ledger = &mut self.groups[*group as usize];
            let member = &mut self.members[id as usize - 1];
            let (log, applied) =
                (&mut member.groups[*group as usize], member.seen[*group as usize].2);
            if let Some(HardState { term, .. }) = write.hard_state {
                assert!(term >= log.hard_state.term, "node {id}: a term goes back");
            }
            let rebased = write.base.is_some_and(|base| log.id(base.index) != Some(base));
            if let Some(first) = write.entries.first() {
                assert!(rebased || first.index > applied, "node {id}: rewrites a committed entry");
            }
            log.apply(write, &ledger.entries);
            for entry in &write.entries {
                let at = entry.index as usize - 1;
                assert_eq!(log.entries.get(at), Some(entry), "node {id}: leaves a gap in its log");
                let before = at.checked_sub(1).map_or(0, |at| log.entries[at].term);
                ledger.note_entry(id, before, entry);
            }
            member.pending.push_back(GroupWrite { group: *group, write: write.clone() });
        }
    }

    /// So many of the writes that were not durable yet now are.
    pub(crate) fn made_durable(&mut self, id: NodeId, writes: usize) {
        let member = &mut self.members[id as usize - 1];
        for GroupWrite { group, write } in member.pending.drain(..writes) {
            let committed = &self.groups[group as usize].entries;
            member.durable[group as usize].apply(&write, committed);
        }
    }

    /// What a node says to another one.
    pub(crate) fn said(&mut self, group: GroupId, message: &Message<Bytes>) {
        let Message { from, to, term, body } = message;
        if self.checks == Checks::Outcomes {
            return;
        }
        let member = &self.members[*from as usize - 1];
        let log = &member.groups[group as usize];
        let durable_term = member.durable[group as usize].hard_state.term;
        match body {
            Body::AppendAccepted { match_index, .. } => {
                assert_eq!(durable_term, *term, "node {from}: its term is not durable");
                assert!(
                    member.is_durable(group, *match_index),
                    "node {from}: acknowledges what is not durable"
                );
            }
            Body::VoteReply { pre_vote: false, granted: true } => {
                self.note_vote(group, *from, *to, *term);
            }
            Body::Vote { pre_vote: false, last_index, last_term, .. } => {
                let claim = log.id(*last_index).map_or(0, |id| id.term);
                let durable = member.is_durable(group, *last_index) && claim == *last_term;
                assert!(durable, "node {from}: asks for votes with a log that is not durable");
                self.note_vote(group, *from, *from, *term);
            }
            _ => {}
        }
    }

    fn note_vote(&mut self, group: GroupId, voter: NodeId, candidate: NodeId, term: Term) {
        let durable = self.members[voter as usize - 1].durable[group as usize].hard_state;
        let vote = HardState { term, voted_for: Some(candidate) };
        assert_eq!(durable, vote, "node {voter}: tells of a vote that is not durable");
        let votes = &mut self.groups[group as usize].votes;
        let given = *votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(given, candidate, "node {voter}, group {group}: votes twice in term {term}");
    }

    /// Where a group of a node stands after a turn; whether it applied anything in it.
    pub(crate) fn turned(
        &mut self,
        id: NodeId,
        group: GroupId,
        status: &Status,
        applied: Index,
    ) -> bool {
        let member = &mut self.members[id as usize - 1];
        let seen = &mut member.seen[group as usize];
        let before = *seen;
        assert!(status.term >= before.0, "node {id}: its term goes back");
        assert!(status.commit_index >= before.1, "node {id}: its commit index goes back");
        assert!(applied >= before.2, "node {id}: what it applied goes back");
        *seen = (status.term, status.commit_index, applied);
        let log = &member.groups[group as usize];
        assert_eq!(status.last_index as usize, log.entries.len(), "node {id}: unwritten entries");
        let new = log.entries[before.2.min(applied) as usize..applied as usize].to_vec();
        for entry in &new {
            self.note_committed(id, group, entry, status.term);
        }
        applied > before.2
    }

    /// Election safety, and leader completeness.
    pub(crate) fn leads(&mut self, id: NodeId, group: GroupId, role: Role, term: Term) {
        if role != Role::Leader {
            return;
        }
        let ledger = &mut self.groups[group as usize];
        let leader = *ledger.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "election safety: group {group}, term {term} has two leaders");
        let log = &self.members[id as usize - 1].groups[group as usize];
        for (entry, committed_in) in ledger.entries.iter().zip(&ledger.committed_in).rev() {
            assert!(
                *committed_in >= term || log.entries.get(entry.index as usize - 1) == Some(entry),
                "leader completeness: node {id} leads term {term} of group {group} without \
                 {entry:?}, committed in term {committed_in}",
            );
        }
    }

    fn note_committed(&mut self, id: NodeId, group: GroupId, entry: &Entry<Bytes>, in_term: Term) {
        let ledger = &mut self.groups[group as usize];
        let at = entry.index as usize - 1;
        if let Some(known) = ledger.entries.get(at) {
            assert_eq!(known, entry, "state machine safety: node {id}, group {group}");
            return;
        }
        assert_eq!(at, ledger.entries.len(), "commits are known in order");
        if self.checks == Checks::All && self.fixed_members {
            let voters = self.founders as usize;
            let holds = |member: &&Member| {
                member.durable[group as usize].entries.get(at) == Some(entry)
                    || entry.index <= member.covered[group as usize]
            };
            let holders = self.members[..voters].iter().filter(holds).count();
            assert!(
                holders > voters / 2,
                "node {id}: commits {entry:?} of group {group}, durable on {holders} of {voters}"
            );
        }
        if let Payload::Data(data) = &entry.payload {
            let command = Command::decode(data.clone()).expect("a command of a client");
            // What it answers is checked by the clients' history.
            let _ = ledger.kv.apply(command);
        }
        ledger.hashes.push(ledger.kv.hash());
        ledger.entries.push(entry.clone());
        ledger.committed_in.push(in_term);
    }
}

impl Ledger {
    fn note_entry(&mut self, id: NodeId, before: Term, entry: &Entry<Bytes>) {
        assert!(before <= entry.term, "node {id}: terms in a log go down");
        let made = self
            .made
            .entry((entry.term, entry.index))
            .or_insert_with(|| (before, entry.payload.clone()));
        assert!(
            made.0 == before && made.1 == entry.payload,
            "log matching: node {id}, term {}, index {}",
            entry.term,
            entry.index
        );
    }
}

fn memberships(
    entries: &[Entry<Bytes>],
) -> impl DoubleEndedIterator<Item = &raft::Membership<Bytes>> {
    entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some(membership),
        Payload::Noop | Payload::Data(_) => None,
    })
}
