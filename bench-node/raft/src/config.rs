//! What a member is told when it starts.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::effects::Recovered;
use crate::message::{Index, NodeId};

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

impl Config {
    /// The usual settings; change what an experiment varies.
    pub fn new(id: NodeId, voters: Vec<NodeId>, seed: u64) -> Self {
        Self {
            id,
            voters,
            election_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(100),
            pre_vote: true,
            check_quorum: true,
            conflict_hints: true,
            max_append_entries: 4096,
            max_append_bytes: 1 << 20,
            max_inflight_appends: 64,
            commit_notice: Duration::from_millis(1),
            seed,
            #[cfg(feature = "seeded-bugs")]
            bug: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (position, &voter) in self.voters.iter().enumerate() {
            if voter == 0 || self.voters[..position].contains(&voter) {
                return Err(ConfigError::BadVoter(voter));
            }
        }
        if !self.voters.contains(&self.id) {
            return Err(ConfigError::NotAVoter(self.id));
        }
        if self.heartbeat.is_zero() || self.heartbeat >= self.election_timeout / 2 {
            return Err(ConfigError::BadHeartbeat);
        }
        let limits = [
            ("max_append_entries", self.max_append_entries),
            ("max_append_bytes", self.max_append_bytes),
            ("max_inflight_appends", self.max_inflight_appends),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(ConfigError::ZeroLimit(name)),
            None => Ok(()),
        }
    }
}

impl<D> Recovered<D> {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut previous = (0, 0);
        for entry in &self.entries {
            if entry.index != previous.0 + 1 {
                return Err(ConfigError::RecoveredGap(previous.0 + 1));
            }
            if entry.term < previous.1 || entry.term > self.hard_state.term {
                return Err(ConfigError::RecoveredTerm(entry.index));
            }
            previous = (entry.index, entry.term);
        }
        Ok(())
    }
}

/// Why a member could not start.
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
    /// The recovered log does not go on at this index.
    RecoveredGap(Index),
    /// The recovered entry at this index has a term below that of the one before it, or above the
    /// recovered term. Writes that became durable in their order cannot leave that behind.
    RecoveredTerm(Index),
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
            Self::RecoveredGap(index) => {
                write!(f, "the recovered log has another entry where index {index} belongs")
            }
            Self::RecoveredTerm(index) => {
                write!(f, "the recovered entry {index} has a term that it cannot have")
            }
        }
    }
}

impl core::error::Error for ConfigError {}
