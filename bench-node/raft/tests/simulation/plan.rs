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

/// What a run is about: some mistakes show only where much of one kind happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Everything.
    Any,
    /// Reads under leases, by clocks at the limit, with leaders cut off or handing over.
    Leases,
    /// One change of members after the other, one voter at a time, and many elections.
    Members,
}

impl Theme {
    fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0 => Self::Leases,
            1 => Self::Members,
            _ => Self::Any,
        }
    }
}

/// Everything that a run draws before it starts.
pub(crate) struct Plan {
    pub(crate) theme: Theme,
    pub(crate) configs: Vec<Config>,
    /// How many of them found the group; the others wait to be let in.
    pub(crate) founders: usize,
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
    /// Mean time between what operators do; never, where nothing is to change.
    pub(crate) admin_every_us: u64,
    /// Clock rates differ by up to this per mille.
    pub(crate) skew: u64,
    /// The longest a turn waits for more inputs.
    pub(crate) turn_us: u64,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random, bug: Option<Bug>) -> Self {
        let theme = Theme::draw(random);
        let founders = match theme {
            Theme::Members => 4,
            _ => random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 7, 7]),
        };
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
        let skew = random.pick(&[0, 0, 10, 250]);
        match random.below(10) {
            0..3 => {
                (base.check_quorum, base.lease_reads) = (true, true);
                base.max_clock_drift_percent = (skew as u32).div_ceil(10).max(1);
            }
            3..6 => base.failover_hint = true,
            _ => {}
        }
        base.failover_step = Duration::from_micros(random.pick(&[1_000, 10_000]));
        plant(&mut base, bug);
        let admin_every_us = random.pick(&[u64::MAX / 4, 20_000, 100_000, 400_000]);
        let changing = admin_every_us < u64::MAX / 4;
        let spare = match theme {
            Theme::Members => 1,
            _ if changing => random.below(4),
            _ => 0,
        };
        let configs = (1..=founders + spare).map(|id: NodeId| Config { id, ..base.clone() });
        let calm = random.chance(250);
        let plan = Self {
            theme,
            configs: configs.collect(),
            founders: founders as usize,
            admin_every_us,
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
            skew,
            turn_us: random.pick(&[0, 100, 3_000]),
        };
        plan.on_theme(random)
    }

    /// Narrows the draw to where the theme's mistakes would show.
    fn on_theme(mut self, random: &mut Random) -> Self {
        match self.theme {
            Theme::Any => {}
            Theme::Leases => {
                let skew = 250;
                for config in &mut self.configs {
                    (config.check_quorum, config.failover_hint) = (true, false);
                    config.lease_reads = true;
                    config.max_clock_drift_percent = skew as u32 / 10;
                    config.heartbeat = Duration::from_millis(5);
                    config.commit_notice = Duration::ZERO;
                }
                self.skew = skew;
                (self.delay_us, self.disk_us, self.turn_us, self.stalls) = (300, 0, 0, 0);
                (self.drops, self.late) = (random.pick(&[0, 200]), random.pick(&[0, 10]));
                (self.request_every_us, self.fault_every_us) = (1_000, 100_000);
                self.admin_every_us = random.pick(&[u64::MAX / 4, 30_000]);
            }
            Theme::Members => {
                for config in &mut self.configs {
                    (config.pre_vote, config.check_quorum) = (false, false);
                    (config.lease_reads, config.failover_hint) = (false, false);
                    config.commit_notice = Duration::ZERO;
                }
                (self.drops, self.late, self.disk_us, self.stalls) = (0, 0, 5_000, 0);
                (self.fault_every_us, self.admin_every_us) = (15_000, 2_000);
                (self.crashes_on_write, self.request_every_us) = (0, 50_000);
            }
        }
        self
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
