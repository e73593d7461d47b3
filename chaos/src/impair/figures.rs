//! What an impaired link's figures are held against.
//!
//! Round trips are medians over the connections from one host to another; a busy machine can only lengthen
//! them, so the bound below is the close one. Shares of segments are held against the binomial
//! distribution, and count only where half of what was asked for would be outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Error;
use crate::fault::Finding;
use crate::lab::Lab;
use crate::lab::ledger::{Look, Measured, Passed};
use crate::lab::links::{Conditions, Direction, Loss, Share, Spread};
use crate::scene::{total, ways};

/// A figure within so many deviations is right: one in a thousand is not.
const DEVIATIONS: f64 = 3.3;

/// What round trips may be longer by than asked: answers that wait for a busy process, or for the
/// kernel's delayed acknowledgement.
const LONGER_MS: f64 = 45.0;

/// Of so many looks at how wide jitter makes round trips their median is certain enough.
const LEAST_LOOKS: usize = 5;

/// By how much more jitter must widen round trips, in its standard deviations. Where packets keep
/// their order each waits for the slowest before it: the denser they are, the less a sender's estimate
/// of the deviation (RFC 6298) sees of jitter, and the longer the round trip is. Both together, a round
/// trip and twice its deviation, hardly depend on that: a simulation with 50 to 3,000 packets/s gives
/// 1.4 to 2.5 of them, and 0.7 to 1.1 with half of the jitter (with the tail of `pareto` more, where
/// half of it passes when packets are dense).
const LEAST_WIDER: f64 = 1.25;

/// What a segment carries beside its payload: headers of IP and TCP, and TCP's timestamps.
const HEADER_BYTES: f64 = 52.0;

/// What is asked of some links, and where they began.
pub(super) struct Figures {
    changes: BTreeMap<Direction, (Conditions, Conditions)>,
    before: Look,
    lab: Lab,
    counted_before: Counted,
    /// The last round trips that each way's senders measured, in ms: the median.
    round_trips: BTreeMap<Direction, f64>,
    /// The last of all, also where they still grow.
    waiting_ms: BTreeMap<Direction, f64>,
    /// Round trips with twice their deviation, of every look: one alone is too uncertain.
    edges_ms: BTreeMap<Direction, Vec<f64>>,
}

/// What the kernels of the receivers have counted, of all that came to them.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Segments that came before one that was sent earlier.
    out_of_order: u64,
    /// Packets whose checksum was wrong, of IP or of TCP.
    spoilt: u64,
}

