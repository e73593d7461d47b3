//! What takes the power of several disks at the same moment.
//!
//! Invariant: all of its disks lose their power or none does, and from then on nothing that they had
//! not yet synced becomes durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::Disk;

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// At once.
    Now,
    /// When the next sync that has bytes to make durable, on any of the disks, has gone on for this
    /// share of its time.
    InSync {
        /// 0 to 1.
        share: f64,
    },
}

/// Goes off once.
pub(super) struct Breaker {
    /// Each with its life: one that has lost its power since is spared.
    disks: Vec<(Weak<Disk>, u64)>,
    share: f64,
    /// A sync has begun that it goes off in.
    chosen: AtomicBool,
}

impl Breaker {
    /// Takes the power of `disks`, now or in one of their syncs.
    pub(super) fn set(disks: &[Arc<Disk>], moment: Moment) {
        let share = match moment {
            Moment::Now => return disks.iter().for_each(|disk| disk.power_off(disk.life())),
            Moment::InSync { share } => share,
        };
        let lives = disks.iter().map(|disk| (Arc::downgrade(disk), disk.life())).collect();
        let breaker = Arc::new(Self { disks: lives, share, chosen: AtomicBool::new(false) });
        disks.iter().for_each(|disk| disk.arm(breaker.clone()));
    }

    /// A sync of one of the disks takes `time`; how far into it this is to go off, if this is the one.
    pub(super) fn choose(&self, time: Duration) -> Option<Duration> {
        let first = !self.chosen.swap(true, Ordering::Relaxed);
        first.then(|| time.mul_f64(self.share))
    }

    pub(super) fn go_off(&self) {
        for (disk, life) in &self.disks {
            if let Some(disk) = disk.upgrade() {
                disk.power_off(*life);
            }
        }
    }
}
