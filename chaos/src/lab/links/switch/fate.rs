//! What becomes of each packet in one direction. The same seed and the same packets give the same
//! fates.
//!
//! Invariant: pure; and in the order of netem's own decisions, so that both mean the same: copies
//! first, then loss, then corruption, then delay.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

use super::super::{Bursts, Conditions, Loss, Share, Spread, State};
use super::planted::Planted;

/// The dice and the memory of one direction.
pub(super) struct Fate {
    random: StdRng,
    /// Of Gilbert and Elliott's link.
    is_bad: bool,
    /// When a link with a rate has sent all that it was given.
    free_at_ns: u64,
    /// The latest arrival that was given to a packet in order.
    last_due_ns: u64,
    planted: Planted,
}

/// A packet's arrival, or that of its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When.
    pub(super) due_ns: u64,
    /// With this bit flipped, counted over the whole packet.
    pub(super) flipped_bit: Option<usize>,
}

impl Fate {
    /// Of direction number `number` in a switch with `seed`.
    pub(super) fn new(seed: u64, number: u64, planted: Planted) -> Self {
        let random = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { random, is_bad: false, free_at_ns: 0, last_due_ns: 0, planted }
    }

    /// The arrivals of a packet of `bytes` that came at `now_ns`: none, one, or two.
    pub(super) fn decide(
        &mut self,
        state: &State,
        now_ns: u64,
        bytes: usize,
    ) -> [Option<Arrival>; 2] {
        let State::Open(conditions) = state else { return [None; 2] };
        let copies = 1 + usize::from(self.happens(conditions.duplicate));
        let copies = copies - usize::from(self.is_lost(&conditions.loss));
        let mut arrivals = [None; 2];
        for arrival in arrivals.iter_mut().take(copies) {
            *arrival = Some(self.arrival(conditions, now_ns, bytes));
        }
        arrivals
    }

    fn arrival(&mut self, conditions: &Conditions, now_ns: u64, bytes: usize) -> Arrival {
        let flipped_bit =
            self.happens(conditions.corrupt).then(|| self.random.random_range(0..8 * bytes.max(1)));
        if self.happens(conditions.reorder) {
            return Arrival { due_ns: now_ns, flipped_bit };
        }
        let mut due_ns = now_ns;
        if let Some(rate) = conditions.rate_bits_per_second {
            let sending_ns = 8 * bytes as u64 * 1_000_000_000 / rate;
            self.free_at_ns = self.free_at_ns.max(now_ns) + sending_ns;
            due_ns = self.free_at_ns;
        }
        due_ns = due_ns.saturating_add_signed(self.delay_ns(conditions)).max(now_ns);
        if self.planted.reorders {
            return Arrival { due_ns, flipped_bit };
        }
        self.last_due_ns = self.last_due_ns.max(due_ns);
        Arrival { due_ns: self.last_due_ns, flipped_bit }
    }

    fn delay_ns(&mut self, conditions: &Conditions) -> i64 {
        if self.planted.ignores_delay {
            return 0;
        }
        let delay_ns = conditions.delay.as_nanos() as i64;
        if conditions.jitter.is_zero() {
            return delay_ns;
        }
        let deviations: f64 = match conditions.spread {
            Spread::Uniform => self.random.random_range(-1.0..=1.0),
            Spread::Normal => self.random.sample(StandardNormal),
            Spread::Pareto => {
                let uniform: f64 = self.random.random_range(f64::MIN_POSITIVE..1.0);
                (uniform.powf(-1.0 / 3.0) - 1.5) * (4.0 / 3.0)
            }
        };
        // netem's tables end there.
        delay_ns + (deviations.clamp(-4.0, 4.0) * conditions.jitter.as_nanos() as f64) as i64
    }

    fn is_lost(&mut self, loss: &Loss) -> bool {
        if self.planted.ignores_loss {
            return false;
        }
        match *loss {
            Loss::None => false,
            Loss::Independent(share) => self.happens(share),
            Loss::Bursts(Bursts { turns_bad, turns_good, loss_while_bad, loss_while_good }) => {
                let (turns, loss) = match self.is_bad {
                    true => (turns_good, loss_while_bad),
                    false => (turns_bad, loss_while_good),
                };
                self.is_bad ^= self.happens(turns);
                self.happens(loss)
            }
        }
    }

