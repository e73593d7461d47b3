//! What happens to a node, as JSON lines on stderr.
//!
//! Invariant: a change of leadership is one line with the message `leadership`, its role, term,
//! leader and reason, and a microsecond timestamp: outages are measured from these lines.

use std::sync::Arc;

use raft::{Event, NodeId, Reason, Role};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::members::RostersSeen;

/// Sends the process's events to stderr; where somebody else set that up before, theirs stays.
pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
    let _ = tracing_subscriber::fmt()
        .json()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter.from_env_lossy())
        // It would say so on stderr, which is what failed, and panic.
        .log_internal_errors(false)
        .finish()
        .try_init();
}

/// Names members in events.
#[derive(Clone, Debug)]
pub(crate) struct EventLog {
    node: Arc<str>,
    rosters: RostersSeen,
}

impl EventLog {
    /// Of this node.
    pub(crate) fn new(node: &str, rosters: RostersSeen) -> Self {
        Self { node: node.into(), rosters }
    }

    /// A member's name.
    pub(crate) fn name(&self, id: NodeId) -> String {
        self.rosters.borrow().name(id)
    }

    /// Role, term or leader changed.
    pub(crate) fn leadership(&self, event: &Event) {
        let leader = event.leader.map(|leader| self.name(leader));
        tracing::info!(
            node = &*self.node,
            role = role(event.role),
            term = event.term,
            leader,
            reason = reason(event.reason),
            "leadership"
        );
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre_candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Started => "started",
        Reason::ElectionTimeout => "election_timeout",
        Reason::PreVoteWon => "pre_vote_won",
        Reason::VoteWon => "vote_won",
        Reason::VoteLost => "vote_lost",
        Reason::HigherTerm => "higher_term",
        Reason::LeaderHeard => "leader_heard",
        Reason::QuorumLost => "quorum_lost",
        Reason::ConnectionLost => "connection_lost",
        Reason::TransferReceived => "transfer_received",
        Reason::TransferAborted => "transfer_aborted",
        Reason::Removed => "removed",
    }
}
