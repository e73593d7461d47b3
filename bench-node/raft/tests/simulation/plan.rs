//! What a seed stands for: the members' settings and the weather they live in.

use std::time::Duration;

use raft::{Config, NodeId};

use crate::random::Random;

/// Times are in microseconds of the simulated world.
pub(crate) const ELECTION_TIMEOUT_US: u64 = 100_000;
/// How long the world is broken before it is healed.
pub(crate) const BROKEN_US: u64 = 3_000_000;
/// Once healed, all that was asked must be done within this time, and what catching up takes.
pub(crate) const RECOVERY_US: u64 = 20 * ELECTION_TIMEOUT_US;
/// The longest that an append takes to its answer in a healed world, the disk included.
pub(crate) const CALM_ROUND_TRIP_US: u64 = 4_000;
/// Clients wait while a leader has more entries than this uncommitted.
pub(crate) const OUTSTANDING: u64 = 60;

/// A planted bug, where they are compiled in.
#[cfg(feature = "seeded-bugs")]
pub(crate) type Bug = raft::SeededBug;
/// A planted bug, where they are compiled in.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) type Bug = std::convert::Infallible;

/// Everything that a run draws before it starts.
pub(crate) struct Plan {
    pub(crate) configs: Vec<Config>,
    /// Per mille of messages.
    pub(crate) drops: u64,
    pub(crate) duplicates: u64,
    /// Per mille that are late by up to three election timeouts.
    pub(crate) late: u64,
    pub(crate) delay_us: u64,
    /// Messages of one link keep their order (as on one TCP stream), unless late.
    pub(crate) in_order: bool,
    pub(crate) disk_us: u64,
    /// Per mille of writes that take an election timeout and more.
    pub(crate) stalls: u64,
    /// Per mille of writes during which the member crashes.
    pub(crate) crashes_on_write: u64,
    /// Mean time between faults.
    pub(crate) fault_every_us: u64,
    /// Mean time between client requests.
    pub(crate) request_every_us: u64,
    /// Clock rates differ by up to this per mille.
    pub(crate) skew: u64,
    /// The longest a turn waits for more inputs.
    pub(crate) turn_us: u64,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random, bug: Option<Bug>) -> Self {
        let count = random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 7, 7]);
        let mut base = Config::new(1, 0);
        base.election_timeout = Duration::from_micros(ELECTION_TIMEOUT_US);
        base.heartbeat = Duration::from_micros(random.pick(&[5_000, 20_000, 45_000]));
        base.pre_vote = random.chance(700);
        base.check_quorum = random.chance(700);
        base.conflict_hints = random.chance(750);
        base.max_append_entries = random.pick(&[1, 1, 2, 5, 64]);
        base.max_append_bytes = random.pick(&[1, 24, 1 << 20, 1 << 20]);
        base.max_inflight_appends = random.pick(&[1, 2, 4, 16]);
        base.commit_notice = Duration::from_micros(random.pick(&[0, 1_000, 30_000, 1_000_000]));
        plant(&mut base, bug);
        let configs = (1..=count).map(|id: NodeId| Config { id, ..base.clone() });
        let calm = random.chance(250);
        Self {
            configs: configs.collect(),
            drops: if calm { 0 } else { random.pick(&[0, 10, 50, 200]) },
            duplicates: if calm { 0 } else { random.pick(&[0, 10, 100]) },
            late: if calm { 0 } else { random.pick(&[0, 10, 100]) },
            delay_us: random.pick(&[300, 2_000, 10_000]),
            in_order: random.chance(500),
            disk_us: random.pick(&[0, 500, 5_000, 30_000]),
            stalls: random.pick(&[0, 0, 5, 30]),
            crashes_on_write: random.pick(&[0, 1, 10, 50]),
            fault_every_us: random.pick(&[30_000, 100_000, 300_000]),
            request_every_us: random.pick(&[2_000, 10_000, 50_000]),
            skew: random.pick(&[0, 0, 10, 250]),
            turn_us: random.pick(&[0, 100, 3_000]),
        }
    }

    /// A healed world is also a quick one.
    pub(crate) fn calm_down(&mut self) {
        self.delay_us = self.delay_us.min(1_000);
        self.disk_us = self.disk_us.min(500);
        self.turn_us = self.turn_us.min(100);
        self.request_every_us = self.request_every_us.min(10_000);
    }
}

#[cfg(feature = "seeded-bugs")]
fn plant(config: &mut Config, bug: Option<Bug>) {
    config.bug = bug;
}

#[cfg(not(feature = "seeded-bugs"))]
fn plant(_: &mut Config, _: Option<Bug>) {}
