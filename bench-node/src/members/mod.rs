//! Who the members are: what a membership carries of them beside their ids.
//!
//! Invariant: in every membership but the founding voters', each voter's record carries the
//! incarnation of the one data directory that may speak for it. Whoever counts a voter so holds, in
//! the same entry of the log, whom it counts; `crate::peers` has what follows from that.
//!
//! A membership in force is a list of ids, which the protocol goes by, and a context, which is this
//! module's: one record for each member, and the ids that were members once. The context is the
//! protobuf message `raftbench.members.Records` in its one canonical encoding: any other bytes are
//! refused. An empty context stands for no records; logs from before there were any have it.

mod change;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::members::{Record as WireRecord, Records};
use bytes::Bytes;
use prost::Message as _;
use raft::{Index, Membership, NodeId};
use tokio::sync::watch;

use crate::config::Member;
pub(crate) use change::{Added, Ask, MembersError, Planned, Standing, plan, promotion};

/// Of [`Records`].
const VERSION: u32 = 1;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Unique for ever.
    pub id: NodeId,
    /// Unique among members; empty until it has started.
    pub name: String,
    /// `host:port` for the other members.
    pub peer: String,
    /// `host:port` for clients; empty until it has started.
    pub client: String,
    /// Of its data directory; 0 until it said so.
    pub incarnation: u64,
    /// A learner that becomes a voter as soon as it has caught up.
    pub to_vote: bool,
}

impl Record {
    /// Whether it said who it is: founders are known from the beginning.
    pub(crate) fn is_started(&self) -> bool {
        !self.name.is_empty()
    }
}

/// A context that this version did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a membership's records make no sense: do all members run the same version?")]
pub struct RecordsError;

/// A membership with its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
    /// Of members, and of those that left last.
    records: BTreeMap<NodeId, Record>,
    /// Ascending.
    removed: Vec<NodeId>,
}

/// What everything outside the loop goes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rosters {
    /// The latest in the log, committed or not.
    pub in_force: Arc<Roster>,
    /// The latest that is known to be committed.
    pub committed: Arc<Roster>,
    /// Where that one stands in the log.
    pub committed_at: Index,
    /// Whether this process knows what is committed; until then `committed` may be an old one.
    pub settled: bool,
}

impl Rosters {
    /// Of a member that starts: what its disk holds.
    pub(crate) fn at_start(recovered: &raft::Recovered<Bytes>) -> Result<Self, RecordsError> {
        let memberships = recovered.entries.iter().rev().find_map(|entry| match &entry.payload {
            raft::Payload::Membership(membership) => Some(membership),
            _ => None,
        });
        let committed = Arc::new(Roster::of(&recovered.snapshot.membership)?);
        let in_force = match memberships {
            Some(membership) => Arc::new(Roster::of(membership)?),
            None => Arc::clone(&committed),
        };
        let committed_at = recovered.snapshot.last.index;
        Ok(Self { in_force, committed, committed_at, settled: false })
    }

    /// Whether a change is not known to be committed.
    pub(crate) fn is_open(&self) -> bool {
        self.in_force != self.committed
    }

    /// The members to list: what is committed, and, as long as this process does not know what is,
    /// the latest that it has.
    pub(crate) fn listed(&self) -> &Arc<Roster> {
        if self.settled { &self.committed } else { &self.in_force }
    }

    /// A member, as far as this one knows of it at all.
    pub(crate) fn member(&self, id: NodeId) -> Option<&Record> {
        self.in_force.member(id).or_else(|| self.committed.member(id))
    }

    /// All that may turn out to be members.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Record> + '_ {
        let leaving = |record: &&Record| !self.in_force.is_member(record.id);
        self.in_force.members().chain(self.committed.members().filter(leaving))
    }

    /// A name for people.
    pub(crate) fn name(&self, id: NodeId) -> String {
        match self.in_force.records.contains_key(&id) {
            true => self.in_force.name(id),
            false => self.committed.name(id),
        }
    }
}

/// The rosters as they change.
pub(crate) type RostersSeen = watch::Receiver<Rosters>;

impl Roster {
    /// Of a membership of the log.
    pub(crate) fn of(membership: &Membership<Bytes>) -> Result<Self, RecordsError> {
        let Membership { voters, outgoing, learners, context } = membership;
        let (records, removed) = decode(context)?;
        let (voters, outgoing) = (voters.clone(), outgoing.clone());
        Ok(Self { voters, outgoing, learners: learners.clone(), records, removed })
    }

    /// The founders, all of them voters.
    pub(crate) fn founding(founders: &[Member]) -> Self {
        let record = |member: &Member| Record {
            id: member.id,
            name: member.name.clone(),
            peer: member.peer.clone(),
            client: member.client.clone(),
            incarnation: 0,
            to_vote: false,
        };
        let records: BTreeMap<_, _> =
            founders.iter().map(|member| (member.id, record(member))).collect();
        // In the same order everywhere.
        Self { voters: records.keys().copied().collect(), records, ..Self::default() }
    }

    /// For the log.
    pub(crate) fn membership(&self) -> Membership<Bytes> {
        Membership {
            voters: self.voters.clone(),
            outgoing: self.outgoing.clone(),
            learners: self.learners.clone(),
            context: self.context(),
        }
    }

