//! What a seed stands for: the nodes' settings and the weather they live in.

use std::time::Duration;

use bench_node::disk::Disk;
use bench_node::identity::DataDir;
use bench_node::store::SnapshotLimits;
use bench_node::{snapshot, store, wal};

use crate::random::Random;

/// Times are in microseconds of the simulated world.
pub(crate) const ELECTION_TIMEOUT_US: u64 = 100_000;
/// How long the world is broken before it is healed.
pub(crate) const BROKEN_US: u64 = 2_500_000;
/// Once healed, all that was asked must be done within this time: elections, a transfer of a snapshot
/// to each member of each group, and what is committed behind it.
pub(crate) const RECOVERY_US: u64 = 40 * ELECTION_TIMEOUT_US;
/// A client gives up an operation after this.
pub(crate) const CLIENT_PATIENCE_US: u64 = 2 * ELECTION_TIMEOUT_US;
/// So much is committed before a run ends, in the healed world if not before: a seed in which less was
/// proves little.
pub(crate) const COMMITS: usize = 110;

/// A planted bug, where they are compiled in.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// In the core.
    Raft(raft::SeededBug),
    /// In the log.
    Wal(wal::SeededBug),
    /// In snapshots.
    Snapshot(snapshot::SeededBug),
    /// In the layer that holds the groups.
    Store(store::SeededBug),
    /// A member that lost its disk is let in under its old id.
    WipedMemberVotes,
    /// One put in so many is answered and not done.
    LostWrite(u64),
}
/// A planted bug, where they are compiled in.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) type Bug = std::convert::Infallible;

/// What a run is about: some mistakes show only where much of one kind happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Everything.
    Any,
    /// Nodes that crash and lose power, disks that fail, and segments that are soon full.
    Crashes,
    /// A network in pieces.
    Network,
    /// Three groups on each node.
    Groups,
    /// One change of members after the other.
    Members,
    /// Reads under leases, by clocks at the limit.
    Leases,
    /// A member that loses its disk, or finds it rotten, for ever.
    Losses,
}

/// Everything that a run draws before it starts.
pub(crate) struct Plan {
    pub(crate) theme: Theme,
    #[cfg_attr(not(feature = "seeded-bugs"), allow(dead_code))]
    pub(crate) bug: Option<Bug>,
    /// Of all members; id and seed are each one's own.
    pub(crate) raft: raft::Config,
    pub(crate) limits: SnapshotLimits,
    pub(crate) wal: wal::Options,
    pub(crate) snapshots: snapshot::Options,
    /// A snapshot travels in pieces of so many bytes.
    pub(crate) chunk_bytes: usize,
    pub(crate) nodes: u64,
    /// How many of them found each group; the others wait to be let in.
    pub(crate) founders: u64,
    pub(crate) groups: u64,
    /// Per mille of messages.
    pub(crate) drops: u64,
    pub(crate) duplicates: u64,
    /// Per mille that are late by up to three election timeouts.
    pub(crate) late: u64,
    pub(crate) delay_us: u64,
    /// Batches of one link keep their order (as on one TCP stream), unless late.
    pub(crate) in_order: bool,
    pub(crate) disk_us: u64,
    /// Per mille of writes that take an election timeout and more.
    pub(crate) stalls: u64,
    /// Per mille of steps at the disk that something goes wrong in.
    pub(crate) disk_faults: u64,
    /// Mean time between faults.
    pub(crate) fault_every_us: u64,
    pub(crate) clients: u32,
    /// Mean time between a client's operations.
    pub(crate) think_us: u64,
    /// Keys of each group.
    pub(crate) keys: u64,
    /// The longest value.
    pub(crate) value_bytes: u64,
    /// Mean time between what operators do; never, where nothing is to change.
    pub(crate) admin_every_us: u64,
    /// Clock rates differ by up to this per mille.
    pub(crate) skew: u64,
    /// The longest a turn waits for more inputs.
    pub(crate) turn_us: u64,
}

const NEVER_US: u64 = u64::MAX / 4;

