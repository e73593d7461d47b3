//! `[random]`: faults that are drawn from the run's seed, and then are on the timeline like any
//! others: `raftbench plan` shows them, and a manifest has them spelt out.
//!
//! ```toml
//! [random]
//! mean_gap_s = 5          # from the end of one to the beginning of the next, exponential
//! first_s = 3             # no fault before
//! until_s = 40            # none is left after; default: the end of the measured phase
//! overlap = false         # true: the gap is from beginning to beginning
//! [[random.faults]]
//! weight = 3              # how often it is drawn, beside the others
//! kind = "kill"           # and its keys, without at_s; times may be ranges, as in [1, 4]
//! target = "one"
//! restart_after_s = [1, 4]
//! ```
//!
//! Invariant: the same seed and the same text give the same faults, and each is as sound as one
//! that was written down: what cannot be at its time is not drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ProfileError;
use super::document::{Kind, Value};
use super::faults::{check_victims, fault, fault_section};
use super::section::{Numbers, Section};
use crate::plan::{ClusterPlan, FaultPlan};

const RANDOM: &[&str] = &["mean_gap_s", "first_s", "until_s", "overlap", "faults"];

/// The keys whose numbers may be drawn from a range.
const RANGES: &[&str] = &[
    "restart_after_s",
    "resume_after_s",
    "rejoin_after_s",
    "heal_after_s",
    "flap_down_s",
    "flap_up_s",
    "round_trip_ms",
    "delay_ms",
    "jitter_ms",
    "loss_percent",
    "duplicate_percent",
    "reorder_percent",
    "corrupt_percent",
    "rate_mbit_per_second",
    "factor",
    "added_ms",
];

/// More than this in one run is a mistake.
const MOST: usize = 10_000;

/// Apart from what else the seed decides.
const STREAM: u64 = 0x7261_6e64_6f6d;

/// One of `[[random.faults]]`.
struct Entry<'a> {
    path: String,
    table: &'a BTreeMap<String, Value>,
    origin: &'a Value,
    /// For errors.
    section: Section<'a>,
    weight: f64,
}

/// Adds what is drawn to `timeline`, which is in order of time.
pub(super) fn draw<'a>(
    root: &Section<'a>,
    cluster: &ClusterPlan,
    measure: Duration,
    seed: u64,
    timeline: &mut Vec<(FaultPlan, Section<'a>)>,
) -> Result<(), ProfileError> {
    if root.value("random").is_none() {
        return Ok(());
    }
    let section = root.section("random", RANDOM)?;
    let mean_gap = section.seconds("mean_gap_s", false)?;
    let mean_gap = mean_gap.ok_or_else(|| {
        section.missing("mean_gap_s", "the mean time between two faults, in seconds")
    })?;
    let first = section.seconds("first_s", true)?.unwrap_or_default();
    let until = section.seconds("until_s", true)?.unwrap_or(measure);
    if until > measure || first >= until {
        let message = format!(
            "is {} s; it must be after first_s ({} s), and not after phases.measure_s ({} s)",
            until.as_secs_f64(),
            first.as_secs_f64(),
            measure.as_secs_f64()
        );
        return Err(section.error_at("until_s", message));
    }
    let overlap = section.boolean("overlap")?.unwrap_or(false);
    let entries = entries(&section, cluster, first, measure)?;
    let mut random = StdRng::seed_from_u64(seed ^ STREAM);
    let (mut at, mut drawn) = (first, 0);
    loop {
        at += mean_gap.mul_f64(-random.random_range(f64::MIN_POSITIVE..1.0f64).ln());
        if at >= until {
            return Ok(());
        }
        let entry = pick(&entries, &mut random);
        let value = entry.at(at, &mut random);
        let fault = read(&section, entry, &value, &format!("r{}", drawn + 1), cluster, measure);
        // One that would outlast the phase is none; what else can be wrong was found above.
        let Ok(Some(fault)) = fault else { continue };
        let end = at + fault.kind.holds().unwrap_or_default();
        if end > until {
            continue;
        }
        let place = timeline.partition_point(|(other, _)| other.at <= fault.at);
        timeline.insert(place, (fault, entry.section.clone()));
        if check_victims(timeline, cluster.nodes).is_err() {
            timeline.remove(place);
            continue;
        }
        drawn += 1;
        if drawn > MOST {
            let message = format!("makes more than {MOST} faults; lengthen it");
            return Err(section.error_at("mean_gap_s", message));
        }
        if !overlap {
            at = end;
        }
    }
}