/// What the senders of one way measured before the fault.
struct Before {
    way: Direction,
    round_trip_ms: f64,
    deviation_ms: f64,
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
            counted_before: Counted::default(),
            round_trips: BTreeMap::new(),
            waiting_ms: BTreeMap::new(),
            edges_ms: BTreeMap::new(),
        };
        figures.counted_before = figures.counted()?;
        Ok(figures)
    }

    /// Holds what passed between two looks, and what the later one measured, against what was
    /// asked for.
    pub(super) fn judge(&mut self, settled: &Look, now: &Look, elapsed: Duration) -> Finding {
        for way in self.pairs().iter().flat_map(ways) {
            if let Some((median_ms, deviation_ms)) = measured(now, &way) {
                let edges_ms = self.edges_ms.entry(way.clone()).or_default();
                edges_ms.push(edge_ms(median_ms, deviation_ms));
                self.round_trips.insert(way, median_ms);
            }
        }
        for (way, round_trips_us) in &now.on_the_way_us {
            let us: Vec<f64> = round_trips_us.iter().copied().map(f64::from).collect();
            if let Some(median_us) = median(&us) {
                self.waiting_ms.insert(way.clone(), median_us / 1e3);
            }
        }
        let mut figures = self.round_trips();
        figures.extend(self.arrivals(settled, now, elapsed));
        let counted = self.counted().map(|counted| counted.since(self.counted_before));
        figures.extend(self.refused(settled, now, counted.as_ref().ok()));
        figures.extend(self.order(settled, now, counted.as_ref().ok()));
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
            // What overtakes others has no delay.
            let delay_ms = |c: &Conditions| ms(c.delay) * (1.0 - c.reorder.value());
            added_ms += delay_ms(is) - delay_ms(was);
            before += deviation_ms(was).powi(2);
            under += deviation_ms(is).powi(2);
        }
        (added_ms, before.sqrt(), under.sqrt())
    }

    /// How far round trips are uncertain because some packets overtake others: those that do are
    /// measured more often (RFC 2018, SACK) than those that wait for them.
    fn overtaken_ms(&self, pair: &(String, String)) -> f64 {
        let under = ways(pair).into_iter().filter_map(|way| self.changes.get(&way));
        under.map(|(_, is)| ms(is.delay) * is.reorder.value()).sum()
    }

    /// Who measured a pair's round trips before the fault, the steadier first: the two ends measure the
    /// same way there and back, but one may have to wait for its answers (an acknowledgement rides on what
    /// the other side sends next, or is delayed), and that is no doing of the link's.
    fn witnesses(&self, pair: &(String, String)) -> Vec<Before> {
        let before = |way: Direction| {
            let (round_trip_ms, deviation_ms) = measured(&self.before, &way)?;
            Some(Before { way, round_trip_ms, deviation_ms })
        };
        let mut witnesses: Vec<_> = ways(pair).into_iter().filter_map(before).collect();
        witnesses.sort_by(|a, b| a.deviation_ms.total_cmp(&b.deviation_ms));
        witnesses
    }

    /// Of every pair that talked before the fault and has talked enough since, and whose delay or
    /// jitter it changes.
    fn round_trips(&self) -> Vec<Figure> {
        let (mut figures, mut thin) = (Vec::new(), Vec::new());
        for pair in self.pairs() {
            let (added_ms, spread_before_ms, spread_ms) = self.asked(&pair);
            let witnesses = self.witnesses(&pair);
            if witnesses.is_empty() {
                continue;
            }
            if added_ms == 0.0 && spread_ms == spread_before_ms {
                continue;
            }
            let name = format!("{}-{}", pair.0, pair.1);
            let looks = |witness: &Before| self.edges_ms.get(&witness.way).map_or(0, Vec::len);
            let most = witnesses.iter().map(looks).max().unwrap_or(0);
            // One that hardly sends any more says little.
            let witness = witnesses.iter().find(|witness| 2 * looks(witness) >= most.max(1));
            let Some(Before { way, round_trip_ms: before_ms, deviation_ms }) = witness else {
                thin.push(name);
                continue;
            };
            let now_ms = self.round_trips.get(way).copied().unwrap_or(0.0);
            if added_ms != 0.0 {
                let added_now_ms = now_ms - before_ms;
                let slack_ms = 0.25 * added_ms.abs() + spread_ms + 0.3 + self.overtaken_ms(&pair);
                let right = added_now_ms >= added_ms - slack_ms
                    && added_now_ms <= added_ms + slack_ms + before_ms + LONGER_MS;
                let reads = format!(
                    "round trip {name} {before_ms:.1} -> {now_ms:.1} ms (asked: {added_ms:+.1})"
                );
                figures.push(Figure { right, reads });
            }
            if spread_ms > spread_before_ms {
                let looks = self.edges_ms.get(way).map_or(&[][..], Vec::as_slice);
                let wider_ms =
                    median(looks).unwrap_or(0.0) - edge_ms(*before_ms, *deviation_ms) - added_ms;
                let reads = format!(
                    "{name} with twice its deviation {wider_ms:+.1} ms wider than delays make it, in {} \
                     looks (jitter asked: {spread_ms:.1} standard)",
                    looks.len()
                );
                let least_ms = LEAST_WIDER * (spread_ms - spread_before_ms);
                let right = looks.len() >= LEAST_LOOKS && wider_ms >= least_ms;
                figures.push(Figure { right, reads });
            }
        }
        if figures.is_empty() && !thin.is_empty() {
            let pairs = thin.join(", ");
            let reads = format!("{pairs}: too few segments since then to measure a round trip");
            figures.push(Figure { right: false, reads });
        }
        figures
    }

    /// Shares of segments that were lost or copied on the way. Linux counts a segment before it has
    /// looked at the checksum of a large one: so of those that are spoilt, too, any part may be
    /// missing.
    fn arrivals(&self, settled: &Look, now: &Look, elapsed: Duration) -> Option<Figure> {
        let share = |c: &Conditions| (c.loss, c.duplicate);
        let touched: Vec<_> =
            self.changes.iter().filter(|(_, (was, is))| share(was) != share(is)).collect();
        if touched.is_empty() {
            return None;
        }
        let (mut asked, mut variance, mut under_way, mut unknown) = (0.0, 0.0, 0.0, 0.0);
        for (way, (_, is)) in &touched {
            let sent = now.since(settled, way).sent as f64;
            asked += sent * arriving(is);
            variance += sent * variance_of(is);
            unknown += sent * arriving(is) * is.corrupt.value();
            under_way += sent / elapsed.as_secs_f64().max(0.1) * is.delay.as_secs_f64();
        }
        let passed = total(touched.iter().map(|(way, _)| now.since(settled, way)));
        let (sent, arrived) = (passed.sent as f64, passed.arrived as f64);
        // In the middle of what may be missing.
        asked -= 0.5 * unknown;
        let bound = DEVIATIONS * variance.sqrt() + 0.3 * under_way + 0.5 * unknown + 4.0;
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

    /// Spoilt packets, as the receivers' kernels refuse them: all but those whose link-layer header
    /// alone was spoilt.
    fn refused(&self, settled: &Look, now: &Look, counted: Option<&Counted>) -> Option<Figure> {
        let part = self.part(settled, now, |c| c.corrupt, |passed| passed.sent)?;
        let refused = counted.map_or(0, |counted| counted.spoilt) as f64;
        let reads = format!(
            "of {:.0} segments {:.1} % were refused for their checksum (asked: {:.1})",
            part.of,
            part.percent(refused),
            part.percent(part.asked)
        );
        Some(part.figure(refused, reads, "it takes more of them"))
    }

    /// Segments out of order, as the receivers' kernels count them. One that overtakes none is not.
    fn order(&self, settled: &Look, now: &Look, counted: Option<&Counted>) -> Option<Figure> {
        let part = self.part(settled, now, |c| c.reorder, |passed| passed.data_sent)?;
        let came = counted.map_or(0, |counted| counted.out_of_order) as f64;
        let reads = format!(
            "of {:.0} segments with payload {:.1} % came out of order (asked: {:.1})",
            part.of,
            part.percent(came),
            part.percent(part.asked)
        );
        Some(part.figure(came, reads, "it takes more of them on their way at once"))
    }

    /// What the fault's share comes to, of what passed where it changes it; `None` where it does not.
    fn part(
        &self,
        settled: &Look,
        now: &Look,
        share: fn(&Conditions) -> Share,
        count: fn(&Passed) -> u64,
    ) -> Option<Part> {
        let mut part = Part::default();
        let mut touched = false;
        for (way, (was, is)) in &self.changes {
            let (was, is) = (share(was).value(), share(is).value());
            if was == is {
                continue;
            }
            touched = true;
            let of = count(&now.since(settled, way)) as f64;
            part.of += of;
            part.asked += of * is;
            part.half += of * 0.5 * (was + is);
        }
        touched.then_some(part)
    }

    fn counted(&self) -> Result<Counted, Error> {
        let receivers: BTreeSet<&String> = self.changes.keys().map(|way| &way.to).collect();
        let mut sum = Counted::default();
        for name in receivers {
            let host = self.lab.host(name)?;
            let read = |file: &'static str| {
                let what = "read a host's counters";
                let text = host.within(|| std::fs::read_to_string(file))?;
                text.map_err(|problem| Error::Lab { what, problem })
            };
            let text =
                read("/proc/thread-self/net/netstat")? + &read("/proc/thread-self/net/snmp")?;
            let count = |group, name| counter(&text, group, name).unwrap_or(0);
            sum.out_of_order += count("TcpExt:", "TCPOFOQueue");
            sum.spoilt += count("Tcp:", "InCsumErrors") + count("IpExt:", "InCsumErrors");
        }
        Ok(sum)
    }

    /// Of every direction whose rate the fault changes: it must be used up, and never exceeded, and
    /// what is sent must wait for it. A load that uses just so much would not.
    fn speed(&self, settled: &Look, now: &Look, elapsed: Duration) -> Option<Figure> {
        let mut used = Vec::new();
        let mut right = true;
        for (way, (was, is)) in &self.changes {
            let Some(rate) = is.rate_bits_per_second else { continue };
            if was.rate_bits_per_second == Some(rate) {
                continue;
            }
            let passed = now.since(settled, way);
            let bytes = passed.arrived_bytes as f64 + HEADER_BYTES * passed.arrived as f64;
            let share = 8.0 * bytes / elapsed.as_secs_f64().max(0.1) / rate as f64;
            right &= share <= 1.1;
            used.push((share, way, rate));
        }
        let (share, way, rate) = used.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
        let (waits_ms, least_ms) = (self.waits_ms(way), least_wait_ms(rate));
        let reads = format!(
            "{} to {} carried {:.0} % of the {:.3} Mbit/s asked for, and waited {waits_ms:.0} ms for it",
            way.from,
            way.to,
            100.0 * share,
            rate as f64 / 1e6
        );
        let reads = match share < 0.7 || waits_ms < least_ms {
            true => format!("{reads} (of {least_ms:.0}): its load does not use it up"),
            false => reads,
        };
        // Over too short a time, what a buffer holds is much.
        let used_up = share >= 0.7 && waits_ms >= least_ms && elapsed >= Duration::from_secs(1);
        Some(Figure { right: right && used_up, reads })
    }

    /// By how much round trips of what is sent this way are longer than before the fault, beyond what is
    /// asked for; at the least, for they may still grow.
    fn waits_ms(&self, way: &Direction) -> f64 {
        let pairs = self.pairs();
        let Some(pair) = pairs.iter().find(|pair| ways(pair).contains(way)) else { return 0.0 };
        let before_ms = measured(&self.before, way).map_or(0.0, |(median_ms, _)| median_ms);
        let now_ms = self.waiting_ms.get(way).copied().unwrap_or(0.0);
        now_ms - before_ms - self.asked(pair).0
    }
}

