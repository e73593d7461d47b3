//! Handing leadership over (thesis, section 3.10).
//!
//! Invariant: in a transfer, TimeoutNow goes only to a voter that holds the leader's whole log
//! durably, so that its campaign cannot fail for its log. Meanwhile nothing is proposed: the layer above holds what
//! comes. If the target does not lead within an election timeout, the leader goes on.
//!
//! The target's campaign skips pre-vote and says that it was asked for, so that members that still
//! hear from the leader vote. That breaks what a lease rests on: see `reads`.

use core::fmt;
use core::time::Duration;

use crate::effects::Reason;
use crate::message::{Body, NodeId};
use crate::raft::{Part, Raft};

/// A transfer under way.
pub(crate) struct Transfer {
    to: NodeId,
    deadline: Duration,
    told: bool,
}

impl Transfer {
    /// When it is given up.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// Why a transfer was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// This member does not lead.
    NotLeader {
        /// Who does, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// The target is no voter.
    NotAVoter(NodeId),
    /// Another transfer, or a change of members, is under way.
    UnderWay,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(f, "member {leader} leads"),
            Self::NotLeader { leader: None } => write!(f, "this member does not lead"),
            Self::NotAVoter(id) => write!(f, "member {id} is no voter"),
            Self::UnderWay => write!(f, "another transfer or a change of members is under way"),
        }
    }
}

impl core::error::Error for TransferError {}

impl<D: Clone + AsRef<[u8]>> Raft<D> {
    /// Begins to hand leadership to `to`. How it ends is told by events: this member follows, or
    /// [`Reason::TransferAborted`]. To oneself, there is nothing to do.
    ///
    /// # Errors
    /// Nothing was begun.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), TransferError> {
        let leader = self.leader();
        let Part::Leader(leading) = &mut self.part else {
            return Err(TransferError::NotLeader { leader });
        };
        let current = self.memberships.current();
        if !current.voters.contains(&to) {
            return Err(TransferError::NotAVoter(to));
        }
        if to == self.config.id {
            return Ok(());
        }
        if leading.transfer.is_some() || current.is_joint() {
            return Err(TransferError::UnderWay);
        }
        let deadline = self.now + self.config.election_timeout;
        leading.transfer = Some(Transfer { to, deadline, told: false });
        // Where the target lost what was sent, it should say so now and not at the next heartbeat.
        leading.peers.iter_mut().filter(|peer| peer.id == to).for_each(|peer| peer.due = true);
        Ok(())
    }

    /// Whether leadership is being handed over: nothing can be proposed meanwhile.
    pub fn is_transferring(&self) -> bool {
        matches!(&self.part, Part::Leader(leading) if leading.transfer.is_some())
    }

    /// The voter that holds most of the log: the best one to hand leadership to.
    pub fn best_successor(&self) -> Option<NodeId> {
        let Part::Leader(leading) = &self.part else { return None };
        let voters = &self.memberships.current().voters;
        let peers = leading.peers.iter().filter(|peer| voters.contains(&peer.id));
        peers.max_by_key(|peer| (peer.match_index, peer.heard)).map(|peer| peer.id)
    }

    /// Gives up a transfer whose time is over.
    pub(crate) fn tick_transfer(&mut self) {
        let now = self.now;
        let overdue = |transfer: &mut Transfer| transfer.deadline <= now;
        if let Part::Leader(leading) = &mut self.part
            && leading.transfer.take_if(overdue).is_some()
        {
            self.record(Reason::TransferAborted);
        }
    }

    /// Tells the target to campaign, once it holds everything.
    pub(crate) fn drive_transfer(&mut self) {
        let Part::Leader(leading) = &mut self.part else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        let to = transfer.to;
        let Some(peer) = leading.peers.iter().find(|peer| peer.id == to) else { return };
        let caught_up = peer.match_index == self.log.last_index()
            || self.config.transfers_without_catching_up();
        if caught_up && !transfer.told {
            transfer.told = true;
            if !self.config.keeps_lease_through_transfer() {
                leading.reads.give_up_lease();
            }
            self.send(to, Body::TimeoutNow);
        }
    }

    /// The leader asks this member to take over.
    pub(crate) fn take_over(&mut self, from: NodeId) {
        let asked_by_leader =
            matches!(&self.part, Part::Follower(following) if following.leader == Some(from));
        if asked_by_leader && self.may_campaign() {
            self.campaign(Reason::TransferReceived);
        }
    }

    /// A leader that is no longer a member hands over and follows.
    pub(crate) fn leave_office(&mut self) {
        if let Some(successor) = self.best_successor() {
            self.send(successor, Body::TimeoutNow);
        }
        self.become_follower(None, Reason::Removed);
    }
}
