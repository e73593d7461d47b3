//! What an impaired link's figures are held against.
//!
//! Round trips are medians over the connections between two hosts; a busy machine can only lengthen
//! them, so the bound below is the close one. Shares of segments are held against the binomial
//! distribution, and count only where half of what was asked for would be outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Error;
use crate::fault::Finding;
use crate::lab::Lab;
use crate::lab::ledger::{Look, Measured};
use crate::lab::links::{Bursts, Conditions, Direction, Loss, Spread};
use crate::scene::{total, ways};

/// A figure within so many deviations is right: one in a thousand is not.
const DEVIATIONS: f64 = 3.3;

/// What round trips may be longer by than asked: answers that wait for a busy process, or for the
/// kernel's delayed acknowledgement.
const LONGER_MS: f64 = 45.0;

/// A link's headers, as a share of its payload, at the least.
const HEADERS: f64 = 1.04;

/// What is asked of some links, and where they began.
pub(super) struct Figures {
    changes: BTreeMap<Direction, (Conditions, Conditions)>,
    before: Look,
    lab: Lab,
    out_of_order_before: u64,
    /// The last round trips that were measured of each pair, in ms: median, and median deviation.
    round_trips: BTreeMap<(String, String), (f64, f64)>,
}

/// One figure: right, or not (yet), and how it reads.
struct Figure {
    right: bool,
    reads: String,
}

impl Figures {
    /// To be called once the fault is there.
    pub(super) fn begin(
        lab: &Lab,
        before: Option<&Look>,
        changes: BTreeMap<Direction, (Conditions, Conditions)>,
    ) -> Result<Self, Error> {
        let mut figures = Self {
            changes,
            before: before.cloned().unwrap_or_default(),
            lab: lab.clone(),
            out_of_order_before: 0,
            round_trips: BTreeMap::new(),
        };
        figures.out_of_order_before = figures.out_of_order()?;
        Ok(figures)
    }

    /// Holds what passed between two looks, and what the later one measured, against what was
    /// asked for.
    pub(super) fn judge(&mut self, settled: &Look, now: &Look, elapsed: Duration) -> Finding {
        for pair in self.pairs() {
            if let Some(measured) = measured(now, ways(&pair)) {
                self.round_trips.insert(pair, measured);
            }
        }
        let mut figures = self.round_trips();
        figures.extend(self.arrivals(settled, now, elapsed));
        figures.extend(self.order());
        figures.extend(self.speed(settled, now, elapsed));
        let effective = !figures.is_empty() && figures.iter().all(|figure| figure.right);
        // What is wrong comes first.
        figures.sort_by_key(|figure| figure.right);
        let reads: Vec<String> = figures.into_iter().map(|figure| figure.reads).collect();
        let seen = match reads.is_empty() {
            true => "nobody sends anything over these links".into(),
            false => reads.join("; "),
        };
        Finding { effective, seen }
    }

    fn pairs(&self) -> BTreeSet<(String, String)> {
        let pair = |way: &Direction| {
            let (one, other) = (way.from.clone(), way.to.clone());
            if one < other { (one, other) } else { (other, one) }
        };
        self.changes.keys().map(pair).collect()
    }

    /// What the fault adds to a pair's round trip, and how far jitter spreads it, before and under
    /// the fault, in ms.
    fn asked(&self, pair: &(String, String)) -> (f64, f64, f64) {
        let (mut added_ms, mut before, mut under) = (0.0, 0.0, 0.0);
        for way in ways(pair) {
            let Some((was, is)) = self.changes.get(&way) else { continue };
            added_ms += ms(is.delay) - ms(was.delay);
            before += deviation_ms(was).powi(2);
            under += deviation_ms(is).powi(2);
        }
        (added_ms, before.sqrt(), under.sqrt())
    }

