//! What may be asked of the members, and which change of the membership that is.
//!
//! Invariant: a plan is a function of the membership in force and of whom the leader hears. Refusals
//! are etcd's, in its order and its words, wherever etcd has one. No plan changes the voters before
//! each of them is bound to a data directory (see [`super`]); and none lets an id in that was a
//! member before.
//!
//! A member that is added to vote is a learner first, and gets its vote once it has caught up
//! (thesis, section 4.2.1): until then the quorum is what it was. Those who list members see it as
//! what it was added as.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft::{Change, NodeId};

use super::{Record, Roster};

/// As etcd's.
const MOST_LEARNERS: usize = 1;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One more.
    Add(Added),
    /// One less.
    Remove(NodeId),
    /// A learner is to vote.
    Promote(NodeId),
    /// It is reached elsewhere.
    Update {
        /// Who.
        id: NodeId,
        /// Where, `host:port`.
        peer: String,
    },
    /// What a member says of itself.
    Publish {
        /// Who.
        id: NodeId,
        /// Its name.
        name: String,
        /// `host:port` for clients.
        client: String,
        /// Of its data directory.
        incarnation: u64,
    },
    /// All of them anew.
    Replace {
        /// Who votes.
        voters: Vec<NodeId>,
        /// Who learns.
        learners: Vec<NodeId>,
        /// Learners that are not members yet.
        added: Vec<Added>,
    },
}

/// A member to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Its id from then on.
    pub id: NodeId,
    /// `host:port` for the other members.
    pub peer: String,
    /// Only to learn.
    pub learner: bool,
}

/// Why a change was refused. It never happens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MembersError {
    #[error("etcdserver: member ID already exist")]
    IdExists,
    #[error("etcdserver: Peer URLs already exists")]
    PeerExists,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// A voter has not said who it is; a moment later it may have.
    #[error("etcdserver: unhealthy cluster")]
    VoterNotBound,
    #[error("etcdserver: member not found")]
    NotFound,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// Only in changes of several members.
    #[error(
        "member {0:016x} has no data directory yet: add it as a learner, start it, and give it a \
         vote afterwards"
    )]
    NotBound(NodeId),
    /// The same.
    #[error("member {0:016x} is named twice")]
    NamedTwice(NodeId),
    /// What a member says of itself.
    #[error("another member is called {0:?}: choose another name for this one")]
    NameTaken(String),
    /// The same.
    #[error(
        "member {0:016x} speaks from another data directory than before: remove it from the \
         cluster and add it again"
    )]
    Stranger(NodeId),
}

/// Whom the leader hears.
pub(crate) struct Standing<'a> {
    /// The leader.
    pub us: NodeId,
    /// Whether a member was heard from within an election timeout.
    pub hears: &'a dyn Fn(NodeId) -> bool,
}

/// What comes of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// It is so already.
    Nothing,
    /// This is to be brought about.
    Change(Change<Bytes>),
}

/// Which change that is.
pub(crate) fn plan(
    roster: &Roster,
    standing: &Standing<'_>,
    ask: &Ask,
) -> Result<Planned, MembersError> {
    let mut next = Next::of(roster);
    match ask {
        Ask::Add(added) => {
            if !added.learner {
                next.check_enough_started(1, None)?;
            }
            next.check_all_heard(standing)?;
            if added.learner && next.roster.learners().count() >= MOST_LEARNERS {
                return Err(MembersError::TooManyLearners);
            }
            next.add(added)?;
        }
        Ask::Remove(id) => {
            if !roster.is_learner(*id) {
                next.check_enough_started(0, Some(*id))?;
                next.check_removal_heard(standing, *id)?;
            }
            if !roster.is_member(*id) {
                return Err(MembersError::NotFound);
            }
            next.voters.retain(|other| other != id);
            next.learners.retain(|other| other != id);
        }
        Ask::Promote(id) => {
            next.check_enough_started(1, None)?;
            let record = roster.member(*id).ok_or(MembersError::NotFound)?;
            if !roster.is_learner(*id) {
                return Err(MembersError::NotLearner);
            }
            if record.incarnation == 0 {
                return Err(MembersError::LearnerNotReady);
            }
            next.give_vote(*id);
        }
        Ask::Update { id, peer } => {
            next.check_free(peer, Some(*id))?;
            next.record(*id)?.peer.clone_from(peer);
        }
        Ask::Publish { id, name, client, incarnation } => {
            if roster.is_stranger(*id, *incarnation) {
                return Err(MembersError::Stranger(*id));
            }
            if roster.members().any(|other| other.id != *id && other.name == *name) {
                return Err(MembersError::NameTaken(name.clone()));
            }
            let record = next.record(*id)?;
            record.name.clone_from(name);
            record.client.clone_from(client);
            record.incarnation = *incarnation;
        }
        Ask::Replace { voters, learners, added } => {
            next.replace(voters, learners)?;
            for added in added {
                next.add(added)?;
            }
        }
    }
    next.planned()
}

/// The change that gives a learner the vote that it was added for, if one has come so far; the
/// leader knows whether it has caught up.
pub(crate) fn promotion(roster: &Roster) -> impl Iterator<Item = Change<Bytes>> + '_ {
    let due =
        |record: &&Record| record.to_vote && record.incarnation != 0 && !roster.is_voter(record.id);
    roster.members().filter(due).filter_map(|record| {
        let mut next = Next::of(roster);
        next.give_vote(record.id);
        match next.planned() {
            Ok(Planned::Change(change)) => Some(change),
            _ => None,
        }
    })
}

/// What the membership is to be.
struct Next<'a> {
    roster: &'a Roster,
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    records: BTreeMap<NodeId, Record>,
}

