//! How far the agent's clock is from ours, as NTP measures it (RFC 5905, section 8).
//!
//! Of several exchanges the one with the shortest round trip counts: the offset is off by half of it
//! at most, whatever the two ways have in common.

use std::time::{Duration, Instant};

/// The distance between two clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offset {
    /// What the agent's clock shows more than ours, in nanoseconds.
    pub offset_ns: i64,
    /// It lies so near the truth.
    pub uncertainty: Duration,
}

/// One exchange: when it was sent and received, here by our clock and there by the agent's, in
/// nanoseconds since 1970. How long it took is measured by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) sent_ns: u64,
    pub(super) received_there_ns: u64,
    pub(super) answered_there_ns: u64,
    pub(super) took: Duration,
}

impl Exchange {
    /// Of an exchange that began at `began`, when our clock showed `sent_ns`.
    pub(super) fn of(began: Instant, sent_ns: u64, there_ns: (u64, u64)) -> Self {
        let (received_there_ns, answered_there_ns) = there_ns;
        Self { sent_ns, received_there_ns, answered_there_ns, took: began.elapsed() }
    }

    fn offset(&self) -> Offset {
        let received_ns = self.sent_ns as i128 + self.took.as_nanos() as i128;
        let out = self.received_there_ns as i128 - self.sent_ns as i128;
        let back = self.answered_there_ns as i128 - received_ns;
        let there = self.answered_there_ns.saturating_sub(self.received_there_ns);
        let round_trip = self.took.saturating_sub(Duration::from_nanos(there));
        Offset { offset_ns: ((out + back) / 2) as i64, uncertainty: round_trip / 2 }
    }
}

/// The best of them.
pub(super) fn best(exchanges: &[Exchange]) -> Option<Offset> {
    exchanges.iter().map(Exchange::offset).min_by_key(|offset| offset.uncertainty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_wins_and_the_truth_lies_within_its_uncertainty() {
        // The agent is 5 s ahead; ways of (out, back) in ms, asymmetric but for the second.
        let exchange = |out_ms: u64, back_ms: u64| {
            let there_ns = 1_000_000_000 + 5_000_000_000 + out_ms * 1_000_000;
            Exchange {
                sent_ns: 1_000_000_000,
                received_there_ns: there_ns,
                answered_there_ns: there_ns + 2_000_000,
                took: Duration::from_millis(out_ms + 2 + back_ms),
            }
        };
        let off_by_ns = |offset: Offset| (offset.offset_ns - 5_000_000_000).unsigned_abs();
        let best = best(&[exchange(40, 2), exchange(3, 3), exchange(1, 90)]).expect("some");
        assert_eq!((off_by_ns(best), best.uncertainty), (0, Duration::from_millis(3)));
        for skewed in [exchange(40, 0), exchange(0, 40)].map(|exchange| exchange.offset()) {
            assert!(off_by_ns(skewed) <= skewed.uncertainty.as_nanos() as u64, "{skewed:?}");
        }
        assert_eq!(super::best(&[]), None);
    }
}
