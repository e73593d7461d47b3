//! The safety properties of Raft (paper, figure 3), and what the core promises beyond them,
//! checked on what members say and write, never on what they believe.
//!
//! Invariant: every check costs what the step brought, not what the run has grown to. Log matching
//! is checked by induction: an entry, named by term and index, has one predecessor and one payload
//! wherever it is written.

use std::collections::{HashMap, HashSet};

use raft::{
    Body, Effects, Entry, Event, Index, Message, NodeId, Payload, ReadOutcome, Role, Snapshot, Term,
};

use super::Command;
use super::cluster::Member;
use super::disk::membership_of;

/// How much is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    /// Also that nothing leaves a member before what it rests on is durable.
    All,
    /// Only what the cluster promises its users: what a planted bug must finally break.
    Outcomes,
}

/// What is known of the whole cluster.
pub(crate) struct Checker {
    checks: Checks,
    leaders: HashMap<Term, NodeId>,
    votes: HashMap<(NodeId, Term), NodeId>,
    /// The term of the predecessor, and the payload, of every entry ever written.
    made: HashMap<(Term, Index), (Term, Payload<Command>)>,
    /// What is committed, from index 1, with the term it was committed in.
    pub(crate) ledger: Vec<(Entry<Command>, Term)>,
    commands: HashSet<Command>,
    /// Per leader and follower, the term and what the follower acknowledged in it.
    acknowledged: HashMap<(NodeId, NodeId), (Term, Index)>,
    /// Reads that are not settled: who was asked, and the least index that may answer.
    reads: HashMap<u64, (NodeId, Index)>,
}

impl Checker {
    pub(crate) fn new(checks: Checks) -> Self {
        Self {
            checks,
            leaders: HashMap::new(),
            votes: HashMap::new(),
            made: HashMap::new(),
            ledger: Vec::new(),
            commands: HashSet::new(),
            acknowledged: HashMap::new(),
            reads: HashMap::new(),
        }
    }

    /// A read was taken in. It must see all that is committed anywhere by now: that is at least
    /// all that any client was told.
    pub(crate) fn read_began(&mut self, id: NodeId, context: u64) {
        self.reads.insert(context, (id, self.ledger.len() as Index));
    }

    /// Reads that a member has neither answered nor given up.
    pub(crate) fn open_reads(&self, id: NodeId) -> usize {
        self.reads.values().filter(|(member, _)| *member == id).count()
    }

    /// A member that stops takes its reads with it.
    pub(crate) fn stopped(&mut self, id: NodeId) {
        self.reads.retain(|_, (member, _)| *member != id);
    }

    /// After a start: what was recovered must be what was written.
    pub(crate) fn started(&mut self, members: &[Member], id: NodeId) {
        let log = &members[id as usize - 1].log;
        for (position, entry) in log.iter().enumerate() {
            let before = position.checked_sub(1).map_or(0, |before| log[before].term);
            self.note_entry(id, before, entry);
        }
    }

    /// After an input.
    pub(crate) fn stands(&mut self, members: &mut [Member], id: NodeId) {
        let member = &mut members[id as usize - 1];
        let status = member.raft.as_ref().expect("it runs").status();
        assert!(
            status.term >= member.term,
            "member {id}: term went from {} to {}",
            member.term,
            status.term
        );
        assert!(
            status.commit_index >= member.commit_index,
            "member {id}: commit index went from {} to {}",
            member.commit_index,
            status.commit_index
        );
        assert!(status.commit_index <= status.last_index, "member {id}: commits what it lacks");
        (member.term, member.commit_index) = (status.term, status.commit_index);
        if status.role == Role::Leader {
            self.note_leader(id, status.term);
        }
    }