impl Roster {
    /// Those who list members see as voters.
    fn listed_voters(&self) -> impl Iterator<Item = &Record> + '_ {
        self.members().filter(|record| !self.is_learner(record.id))
    }

    /// And as learners.
    fn learners(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.learners.iter().copied().filter(|id| self.is_learner(*id))
    }
}

impl<'a> Next<'a> {
    fn of(roster: &'a Roster) -> Self {
        let (voters, learners) = (roster.voters.clone(), roster.learners.clone());
        Self { roster, voters, learners, records: roster.records.clone() }
    }

    /// Whether those that have started are a quorum of the voters, `more` of them counted in and
    /// `without` counted out.
    fn check_enough_started(
        &self,
        more: usize,
        without: Option<NodeId>,
    ) -> Result<(), MembersError> {
        let voters = || self.roster.listed_voters().filter(|record| Some(record.id) != without);
        let started = voters().filter(|record| record.is_started()).count();
        let all = voters().count() + more;
        // A member that is alone may be joined by another: for that there is no other way.
        let alone = more == 1 && without.is_none() && started == 1 && all == 2;
        match started > all / 2 || alone {
            true => Ok(()),
            false => Err(MembersError::NotEnoughStarted),
        }
    }

    fn check_all_heard(&self, standing: &Standing<'_>) -> Result<(), MembersError> {
        let heard = |record: &Record| record.id == standing.us || (standing.hears)(record.id);
        match self.roster.listed_voters().all(heard) {
            true => Ok(()),
            false => Err(MembersError::Unhealthy),
        }
    }

    /// Whether the quorum holds without a voter that is heard from.
    fn check_removal_heard(&self, standing: &Standing<'_>, id: NodeId) -> Result<(), MembersError> {
        let heard = |id: NodeId| id == standing.us || (standing.hears)(id);
        if !heard(id) {
            return Ok(());
        }
        let voters = self.roster.listed_voters();
        let (all, active) = voters.fold((0, 0), |(all, active), record| {
            (all + 1, active + usize::from(heard(record.id)))
        });
        match active > 1 + (all - 1usize) / 2 {
            true => Ok(()),
            false => Err(MembersError::Unhealthy),
        }
    }

    fn check_free(&self, peer: &str, of: Option<NodeId>) -> Result<(), MembersError> {
        let is_taken = |record: &Record| {
            let stays = self.voters.contains(&record.id) || self.learners.contains(&record.id);
            stays && Some(record.id) != of && record.peer == peer
        };
        match self.records.values().any(is_taken) {
            true => Err(MembersError::PeerExists),
            false => Ok(()),
        }
    }

    fn record(&mut self, id: NodeId) -> Result<&mut Record, MembersError> {
        let is_member = self.roster.is_member(id);
        self.records.get_mut(&id).filter(|_| is_member).ok_or(MembersError::NotFound)
    }

    fn add(&mut self, added: &Added) -> Result<(), MembersError> {
        let Added { id, peer, learner } = added;
        let known = self.records.contains_key(id) || self.roster.removed.contains(id);
        if *id == 0 || known {
            return Err(MembersError::IdExists);
        }
        self.check_free(peer, None)?;
        let record = Record {
            id: *id,
            name: String::new(),
            peer: peer.clone(),
            client: String::new(),
            incarnation: 0,
            to_vote: !learner,
        };
        self.records.insert(*id, record);
        self.learners.push(*id);
        Ok(())
    }

    fn give_vote(&mut self, id: NodeId) {
        self.learners.retain(|other| *other != id);
        self.voters.push(id);
        if let Some(record) = self.records.get_mut(&id) {
            record.to_vote = false;
        }
    }

    fn replace(&mut self, voters: &[NodeId], learners: &[NodeId]) -> Result<(), MembersError> {
        let mut named = BTreeSet::new();
        for id in voters.iter().chain(learners) {
            if !self.roster.is_member(*id) {
                return Err(MembersError::NotFound);
            }
            if !named.insert(*id) {
                return Err(MembersError::NamedTwice(*id));
            }
        }
        (self.voters, self.learners) = (voters.to_vec(), learners.to_vec());
        for id in voters {
            let record = self.record(*id)?;
            if record.incarnation == 0 && !self.roster.voters.contains(id) {
                return Err(MembersError::NotBound(*id));
            }
            self.record(*id)?.to_vote = false;
        }
        for id in learners.iter().filter(|id| self.roster.voters.contains(id)) {
            self.record(*id)?.to_vote = false;
        }
        Ok(())
    }

    fn planned(mut self) -> Result<Planned, MembersError> {
        let roster = self.roster;
        let stays = |id: &NodeId| self.voters.contains(id) || self.learners.contains(id);
        let leaving: Vec<_> = roster.ids().filter(|id| !stays(id)).collect();
        // Those that leave are voters until C_new is in force, and are named until the next change.
        self.records.retain(|id, _| stays(id) || leaving.contains(id));
        let same_voters = self.voters.len() == roster.voters.len()
            && self.voters.iter().all(|id| roster.voters.contains(id));
        let bound = |id: &NodeId| self.records.get(id).is_some_and(|own| own.incarnation != 0);
        if !same_voters && !self.voters.iter().all(bound) {
            return Err(MembersError::VoterNotBound);
        }
        let mut removed = roster.removed.clone();
        removed.extend(leaving);
        removed.sort_unstable();
        removed.dedup();
        let next = Roster {
            voters: self.voters,
            outgoing: Vec::new(),
            learners: self.learners,
            records: self.records,
            removed,
        };
        if next == *roster {
            return Ok(Planned::Nothing);
        }
        let context = next.context();
        Ok(Planned::Change(Change { voters: next.voters, learners: next.learners, context }))
    }
}