    fn happens(&mut self, share: Share) -> bool {
        // Most shares are none, and dice cost time.
        share > Share::default() && self.random.random_bool(share.value())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: u64 = 1_000_000;

    fn percent(percent: f64) -> Share {
        Share::percent("share", percent).expect("a share")
    }

    fn delayed(delay_ms: u64) -> Conditions {
        Conditions { delay: Duration::from_millis(delay_ms), ..Default::default() }
    }

    /// The arrivals of `packets`, one each millisecond.
    fn arrivals(conditions: Conditions, packets: u64) -> Vec<[Option<Arrival>; 2]> {
        let mut fate = Fate::new(7, 1, Planted::default());
        let state = State::Open(conditions);
        (0..packets).map(|number| fate.decide(&state, number * MS, 1000)).collect()
    }

    fn lost(conditions: Conditions, packets: u64) -> Vec<bool> {
        arrivals(conditions, packets).iter().map(|arrival| arrival[0].is_none()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_fates_and_another_direction_others() {
        let conditions = Conditions { loss: Loss::Independent(percent(50.0)), ..delayed(1) };
        assert_eq!(lost(conditions, 100), lost(conditions, 100));
        let mut other = Fate::new(7, 2, Planted::default());
        let state = State::Open(conditions);
        let others: Vec<_> =
            (0..100).map(|n| other.decide(&state, n * MS, 1000)[0].is_none()).collect();
        assert_ne!(lost(conditions, 100), others);
    }

    #[test]
    fn jitter_keeps_packets_in_order() {
        for spread in [Spread::Uniform, Spread::Normal, Spread::Pareto] {
            let jitter = Duration::from_millis(3);
            let all = arrivals(Conditions { jitter, spread, ..delayed(10) }, 10_000);
            let due: Vec<_> =
                all.iter().map(|arrival| arrival[0].expect("arrives").due_ns).collect();
            assert!(due.is_sorted(), "{spread:?}");
            assert!(due.iter().enumerate().all(|(n, due)| *due >= n as u64 * MS), "{spread:?}");
        }
    }

    #[test]
    fn reordered_packets_overtake_those_that_wait() {
        let all = arrivals(Conditions { reorder: percent(25.0), ..delayed(10) }, 10_000);
        let at_once =
            all.iter().enumerate().filter(|(n, a)| a[0].expect("arrives").due_ns == *n as u64 * MS);
        let share = at_once.count() as f64 / 10_000.0;
        assert!((0.23..0.27).contains(&share), "{share}");
    }

    #[test]
    fn bursts_are_as_long_and_as_frequent_as_asked() {
        let bursts = Bursts {
            turns_bad: percent(1.0),
            turns_good: percent(25.0),
            loss_while_bad: Share::ALL,
            loss_while_good: Share::default(),
        };
        let lost = lost(Conditions { loss: Loss::Bursts(bursts), ..delayed(1) }, 200_000);
        let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
        // 1 / (1 + 25) of the time is bad.
        assert!((0.033..0.044).contains(&share), "{share}");
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        let mean = share * lost.len() as f64 / bursts;
        assert!((3.5..4.5).contains(&mean), "a burst has {mean} packets");
    }

    #[test]
    fn a_rate_spaces_packets_and_a_copy_takes_its_time_too() {
        // 1000 bytes each millisecond, over a link that takes 2 ms for each.
        let rate_bits_per_second = Some(4_000_000);
        let all = arrivals(Conditions { rate_bits_per_second, ..Default::default() }, 100);
        for (number, arrival) in all.iter().enumerate() {
            assert_eq!(arrival[0].expect("arrives").due_ns, 2 * (number as u64 + 1) * MS);
        }
        let twice = Conditions { duplicate: Share::ALL, rate_bits_per_second, ..delayed(0) };
        let first = arrivals(twice, 1)[0].map(|arrival| arrival.expect("arrives").due_ns);
        assert_eq!(first, [2 * MS, 4 * MS]);
    }

    #[test]
    fn a_cut_lets_nothing_through() {
        assert_eq!(Fate::new(1, 1, Planted::default()).decide(&State::Cut, 0, 100), [None; 2]);
    }
}