    /// After a turn, before its write reaches the disk.
    pub(crate) fn turned(
        &mut self,
        members: &mut [Member],
        id: NodeId,
        effects: &Effects<Command>,
    ) {
        self.stands(members, id);
        if let Some(snapshot) = &effects.restore {
            // Whoever waited to be let in knows now who founded the group.
            members[id as usize - 1].founding = members[0].founding.clone();
            self.note_restore(&mut members[id as usize - 1], id, snapshot);
        }
        let member = &mut members[id as usize - 1];
        if let Some(write) = &effects.write {
            member.writes += 1;
            assert_eq!(write.id, member.writes, "member {id}: write ids count up by one");
            self.note_write(member, id, &write.entries);
        }
        self.check_log_end(member, id);
        for Event { role, term, .. } in &effects.events {
            if *role == Role::Leader {
                self.note_leader(id, *term);
                self.check_completeness(member, id, *term);
            }
        }
        for message in &effects.messages {
            self.note_message(member, message);
        }
        for message in &effects.messages {
            self.check_transfer(members, message);
        }
        let member = &mut members[id as usize - 1];
        let raft = member.raft.as_ref().expect("it runs");
        let status = raft.status();
        let told =
            effects.membership.is_none() || effects.membership.as_ref() == Some(raft.membership());
        assert!(told, "member {id}: tells of another membership than the one in force");
        let peers: Vec<_> = raft.peers().map(|peer| peer.id).collect();
        // Who leaves and comes back is new to its leader.
        self.acknowledged.retain(|(leader, peer), _| *leader != id || peers.contains(peer));
        for peer in raft.peers() {
            let now = (status.term, peer.match_index);
            let before = self.acknowledged.insert((id, peer.id), now).unwrap_or_default();
            assert!(before <= now, "member {id}: what {} acknowledged went back", peer.id);
        }
        for entry in &effects.committed {
            let member = &mut members[id as usize - 1];
            assert_eq!(
                entry.index,
                member.applied + 1,
                "member {id}: committed entries come out in order, once each"
            );
            member.applied = entry.index;
            self.note_committed(members, id, entry, status.term);
        }
        if let (Checks::All, Role::Leader, Some(last)) =
            (self.checks, status.role, effects.committed.last())
        {
            assert_eq!(
                last.term, status.term,
                "member {id}: a leader commits by counting only in its own term"
            );
        }
        for outcome in &effects.reads {
            self.note_read(id, outcome);
        }
    }

    /// The whole log of a running member, against what it wrote. Costs its length.
    pub(crate) fn check_whole_log(&self, member: &Member) {
        if let Some(raft) = &member.raft {
            let base = raft.base().index as usize;
            assert!(
                raft.entries(1).eq(member.log[base..].iter()),
                "a log differs from what was written"
            );
        }
    }

