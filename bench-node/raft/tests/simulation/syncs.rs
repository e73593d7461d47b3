//! When a disk gets to a write: one sync at a time, and the next one takes all writes that wait.

#[derive(Default)]
pub(crate) struct Syncs {
    /// When the sync under way ends, and when the last one that is due does.
    under_way_us: u64,
    next_us: u64,
    /// The disk does nothing before this.
    pub(crate) stalled_until_us: u64,
}

impl Syncs {
    /// When a write that is handed in now is durable.
    pub(crate) fn submit(&mut self, now_us: u64, latency_us: u64) -> u64 {
        if now_us < self.under_way_us && self.under_way_us < self.next_us {
            return self.next_us;
        }
        let begins_us = now_us.max(self.next_us);
        self.next_us = begins_us.max(self.stalled_until_us) + latency_us;
        self.under_way_us = if begins_us > now_us { begins_us } else { self.next_us };
        self.next_us
    }
}