impl Plan {
    // Without the feature, the snapshots' options have no field that is not drawn.
    #[cfg_attr(not(feature = "seeded-bugs"), allow(clippy::needless_update))]
    pub(crate) fn draw(random: &mut Random, bug: Option<Bug>) -> Self {
        let theme = match random.below(18) {
            0..6 => Theme::Any,
            6..9 => Theme::Crashes,
            9..11 => Theme::Network,
            11..13 => Theme::Groups,
            13..15 => Theme::Members,
            15 => Theme::Leases,
            _ => Theme::Losses,
        };
        let calm = random.chance(150);
        let skew = random.pick(&[0, 0, 10, 250]);
        let admin_every_us = random.pick(&[NEVER_US, 60_000, 200_000]);
        let changing = admin_every_us < NEVER_US;
        let plan = Self {
            theme,
            bug,
            raft: draw_raft(random, skew),
            limits: SnapshotLimits {
                every_entries: random.pick(&[20, 60, 200, 100_000]),
                every_bytes: random.pick(&[1_000, 20_000, 1 << 20]),
                keep_entries: random.pick(&[0, 5, 50]),
            },
            wal: wal::Options {
                segment_bytes: random.pick(&[24 << 10, 48 << 10, 256 << 10]),
                fill_ahead_bytes: random.pick(&[8 << 10, 24 << 10]),
                fill_step_bytes: 8 << 10,
                fill_in_background: false,
                spare_segments: random.below(3) as usize,
                max_in_flight: random.pick(&[1, 2, 4, 8]),
                generation_seed: 0,
                ..wal::Options::default()
            },
            snapshots: snapshot::Options {
                block_bytes: random.pick(&[64, 400]),
                sync_every_bytes: random.pick(&[100, 1_000, 1 << 20]),
                max_bytes_per_second: None,
                ..snapshot::Options::default()
            },
            chunk_bytes: random.pick(&[64, 300, 4_000]),
            nodes: 0,
            founders: random.pick(&[3, 3, 3, 3, 3, 5, 1, 2]),
            groups: random.pick(&[1, 1, 1, 2]),
            drops: if calm { 0 } else { random.pick(&[0, 5, 20, 100]) },
            duplicates: if calm { 0 } else { random.pick(&[0, 10, 100]) },
            late: if calm { 0 } else { random.pick(&[0, 5, 50]) },
            delay_us: random.pick(&[300, 1_000, 5_000]),
            in_order: random.chance(600),
            disk_us: random.pick(&[0, 500, 3_000, 10_000]),
            stalls: random.pick(&[0, 0, 2, 10]),
            disk_faults: random.pick(&[0, 0, 2, 10]),
            fault_every_us: random.pick(&[80_000, 200_000, 400_000]),
            clients: random.within(3..7) as u32,
            think_us: random.pick(&[1_000, 3_000, 6_000]),
            keys: random.within(2..7),
            value_bytes: random.pick(&[0, 0, 400, 1500]),
            admin_every_us,
            skew,
            turn_us: random.pick(&[0, 100, 2_000]),
        };
        plan.on_theme(random, changing)
    }

    /// Narrows the draw to where the theme's mistakes would show.
    fn on_theme(mut self, random: &mut Random, changing: bool) -> Self {
        let mut spare = if changing { random.below(3) } else { 0 };
        match self.theme {
            Theme::Any => {}
            Theme::Crashes => {
                self.disk_faults = random.pick(&[10, 30]);
                self.fault_every_us = random.pick(&[60_000, 120_000]);
                self.wal.segment_bytes = random.pick(&[24 << 10, 48 << 10]);
                self.limits.every_entries = random.pick(&[20, 60]);
                self.drops = random.pick(&[0, 5]);
            }
            Theme::Network => {
                self.founders = random.pick(&[3, 5, 5]);
                self.fault_every_us = random.pick(&[100_000, 200_000]);
                if random.chance(500) {
                    // A leader that is cut off leads on.
                    (self.raft.check_quorum, self.raft.lease_reads) = (false, false);
                }
            }
            Theme::Groups => {
                self.groups = 3;
                self.founders = 3;
                (self.drops, self.clients) = (self.drops.min(30), 6);
            }
            Theme::Members => {
                self.admin_every_us = random.pick(&[15_000, 40_000]);
                self.founders = random.pick(&[3, 4]);
                spare = random.within(1..3);
            }
            Theme::Leases => {
                let skew = 250;
                (self.raft.check_quorum, self.raft.failover_hint) = (true, false);
                self.raft.lease_reads = true;
                self.raft.max_clock_drift_percent = skew as u32 / 10;
                self.raft.heartbeat = Duration::from_millis(5);
                self.raft.commit_notice = Duration::ZERO;
                self.skew = skew;
                (self.delay_us, self.disk_us, self.turn_us, self.stalls) = (300, 0, 0, 0);
                (self.drops, self.late) = (random.pick(&[0, 100]), random.pick(&[0, 10]));
                (self.think_us, self.fault_every_us) = (2_000, 80_000);
                self.admin_every_us = random.pick(&[NEVER_US, 30_000]);
            }
            Theme::Losses => {
                self.founders = random.pick(&[3, 3, 5]);
                spare = random.below(2);
                self.limits.every_entries = random.pick(&[20, 60]);
            }
        }
        self.nodes = self.founders + spare;
        if self.changes_members() && !self.raft.check_quorum {
            // Removed members that do not know it depose leaders (paper, section 6), again and again
            // before a log is walked back entry by entry: without hints nothing bounds that.
            self.raft.conflict_hints = true;
        }
        self.plant();
        self
    }