    /// Of every pair that talked before the fault and has talked enough since, and whose delay or
    /// jitter it changes.
    fn round_trips(&self) -> Vec<Figure> {
        let (mut figures, mut thin) = (Vec::new(), Vec::new());
        for pair in self.pairs() {
            let (added_ms, spread_before_ms, spread_ms) = self.asked(&pair);
            let before = measured(&self.before, ways(&pair));
            let Some((before_ms, deviation_before_ms)) = before else { continue };
            if added_ms == 0.0 && spread_ms == spread_before_ms {
                continue;
            }
            let name = format!("{}-{}", pair.0, pair.1);
            let Some((now_ms, deviation_now_ms)) = self.round_trips.get(&pair) else {
                thin.push(name);
                continue;
            };
            if added_ms != 0.0 {
                let added_now_ms = now_ms - before_ms;
                let slack_ms = 0.25 * added_ms.abs() + spread_ms + 0.3;
                let right = added_now_ms >= added_ms - slack_ms
                    && added_now_ms <= added_ms + slack_ms + before_ms + LONGER_MS;
                let reads = format!(
                    "round trip {name} {before_ms:.1} -> {now_ms:.1} ms (asked: {added_ms:+.1})"
                );
                figures.push(Figure { right, reads });
            }
            if spread_ms > spread_before_ms {
                // A mean deviation is about 0.8 of a standard one, and what keeps packets in order
                // takes some of it.
                let least_ms = 0.5 * (spread_ms - spread_before_ms);
                let reads = format!(
                    "its deviation {name} {deviation_before_ms:.1} -> {deviation_now_ms:.1} ms \
                     (asked: {spread_ms:.1} standard)"
                );
                figures.push(Figure { right: *deviation_now_ms >= least_ms, reads });
            }
        }
        if figures.is_empty() && !thin.is_empty() {
            let pairs = thin.join(", ");
            let reads = format!("{pairs}: too few segments since then to measure a round trip");
            figures.push(Figure { right: false, reads });
        }
        figures
    }

    /// Shares of segments that were lost, copied or spoilt on the way.
    fn arrivals(&self, settled: &Look, now: &Look, elapsed: Duration) -> Option<Figure> {
        let share = |c: &Conditions| (arriving(c), c.loss, c.duplicate, c.corrupt);
        let touched: Vec<_> =
            self.changes.iter().filter(|(_, (was, is))| share(was) != share(is)).collect();
        if touched.is_empty() {
            return None;
        }
        let (mut asked, mut variance, mut under_way) = (0.0, 0.0, 0.0);
        for (way, (_, is)) in &touched {
            let sent = now.since(settled, way).sent as f64;
            asked += sent * arriving(is);
            variance += sent * variance_of(is);
            under_way += sent / elapsed.as_secs_f64().max(0.1) * is.delay.as_secs_f64();
        }
        let passed = total(touched.iter().map(|(way, _)| now.since(settled, way)));
        let (sent, arrived) = (passed.sent as f64, passed.arrived as f64);
        let bound = DEVIATIONS * variance.sqrt() + 0.3 * under_way + 4.0;
        let effect = (sent - asked).abs();
        let percent = |part: f64| 100.0 * part / sent.max(1.0);
        let reads = format!(
            "of {sent:.0} segments {:.1} % did not arrive (asked: {:.1} +- {:.1}), {} sent again",
            percent(sent - arrived),
            percent(sent - asked),
            percent(bound),
            passed.again
        );
        if 0.5 * effect <= bound {
            let needed = match effect > 0.0 {
                // The bound grows with the root of the traffic, the effect with the traffic.
                true => format!("{:.0}", sent * (bound / (0.5 * effect)).powi(2)),
                false => "many".into(),
            };
            let reads = format!("{reads}: too few to tell from half of it, which takes {needed}");
            return Some(Figure { right: false, reads });
        }
        let loses = touched.iter().any(|(_, (_, is))| is.loss != Loss::None);
        let right = (arrived - asked).abs() <= bound && (!loses || passed.again > 0);
        Some(Figure { right, reads })
    }

    /// Segments out of order, as the receivers' kernels count them.
    fn order(&self) -> Option<Figure> {
        const ENOUGH: u64 = 5;
        let any = self.changes.values().any(|(was, is)| is.reorder > was.reorder);
        let came = || Some(self.out_of_order().ok()?.saturating_sub(self.out_of_order_before));
        any.then(|| {
            let came = came().unwrap_or(0);
            let reads = format!("{came} segments came out of order");
            Figure { right: came >= ENOUGH, reads }
        })
    }