/// All of them, each found sound at `first`.
fn entries<'a>(
    section: &Section<'a>,
    cluster: &ClusterPlan,
    first: Duration,
    measure: Duration,
) -> Result<Vec<Entry<'a>>, ProfileError> {
    let mut entries = Vec::new();
    for (index, value) in section.array("faults")?.iter().enumerate() {
        let path = section.path_of(&format!("faults.{}", index + 1));
        let Kind::Table(table) = &value.kind else {
            let message = format!("has {} in it; it must have tables", value.kind.name());
            return Err(section.error_at("faults", message));
        };
        let keys: Vec<&str> = table.keys().map(String::as_str).collect();
        let own = Section::of(section.file(), path.clone(), value, &keys)?;
        if let Some(key) = ["at_s", "every_s", "times"].iter().find(|key| table.contains_key(**key))
        {
            let message = "is not for a fault that is drawn; [random] says how often and when";
            return Err(own.error_at(key, message.into()));
        }
        let weight = own.number("weight", Numbers::Above(0.0))?.unwrap_or(1.0);
        for (key, value) in table {
            if let Kind::Array(range) = &value.kind
                && RANGES.contains(&key.as_str())
                && ends(range).is_none()
            {
                let message = "must be a number, or a range of two, as in [1, 4]";
                return Err(own.error_at(key, message.into()));
            }
        }
        let entry = Entry { path, table, origin: value, section: own, weight };
        for end in [0.0, 1.0] {
            let value = entry.with(first, &mut |(from, to)| from + end * (to - from));
            if read(section, &entry, &value, "r1", cluster, measure)?.is_none() {
                return Err(entry.section.error("makes no fault".into()));
            }
        }
        entries.push(entry);
    }
    match entries.is_empty() {
        false => Ok(entries),
        true => Err(section.missing("faults", "at least one [[random.faults]]")),
    }
}

fn read(
    section: &Section<'_>,
    entry: &Entry<'_>,
    value: &Value,
    id: &str,
    cluster: &ClusterPlan,
    measure: Duration,
) -> Result<Option<FaultPlan>, ProfileError> {
    let one = fault_section(section.file(), entry.path.clone(), value)?;
    Ok(fault(&one, id, cluster, measure)?.pop())
}

fn pick<'a, 'b>(entries: &'b [Entry<'a>], random: &mut StdRng) -> &'b Entry<'a> {
    let all: f64 = entries.iter().map(|entry| entry.weight).sum();
    let mut left = random.random_range(0.0..all);
    let chosen = entries.iter().find(|entry| {
        left -= entry.weight;
        left < 0.0
    });
    chosen.unwrap_or(&entries[entries.len() - 1])
}

/// The two numbers of a range.
fn ends(range: &[Value]) -> Option<(f64, f64)> {
    let number = |value: &Value| match value.kind {
        Kind::Integer(number) => Some(number as f64),
        Kind::Float(number) => Some(number),
        _ => None,
    };
    match range {
        [from, to] => number(from).zip(number(to)).filter(|(from, to)| from <= to),
        _ => None,
    }
}

impl Entry<'_> {
    /// As a fault at that time, its ranges drawn.
    fn at(&self, at: Duration, random: &mut StdRng) -> Value {
        self.with(at, &mut |(from, to)| {
            // To the millisecond, as people would write it.
            (random.random_range(from..=to) * 1000.0).round() / 1000.0
        })
    }

    fn with(&self, at: Duration, draw: &mut dyn FnMut((f64, f64)) -> f64) -> Value {
        let mut table = self.table.clone();
        table.remove("weight");
        for (key, value) in &mut table {
            if let Kind::Array(range) = &value.kind
                && RANGES.contains(&key.as_str())
                && let Some(ends) = ends(range)
            {
                value.kind = Kind::Float(draw(ends));
            }
        }
        let at_s = (at.as_secs_f64() * 1000.0).round() / 1000.0;
        let origin = self.origin.origin.clone();
        table.insert("at_s".into(), Value { origin: origin.clone(), kind: Kind::Float(at_s) });
        Value { origin, kind: Kind::Table(table) }
    }
}
