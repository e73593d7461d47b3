//! When a disk gets to a write: one sync at a time, and the next one takes all writes that wait.

#[derive(Default)]
pub(crate) struct Syncs {
    /// When the sync under way ends, and the one that writes join from then on.
    under_way_us: u64,
    next_us: u64,
    /// The disk does nothing before this.
    pub(crate) stalled_until_us: u64,
}

impl Syncs {
    /// When a write that is handed in now is durable.
    pub(crate) fn submit(&mut self, now_us: u64, latency_us: u64) -> u64 {
        let begins_us = if self.next_us <= now_us {
            self.under_way_us = now_us;
            now_us
        } else if self.under_way_us <= now_us {
            // What waited is under way now.
            self.under_way_us = self.next_us;
            self.next_us
        } else if self.next_us > self.under_way_us {
            return self.next_us;
        } else {
            self.under_way_us
        };
        self.next_us = begins_us.max(self.stalled_until_us) + latency_us;
        if begins_us == now_us {
            self.under_way_us = self.next_us;
        }
        self.next_us
    }
}
