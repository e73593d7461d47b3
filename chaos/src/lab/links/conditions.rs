//! What a direction does to packets. Each word means what `tc netem` means by it, so that both
//! implementations can do the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The conditions of one direction. The default is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// How long a packet is under way.
    pub delay: Duration,
    /// How far single packets' delays lie from `delay`, as `spread` has it. Packets stay in order:
    /// one that would overtake another waits for it.
    pub jitter: Duration,
    /// How the jitter is distributed.
    pub spread: Spread,
    /// What share of packets is lost, and in which pattern.
    pub loss: Loss,
    /// Share of packets that arrive twice.
    pub duplicate: Share,
    /// Share of packets that are not delayed, and so overtake those before them.
    pub reorder: Share,
    /// Share of packets in which one bit is flipped.
    pub corrupt: Share,
    /// The link's speed; `None`: it is not limited.
    pub rate_bits_per_second: Option<u64>,
}

/// How jitter is distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Anywhere within `jitter` on both sides.
    Uniform,
    /// Normal; `jitter` is the standard deviation.
    #[default]
    Normal,
    /// Pareto, with a long tail of late packets, as netem's table has it: shape 3, and a standard
    /// deviation of 1.15 times `jitter`, without what lies beyond four times `jitter`.
    Pareto,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// This share, each by itself.
    Independent(Share),
    /// In bursts.
    Bursts(Bursts),
}

/// The model of Gilbert and Elliott: a link that goes from good to bad and back, from packet to
/// packet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bursts {
    /// Chance at each packet that a good link turns bad.
    pub turns_bad: Share,
    /// Chance at each packet that a bad link turns good: a bad time lasts for 1 / this packets.
    pub turns_good: Share,
    /// Loss while bad.
    pub loss_while_bad: Share,
    /// Loss while good.
    pub loss_while_good: Share,
}

impl Loss {
    /// The share of lost packets over a long time, from 0 to 1.
    pub fn share(self) -> f64 {
        match self {
            Loss::None => 0.0,
            Loss::Independent(share) => share.value(),
            Loss::Bursts(bursts) => {
                let (to_bad, to_good) = (bursts.turns_bad.value(), bursts.turns_good.value());
                let bad = if to_bad + to_good > 0.0 { to_bad / (to_bad + to_good) } else { 0.0 };
                bad * bursts.loss_while_bad.value() + (1.0 - bad) * bursts.loss_while_good.value()
            }
        }
    }
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

impl Share {
    /// All.
    pub const ALL: Share = Share(1.0);

    /// From 0 to 100 percent; `what` is what errors call it.
    pub fn percent(what: &'static str, percent: f64) -> Result<Self, Error> {
        match (0.0..=100.0).contains(&percent) {
            true => Ok(Self(percent / 100.0)),
            false => Err(Error::Condition {
                what,
                value: format!("{percent} %"),
                wanted: "from 0 to 100 %",
            }),
        }
    }

    /// From 0 to 1.
    pub fn value(self) -> f64 {
        self.0
    }

    /// From 0 to 100.
    pub fn as_percent(self) -> f64 {
        self.0 * 100.0
    }
}

impl TryFrom<f64> for Share {
    type Error = Error;

    fn try_from(value: f64) -> Result<Self, Error> {
        Self::percent("a share", value * 100.0)
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0
    }
}

/// Longer than any link on earth, and short enough for the arithmetic.
const MAX_MILLIS: f64 = 60_000.0;

/// A time in milliseconds, up to a minute; `what` is what errors call it.
pub fn millis(what: &'static str, millis: f64) -> Result<Duration, Error> {
    match (0.0..=MAX_MILLIS).contains(&millis) {
        true => Ok(Duration::from_secs_f64(millis / 1000.0)),
        false => Err(Error::Condition {
            what,
            value: format!("{millis} ms"),
            wanted: "from 0 to 60000 ms",
        }),
    }
}

/// Below it one packet takes seconds.
const MIN_RATE: u64 = 8_000;

/// The fastest packets that a queue without a rate is made for, per second.
const PACKETS_PER_SECOND: f64 = 250_000.0;

/// How long a packet may wait for its turn on a link with a rate: a router's usual buffer.
const BUFFER: Duration = Duration::from_millis(100);

/// The largest packet, in bits.
const PACKET_BITS: f64 = 1500.0 * 8.0;

impl Conditions {
    /// Refuses what has no meaning together.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what, value: String, wanted| Err(Error::Condition { what, value, wanted });
        let most = Duration::from_secs_f64(MAX_MILLIS / 1000.0);
        if self.delay > most || self.jitter > most {
            let value = format!("{:?}, jitter {:?}", self.delay, self.jitter);
            return refuse("delay", value, "60 s at most");
        }
        if self.reorder > Share(0.0) && self.delay.is_zero() {
            let value = format!("{} % with no delay", self.reorder.as_percent());
            return refuse("reordering", value, "with a delay, which the overtaking packets skip");
        }
        match self.rate_bits_per_second {
            Some(rate) if rate < MIN_RATE => {
                refuse("rate", format!("{rate} bit/s"), "8 kbit/s at least, or absent")
            }
            _ => Ok(()),
        }
    }

    /// How many packets may be under way or wait, so that the queue is not what limits the link.
    pub(super) fn queue_packets(&self) -> u32 {
        let under_way = (self.delay + 4 * self.jitter).as_secs_f64();
        let packets = match self.rate_bits_per_second {
            None => under_way * PACKETS_PER_SECOND,
            Some(rate) => {
                let per_second = (rate as f64 / PACKET_BITS).min(PACKETS_PER_SECOND);
                (under_way + BUFFER.as_secs_f64()) * per_second
            }
        };
        // Small packets fill a queue that is counted in large ones: never less than netem's own.
        1000 + packets.ceil() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_link_can_have_is_refused() {
        for refused in [
            Share::percent("loss", 101.0).map(drop),
            Share::percent("loss", -0.1).map(drop),
            Share::percent("loss", f64::NAN).map(drop),
            millis("delay", -1.0).map(drop),
            millis("delay", 60_001.0).map(drop),
            Conditions { reorder: Share::ALL, ..Default::default() }.check(),
            Conditions { rate_bits_per_second: Some(0), ..Default::default() }.check(),
        ] {
            assert!(matches!(refused, Err(Error::Condition { .. })), "{refused:?}");
        }
        let error = millis("delay", -5.0).expect_err("negative").to_string();
        assert_eq!(error, "delay is -5 ms; it must be from 0 to 60000 ms");
    }

    #[test]
    fn a_queue_has_room_for_all_that_is_under_way() {
        let delay = Duration::from_millis(100);
        let fast = Conditions { delay, ..Default::default() };
        assert!(fast.queue_packets() >= 25_000);
        let rated = Conditions { rate_bits_per_second: Some(1_200_000_000), ..fast };
        assert_eq!(rated.queue_packets(), 1000 + 20_000);
    }
}
