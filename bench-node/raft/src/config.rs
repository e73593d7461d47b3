//! What a member is told when it starts.

use core::fmt;
use core::time::Duration;

use crate::effects::Recovered;
use crate::message::{EntryId, Index, NodeId};

/// Settings of one member. Every protocol choice that an experiment varies is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// The lower bound; each timeout is drawn from [1x, 2x).
    pub election_timeout: Duration,
    /// How often an idle leader is heard from; below half of the election timeout.
    pub heartbeat: Duration,
    /// Ask whether an election could be won before disturbing the term (thesis, section 9.6).
    pub pre_vote: bool,
    /// A leader that has not heard from a majority for an election timeout steps down, and a
    /// member that hears from a leader ignores campaigns (thesis, sections 6.2 and 4.2.3).
    pub check_quorum: bool,
    /// A leader answers reads without asking a quorum, for as long as one that it asked before
    /// promised to elect nobody else. Needs `check_quorum`, and excludes `failover_hint`.
    pub lease_reads: bool,
    /// The most that a member's clock may run fast or slow, for leases.
    pub max_clock_drift_percent: u32,
    /// A member that loses its connection to the leader asks whether it could win after
    /// `failover_step`, rather than wait for the election timeout.
    pub failover_hint: bool,
    /// How far apart members act on the hint, one after the other in the order of their ids: time
    /// enough for the first to win.
    pub failover_step: Duration,
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
    pub fn new(id: NodeId, seed: u64) -> Self {
        Self {
            id,
            election_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(100),
            pre_vote: true,
            check_quorum: true,
            lease_reads: false,
            max_clock_drift_percent: 10,
            failover_hint: false,
            failover_step: Duration::from_millis(10),
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

    /// How long after its start a round is good for reads. The leader's clock may be slow, so that
    /// this takes `1 / (1 - drift)` of true time, and a member's fast, so that its promise ends after
    /// `1 / (1 + drift)` of it.
    pub fn lease(&self) -> Option<Duration> {
        let drift = if self.ignores_clock_drift() { 0 } else { self.max_clock_drift_percent };
        let drift = drift.min(100);
        self.lease_reads.then(|| self.election_timeout * (100 - drift) / (100 + drift))
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.id == 0 {
            return Err(ConfigError::BadMember(0));
        }
        if self.lease_reads && !self.check_quorum {
            return Err(ConfigError::LeaseWithoutCheckQuorum);
        }
        if self.lease_reads && self.failover_hint {
            return Err(ConfigError::LeaseWithFailoverHint);
        }
        if self.max_clock_drift_percent >= 50 {
            return Err(ConfigError::BadClockDrift);
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
        if let Some(id) = self.snapshot.membership.unsound() {
            return Err(ConfigError::BadMember(id));
        }
        let mut previous = self.snapshot.last;
        let term = self.hard_state.term.max(previous.term);
        for entry in &self.entries {
            if entry.index != previous.index + 1 {
                return Err(ConfigError::RecoveredGap(previous.index + 1));
            }
            if entry.term < previous.term || entry.term > term {
                return Err(ConfigError::RecoveredTerm(entry.index));
            }
            previous = EntryId { index: entry.index, term: entry.term };
        }
        Ok(())
    }
}

/// Why a member could not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A member is named twice, or is 0.
    BadMember(NodeId),
    /// The heartbeat is 0 or not below half of the election timeout.
    BadHeartbeat,
    /// Leases rest on members that ignore campaigns.
    LeaseWithoutCheckQuorum,
    /// The hint makes members do what a lease needs them not to.
    LeaseWithFailoverHint,
    /// No lease is left of an election timeout with clocks as bad as that.
    BadClockDrift,
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
            Self::BadMember(id) => write!(f, "member {id} is 0 or named twice"),
            Self::LeaseWithoutCheckQuorum => write!(f, "lease_reads needs check_quorum"),
            Self::LeaseWithFailoverHint => write!(f, "lease_reads excludes failover_hint"),
            Self::BadClockDrift => write!(f, "max_clock_drift_percent must be below 50"),
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
