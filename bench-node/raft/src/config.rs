//! What a member is told when it starts.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::message::NodeId;

/// Settings of one member. Every protocol choice that an experiment varies is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// All voting members, this one too.
    pub voters: Vec<NodeId>,
    /// The lower bound; each timeout is drawn from [1x, 2x).
    pub election_timeout: Duration,
    /// How often an idle leader is heard from; below half of the election timeout.
    pub heartbeat: Duration,
    /// Ask whether an election could be won before disturbing the term (thesis, section 9.6).
    pub pre_vote: bool,
    /// A leader that has not heard from a majority for an election timeout steps down, and a
    /// member that hears from a leader ignores campaigns (thesis, sections 6.2 and 4.2.3).
    pub check_quorum: bool,
    /// A rejected append skips a whole term per round trip (paper, end of section 5.3); without
    /// it, one index.
    pub conflict_hints: bool,
    /// Entries in one append, at most.
    pub max_append_entries: usize,
    /// Payload bytes in one append, at most (a single larger entry still goes).
    pub max_append_bytes: usize,
    /// Appends with entries on their way to one follower, at most.
    pub max_inflight_appends: usize,
    /// How long an idle pipeline waits before it tells a follower of a new commit index.
    pub commit_notice: Duration,
    /// Seeds the election timeouts; give each member and each start its own.
    pub seed: u64,
    /// Planted bugs, for the tests that prove the checkers.
    #[cfg(feature = "seeded-bugs")]
    pub bug: Option<crate::SeededBug>,
}

/// Why a [`Config`] was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `id` is 0 or not among `voters`.
    NotAVoter(NodeId),
    /// A voter is named twice, or is 0.
    BadVoter(NodeId),
    /// The heartbeat is 0 or not below half of the election timeout.
    BadHeartbeat,
    /// A limit is 0; the text names it.
    ZeroLimit(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAVoter(id) => write!(f, "member {id} is not among the voters"),
            Self::BadVoter(id) => write!(f, "voter {id} is 0 or named twice"),
            Self::BadHeartbeat => {
                write!(f, "the heartbeat must be above 0 and below half of the election timeout")
            }
            Self::ZeroLimit(name) => write!(f, "{name} must be above 0"),
        }
    }
}

impl core::error::Error for ConfigError {}