    /// Whether operators change the members.
    pub(crate) fn changes_members(&self) -> bool {
        self.admin_every_us < NEVER_US && self.theme != Theme::Losses
    }

    /// A healed world is also a quick one.
    pub(crate) fn calm_down(&mut self) {
        self.delay_us = self.delay_us.min(1_000);
        self.disk_us = self.disk_us.min(500);
        self.turn_us = self.turn_us.min(100);
        self.think_us = self.think_us.min(6_000);
        self.limits.every_entries = self.limits.every_entries.max(60);
    }

    #[cfg(not(feature = "seeded-bugs"))]
    fn plant(&mut self) {}

    #[cfg(feature = "seeded-bugs")]
    fn plant(&mut self) {
        match self.bug {
            Some(Bug::Raft(bug)) => self.raft.bug = Some(bug),
            Some(Bug::Wal(bug)) => self.wal.bug = Some(bug),
            Some(Bug::Snapshot(bug)) => self.snapshots.bug = Some(bug),
            Some(Bug::Store(_) | Bug::WipedMemberVotes | Bug::LostWrite(_)) | None => {}
        }
    }

    /// Of the layer that holds the groups.
    pub(crate) fn store_options(&self) -> store::Options {
        store::Options {
            patience: Duration::from_micros(2 * CLIENT_PATIENCE_US),
            heartbeat: self.raft.heartbeat,
            snapshots: self.limits,
            #[cfg(feature = "seeded-bugs")]
            bug: match self.bug {
                Some(Bug::Store(bug)) => Some(bug),
                _ => None,
            },
        }
    }

    /// What is planted in a data directory.
    #[cfg_attr(not(feature = "seeded-bugs"), allow(unused_variables))]
    pub(crate) fn plant_in_data_dir<D: Disk>(&self, data_dir: &mut DataDir<D>) {
        #[cfg(feature = "seeded-bugs")]
        if self.bug == Some(Bug::WipedMemberVotes) {
            data_dir.admit_strangers();
        }
    }

    /// What is planted in a state machine.
    #[cfg_attr(not(feature = "seeded-bugs"), allow(unused_variables))]
    pub(crate) fn plant_in_kv(&self, kv: &mut bench_node::kv::Store) {
        #[cfg(feature = "seeded-bugs")]
        if let Some(Bug::LostWrite(one_in)) = self.bug {
            kv.lose_one_put_in(one_in);
        }
    }
}

fn draw_raft(random: &mut Random, skew: u64) -> raft::Config {
    let mut config = raft::Config::new(1, 0);
    config.election_timeout = Duration::from_micros(ELECTION_TIMEOUT_US);
    config.heartbeat = Duration::from_millis(random.pick(&[10, 20, 30]));
    config.pre_vote = random.chance(750);
    config.check_quorum = random.chance(750);
    config.conflict_hints = random.chance(750);
    config.max_append_entries = random.pick(&[1, 5, 64]);
    config.max_append_bytes = random.pick(&[100, 1 << 20]);
    config.max_inflight_appends = random.pick(&[2, 4, 16]);
    config.commit_notice = Duration::from_micros(random.pick(&[0, 1_000, 20_000]));
    match random.below(10) {
        0..3 => {
            (config.check_quorum, config.lease_reads) = (true, true);
            config.max_clock_drift_percent = (skew as u32).div_ceil(10).max(1);
        }
        3..6 => config.failover_hint = true,
        _ => {}
    }
    config.failover_step = Duration::from_micros(random.pick(&[1_000, 10_000]));
    config
}