    /// What the log carries beside the ids.
    pub(crate) fn context(&self) -> Bytes {
        encode(&self.records, &self.removed).into()
    }

    /// All members: voters, those on their way out, learners.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        let outgoing = self.outgoing.iter().filter(|id| !self.voters.contains(id));
        let learners = self.learners.iter().filter(|id| !self.is_voter(**id));
        self.voters.iter().chain(outgoing).chain(learners).copied()
    }

    /// The members' records, in the order of ids; of those that have one.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Record> + '_ {
        self.records.values().filter(|record| self.is_member(record.id))
    }

    /// A member's record.
    pub(crate) fn member(&self, id: NodeId) -> Option<&Record> {
        self.records.get(&id).filter(|_| self.is_member(id))
    }

    /// Whether it is a member.
    pub(crate) fn is_member(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether it was a member once, and is none.
    pub(crate) fn is_removed(&self, id: NodeId) -> bool {
        self.removed.binary_search(&id).is_ok() && !self.is_member(id)
    }

    /// Those that were members once, ascending; some may be on their way out still.
    pub(crate) fn removed(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.removed.iter().copied().filter(|id| !self.is_member(*id))
    }

    /// Whether its vote counts.
    pub(crate) fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether it is there to learn: not one that only waits for its vote.
    pub(crate) fn is_learner(&self, id: NodeId) -> bool {
        let to_vote = self.records.get(&id).is_some_and(|record| record.to_vote);
        self.learners.contains(&id) && !self.is_voter(id) && !to_vote
    }

    /// Whether C_old,new is in force.
    pub(crate) fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// A name for people: its own, or, as long as it has none, its id.
    pub(crate) fn name(&self, id: NodeId) -> String {
        match self.records.get(&id) {
            Some(record) if !record.name.is_empty() => record.name.clone(),
            _ => format!("{id:016x}"),
        }
    }

    /// Whether messages in the name of `id` from this data directory must not count.
    pub(crate) fn is_stranger(&self, id: NodeId, incarnation: u64) -> bool {
        let bound = self.member(id).map_or(0, |record| record.incarnation);
        bound != 0 && bound != incarnation
    }
}

fn encode(records: &BTreeMap<NodeId, Record>, removed: &[NodeId]) -> Vec<u8> {
    let record = |record: &Record| WireRecord {
        id: record.id,
        name: record.name.clone(),
        peer: record.peer.clone(),
        client: record.client.clone(),
        incarnation: record.incarnation,
        to_vote: record.to_vote,
    };
    let records = records.values().map(record).collect();
    Records { version: VERSION, records, removed: removed.to_vec() }.encode_to_vec()
}

type Decoded = (BTreeMap<NodeId, Record>, Vec<NodeId>);

fn decode(context: &Bytes) -> Result<Decoded, RecordsError> {
    if context.is_empty() {
        return Ok(Decoded::default());
    }
    let wire = Records::decode(context.clone()).map_err(|_| RecordsError)?;
    let record = |wire: WireRecord| Record {
        id: wire.id,
        name: wire.name,
        peer: wire.peer,
        client: wire.client,
        incarnation: wire.incarnation,
        to_vote: wire.to_vote,
    };
    let mut removed = wire.removed;
    removed.sort_unstable();
    removed.dedup();
    let records = wire.records.into_iter().map(|wire| (wire.id, record(wire))).collect();
    // What this version does not know, or would order in another way, is not in there.
    match encode(&records, &removed) == context[..] {
        true => Ok((records, removed)),
        false => Err(RecordsError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn founders(count: u64) -> Vec<Member> {
        let founder = |id| Member {
            id,
            name: format!("n{id}"),
            peer: format!("h{id}:2380"),
            client: format!("h{id}:2379"),
        };
        (1..=count).map(founder).collect()
    }

    #[test]
    fn what_the_log_carries_is_taken_back_and_nothing_else_is() {
        let mut roster = Roster::founding(&founders(3));
        roster.removed = vec![7, 9];
        roster.records.get_mut(&2).expect("it is there").incarnation = 5;
        let membership = roster.membership();
        assert_eq!(Roster::of(&membership), Ok(roster));
        let bytes = membership.context;
        let of = |context: Vec<u8>| {
            let voters = vec![1, 2, 3];
            let context = context.into();
            Roster::of(&Membership { voters, outgoing: vec![], learners: vec![], context })
        };
        for cut in 1..bytes.len() {
            // A cut that leaves whole fields is another set of records, and no panic.
            let _ = of(bytes[..cut].to_vec());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            if let Ok(other) = of(changed.clone()) {
                assert_eq!(other.context(), changed, "what is taken is canonical");
            }
        }
        let unknown_field = [&bytes[..], &[0x78, 1]].concat();
        assert_eq!(of(unknown_field), Err(RecordsError));
        let later_version = Records { version: VERSION + 1, ..Records::default() };
        assert_eq!(of(later_version.encode_to_vec()), Err(RecordsError));
        assert_eq!(of(Vec::new()).map(|roster| roster.members().count()), Ok(0));
    }
}