    fn out_of_order(&self) -> Result<u64, Error> {
        let receivers: BTreeSet<&String> = self.changes.keys().map(|way| &way.to).collect();
        let mut sum = 0;
        for name in receivers {
            let host = self.lab.host(name)?;
            let read = host.within(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))?;
            let what = "read a host's counters";
            let text = read.map_err(|problem| Error::Lab { what, problem })?;
            sum += counter(&text, "TcpExt:", "TCPOFOQueue").unwrap_or(0);
        }
        Ok(sum)
    }

    /// Of every direction whose rate the fault lowers: it must be used up, and never exceeded.
    fn speed(&self, settled: &Look, now: &Look, elapsed: Duration) -> Option<Figure> {
        let mut used = Vec::new();
        let mut right = true;
        for (way, (was, is)) in &self.changes {
            let Some(rate) = is.rate_bits_per_second else { continue };
            if was.rate_bits_per_second == Some(rate) {
                continue;
            }
            let bytes = now.since(settled, way).arrived_bytes as f64;
            let share = bytes * 8.0 * HEADERS / elapsed.as_secs_f64().max(0.1) / rate as f64;
            right &= share <= 1.1;
            used.push((share, way, rate));
        }
        let (share, way, rate) = used.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
        let reads = format!(
            "{} to {} carried {:.0} % of the {:.3} Mbit/s asked for",
            way.from,
            way.to,
            100.0 * share,
            rate as f64 / 1e6
        );
        let reads = match share < 0.7 {
            true => format!("{reads}, which its load does not use up"),
            false => reads,
        };
        // Over too short a time, what a buffer holds is much.
        let right = right && share >= 0.7 && elapsed >= Duration::from_secs(1);
        Some(Figure { right, reads })
    }
}

/// Median round trip and median deviation of what a pair's two ends measured, in ms.
fn measured(look: &Look, ways: [Direction; 2]) -> Option<(f64, f64)> {
    let of_pair: Vec<&Measured> = ways.iter().filter_map(|way| look.measured.get(way)).collect();
    let median_ms = |of: fn(&Measured) -> &Vec<u32>| {
        let mut all: Vec<u32> = of_pair.iter().flat_map(|measured| of(measured).clone()).collect();
        all.sort_unstable();
        (!all.is_empty()).then(|| f64::from(all[all.len() / 2]) / 1e3)
    };
    median_ms(|m| &m.round_trips_us).zip(median_ms(|m| &m.deviations_us))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The standard deviation that jitter gives.
fn deviation_ms(conditions: &Conditions) -> f64 {
    ms(conditions.jitter)
        * match conditions.spread {
            Spread::Uniform => 1.0 / 3f64.sqrt(),
            Spread::Normal => 1.0,
            Spread::Pareto => 1.15,
        }
}

/// The share of lost packets over a long time.
fn lost(loss: Loss) -> f64 {
    match loss {
        Loss::None => 0.0,
        Loss::Independent(share) => share.value(),
        Loss::Bursts(bursts) => {
            let bad = share_bad(&bursts);
            bad * bursts.loss_while_bad.value() + (1.0 - bad) * bursts.loss_while_good.value()
        }
    }
}

fn share_bad(bursts: &Bursts) -> f64 {
    let (to_bad, to_good) = (bursts.turns_bad.value(), bursts.turns_good.value());
    if to_bad + to_good > 0.0 { to_bad / (to_bad + to_good) } else { 0.0 }
}

/// How many segments a receiver's TCP gets for each one sent.
fn arriving(conditions: &Conditions) -> f64 {
    (1.0 + conditions.duplicate.value() - lost(conditions.loss))
        * (1.0 - conditions.corrupt.value())
}

/// The variance of that, for one segment; bursts make it larger by about twice their length.
fn variance_of(conditions: &Conditions) -> f64 {
    let binomial = |share: f64| share * (1.0 - share);
    let length = match conditions.loss {
        Loss::Bursts(bursts) => 2.0 / bursts.turns_good.value().max(0.01),
        _ => 1.0,
    };
    length * binomial(lost(conditions.loss))
        + binomial(conditions.duplicate.value())
        + binomial(conditions.corrupt.value())
}

/// A counter of `/proc/net/netstat`, by its group and its name.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(found, _)| *found == name)?.1.parse().ok()
}