    fn note_leader(&mut self, id: NodeId, term: Term) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "election safety: term {term} has two leaders");
    }

    fn note_restore(&mut self, member: &mut Member, id: NodeId, snapshot: &Snapshot<Command>) {
        let count = snapshot.last.index as usize;
        assert!(snapshot.last.index > member.applied, "member {id}: goes back to a snapshot");
        let entries = &member.disk.snapshot[..count];
        let ledger = self.ledger.iter().map(|(entry, _)| entry);
        assert!(entries.iter().eq(ledger.take(count)), "member {id}: restores what never was");
        member.log = entries.to_vec();
        member.applied = snapshot.last.index;
    }

    fn note_write(&mut self, member: &mut Member, id: NodeId, entries: &[Entry<Command>]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > member.applied, "member {id}: rewrites a committed entry");
        assert!(first.index as usize <= member.log.len() + 1, "member {id}: leaves a gap");
        member.log.truncate(first.index as usize - 1);
        for entry in entries {
            let before = member.log.last().map_or(0, |entry| entry.term);
            assert_eq!(entry.index as usize, member.log.len() + 1, "member {id}: skips an index");
            self.note_entry(id, before, entry);
            member.log.push(entry.clone());
        }
    }

    fn note_entry(&mut self, id: NodeId, before: Term, entry: &Entry<Command>) {
        assert!(before <= entry.term, "member {id}: terms in a log went down");
        let made = self
            .made
            .entry((entry.term, entry.index))
            .or_insert_with(|| (before, entry.payload.clone()));
        assert_eq!(
            *made,
            (before, entry.payload.clone()),
            "log matching: member {id}, term {}, index {}",
            entry.term,
            entry.index
        );
    }

    fn check_log_end(&self, member: &Member, id: NodeId) {
        let raft = member.raft.as_ref().expect("it runs");
        let status = raft.status();
        assert_eq!(status.last_index as usize, member.log.len(), "member {id}: unwritten entries");
        if status.last_index > raft.base().index {
            assert_eq!(raft.entries(status.last_index).next(), member.log.last(), "member {id}");
        }
        if self.checks == Checks::All {
            let in_force = membership_of(&member.log, &member.founding);
            assert_eq!(*raft.membership(), in_force, "member {id}: the membership in its log");
        }
        if status.persisted_index > 0 {
            let entry = &member.log[status.persisted_index as usize - 1];
            assert!(member.disk.holds(entry), "member {id}: its disk lacks what it calls durable");
        }
    }

    fn check_completeness(&self, member: &Member, id: NodeId, term: Term) {
        for (entry, committed_in) in self.ledger.iter().rev() {
            if *committed_in < term {
                assert!(
                    member.log.get(entry.index as usize - 1) == Some(entry),
                    "leader completeness: member {id} leads term {term} without {entry:?}, \
                     committed in term {committed_in}",
                );
            }
        }
    }

    fn note_message(&mut self, member: &Member, message: &Message<Command>) {
        let Message { from, to, term, body } = message;
        let durable = self.checks == Checks::All;
        let hard_state = member.disk.hard_state;
        let (voter, candidate) = match body {
            Body::VoteReply { pre_vote: false, granted: true } => (from, to),
            Body::Vote { pre_vote: false, last_index, last_term, .. } => {
                let at = |at: usize| member.disk.entries.get(at).or(member.disk.snapshot.get(at));
                let held = last_index.checked_sub(1).map(|index| at(index as usize));
                let claim = held.map_or(Some(0), |entry| entry.map(|entry| entry.term));
                assert!(
                    !durable || claim == Some(*last_term),
                    "member {from}: asks for votes with a log that is not durable"
                );
                (from, from)
            }
            Body::AppendAccepted { match_index, .. } => {
                assert!(!durable || hard_state.term == *term, "member {from}: term not durable");
                let claim = match_index.checked_sub(1).map(|at| &member.log[at as usize]);
                assert!(
                    !durable || claim.is_none_or(|entry| member.disk.holds(entry)),
                    "member {from}: acknowledges what is not durable"
                );
                return;
            }
            _ => return,
        };
        if !durable {
            return;
        }
        let given = *self.votes.entry((*voter, *term)).or_insert(*candidate);
        assert_eq!(given, *candidate, "member {voter} voted twice in term {term}");
        assert!(
            (hard_state.term, hard_state.voted_for) == (*term, Some(*candidate)),
            "member {voter}: tells of a vote that is not durable"
        );
    }

    /// A leader hands over only to one that holds its whole log, or the campaign may be lost. (One
    /// that is no longer a member steps down first, and hands over as well as it can.)
    fn check_transfer(&self, members: &[Member], message: &Message<Command>) {
        let Message { from, to, body, .. } = message;
        let leader = &members[*from as usize - 1];
        let leads = leader.raft.as_ref().is_some_and(|raft| raft.status().role == Role::Leader);
        if self.checks == Checks::All && leads && *body == Body::TimeoutNow {
            let successor = &members[*to as usize - 1];
            let holds = leader.log.last().is_none_or(|entry| successor.disk.holds(entry));
            assert!(holds, "member {from}: hands over to {to}, which lacks entries");
        }
    }

    fn note_committed(
        &mut self,
        members: &[Member],
        id: NodeId,
        entry: &Entry<Command>,
        in_term: Term,
    ) {
        let position = entry.index as usize - 1;
        if let Some((known, _)) = self.ledger.get(position) {
            assert_eq!(known, entry, "state machine safety: member {id}, index {}", entry.index);
            return;
        }
        assert_eq!(position, self.ledger.len(), "commits are known in order");
        if let Payload::Data(command) = &entry.payload {
            assert!(self.commands.insert(command.clone()), "{command:?} was committed twice");
        }
        if self.checks == Checks::All {
            let member = &members[id as usize - 1];
            let in_force = membership_of(&member.log, &member.founding);
            // The leader may have moved on to C_new in this turn, but not before this entry was
            // committed under C_old,new.
            let behind = member.log[position..].iter().find_map(|entry| match &entry.payload {
                Payload::Membership(membership) => Some(membership),
                _ => None,
            });
            let joint = behind.filter(|membership| membership.is_joint()).unwrap_or(&in_force);
            let holds = |id: &&NodeId| members[**id as usize - 1].disk.holds(entry);
            for voters in [&in_force.voters, &joint.voters, &joint.outgoing] {
                let holders = voters.iter().filter(holds).count();
                assert!(
                    voters.is_empty() || holders > voters.len() / 2,
                    "member {id}: commits {entry:?}, durable on {holders} of {voters:?}",
                );
            }
        }
        self.ledger.push((entry.clone(), in_term));
    }

    fn note_read(&mut self, id: NodeId, outcome: &ReadOutcome) {
        let (ReadOutcome::Ready { context, .. } | ReadOutcome::Lost { context }) = outcome;
        let (member, at_least) =
            self.reads.remove(context).unwrap_or_else(|| panic!("read {context} settled twice"));
        assert_eq!(member, id, "read {context} settled by another member");
        if let ReadOutcome::Ready { index, .. } = outcome {
            assert!(
                *index >= at_least,
                "stale read: member {id} answers at {index}, after {at_least} was committed"
            );
        }
    }
}