impl Counted {
    fn since(self, before: Self) -> Self {
        Self {
            out_of_order: self.out_of_order.saturating_sub(before.out_of_order),
            spoilt: self.spoilt.saturating_sub(before.spoilt),
        }
    }
}

/// A share of what passed, of which the traffic shows most but not all.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    of: f64,
    asked: f64,
    /// What half of the fault comes to.
    half: f64,
}

impl Part {
    fn percent(&self, part: f64) -> f64 {
        100.0 * part / self.of.max(1.0)
    }

    /// Right where half of the fault could not show so many, and all of it could.
    fn figure(&self, seen: f64, reads: String, needs: &str) -> Figure {
        let bound = |mean: f64| DEVIATIONS * mean.sqrt() + 4.0;
        let least = self.half + bound(self.half);
        let reads = match seen <= least {
            true => format!("{reads}: half of it may show as many; {needs} to tell"),
            false => reads,
        };
        Figure { right: seen > least && seen <= self.asked + bound(self.asked), reads }
    }
}

/// What most round trips stay within.
fn edge_ms(median_ms: f64, deviation_ms: f64) -> f64 {
    median_ms + 2.0 * deviation_ms
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Median round trip and median deviation of what one way's senders measured, in ms.
fn measured(look: &Look, way: &Direction) -> Option<(f64, f64)> {
    let Measured { round_trips_us, deviations_us } = look.measured.get(way)?;
    let median_ms = |us: &[u32]| {
        let ms: Vec<f64> = us.iter().map(|us| f64::from(*us) / 1e3).collect();
        median(&ms)
    };
    median_ms(round_trips_us).zip(median_ms(deviations_us))
}

/// What round trips over a link wait at the least that has more to carry than it can: two large packets,
/// and more than a busy machine makes of it.
fn least_wait_ms(rate_bits_per_second: u64) -> f64 {
    (2.0 * 1500.0 * 8.0 / rate_bits_per_second as f64 * 1e3).max(20.0)
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

/// How many segments arrive for each one sent, spoilt ones too.
fn arriving(conditions: &Conditions) -> f64 {
    1.0 + conditions.duplicate.value() - conditions.loss.share()
}

/// The variance of that, for one segment; bursts make it larger by about twice their length.
fn variance_of(conditions: &Conditions) -> f64 {
    let binomial = |share: f64| share * (1.0 - share);
    let length = match conditions.loss {
        Loss::Bursts(bursts) => 2.0 / bursts.turns_good.value().max(0.01),
        _ => 1.0,
    };
    length * binomial(conditions.loss.share()) + binomial(conditions.duplicate.value())
}

/// A counter of `/proc/net/netstat` or `snmp`, by its group and its name.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(found, _)| *found == name)?.1.parse().ok()
}
