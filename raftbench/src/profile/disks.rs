//! Disks: files like profiles, embedded from `profiles/disks/`, or a table in the profile itself.
//! Every table of one says where its numbers come from.
//!
//! ```toml
//! [sync]                       # also [write] and [read], of what goes past the page cache
//! quantiles_ms = [[0, 0.5], [0.5, 0.7], [0.99, 1.5], [1, 5]]   # share of requests, time
//! kind = "measured"            # documented | measured | assumed
//! source = "..."
//! [iops]                       # [throughput] likewise, in MiB
//! per_second = 300
//! burst_per_second = 3000      # while credits last
//! [queue]
//! concurrency = 64
//! ```

use chaos::lab::disks::{Backing, Burst, DiskSpec, Latency, Rate};

use super::document::{Document, Kind, Value};
use super::embedded::Shelf;
use super::networks::{find, is_path, stem, with_name};
use super::section::{Numbers, Section};
use super::{ProfileError, listed};
use crate::plan::DiskPlan;

const DISK: &[&str] =
    &["name", "description", "sync", "write", "read", "iops", "throughput", "queue"];
const LATENCY: &[&str] = &["quantiles_ms", "mean_ms", "kind", "date", "source"];
const IOPS: &[&str] = &[
    "per_second",
    "burst_per_second",
    "burst_credits",
    "credits_at_start",
    "kind",
    "date",
    "source",
];
const THROUGHPUT: &[&str] = &[
    "mib_per_second",
    "burst_mib_per_second",
    "burst_credits_mib",
    "credits_at_start_mib",
    "kind",
    "date",
    "source",
];
const QUEUE: &[&str] = &["concurrency", "largest_request_kib", "kind", "date", "source"];
const KINDS: [(&str, ()); 3] = [("documented", ()), ("measured", ()), ("assumed", ())];

/// A stated mean and that of the quantiles beside it may differ by so much.
const MEAN_TOLERANCE: f64 = 0.02;

const MIB: f64 = (1 << 20) as f64;

/// `cluster.disk`; `None` where the profile has none.
pub(super) fn disk(cluster: &Section<'_>, seed: u64) -> Result<Option<DiskPlan>, ProfileError> {
    let backings = [("disk", Backing::Disk), ("memory", Backing::Memory)];
    let backing = cluster.choice("disk_backing", &backings)?;
    let Some(value) = cluster.value("disk") else {
        return match backing {
            None => Ok(None),
            Some(_) => {
                let message = "is only for a cluster with `disk`";
                Err(cluster.error_at("disk_backing", message.into()))
            }
        };
    };
    let backing = backing.unwrap_or(Backing::Disk);
    let read = |section: &Section<'_>, name: String, given: toml::Value| {
        let spec = spec(section, backing)?;
        let name = section.text("name")?.map_or(name, str::to_owned);
        let description = section.text("description")?.unwrap_or_default().to_owned();
        Ok(Some(DiskPlan { name, description, given, spec, seed }))
    };
    match &value.kind {
        Kind::Text(name) => {
            let (file, text) = find(Shelf::Disks, name).map_err(|problem| match problem {
                // The profile's line is the one to mend.
                problem @ ProfileError::UnknownName { .. } => {
                    cluster.error_at("disk", problem.to_string())
                }
                other => other,
            })?;
            let document = Document::parse(&file, &text)?;
            let given = match is_path(name) {
                false => toml::Value::String(name.clone()),
                // A manifest must be whole without the file.
                true => with_name(&document.root, stem(name)),
            };
            read(&Section::root(&document, DISK)?, stem(name).to_owned(), given)
        }
        _ => {
            let section = cluster.section("disk", DISK)?;
            read(&section, "own".into(), value.kind.to_toml())
        }
    }
}

fn spec(section: &Section<'_>, backing: Backing) -> Result<DiskSpec, ProfileError> {
    let latency = |key: &'static str| {
        let what = "how long one takes: quantiles_ms, kind and source";
        match section.value(key) {
            None => Err(section.missing(key, what)),
            Some(_) => latency(&section.section(key, LATENCY)?),
        }
    };
    let optional = |key: &'static str, keys: &'static [&'static str], unit: f64| {
        let Some(_) = section.value(key) else { return Ok(None) };
        rate(&section.section(key, keys)?, keys, unit).map(Some)
    };
    let queue = section.section("queue", QUEUE)?;
    if section.value("queue").is_none() {
        return Err(section.missing("queue", "concurrency, kind and source"));
    }
    origin(&queue)?;
    let concurrency = queue.integer("concurrency", 1..=4096)?;
    let concurrency =
        concurrency.ok_or_else(|| queue.missing("concurrency", "how many it serves at once"))?;
    let largest_kib = queue.integer("largest_request_kib", 4..=65_536)?.unwrap_or(256);
    Ok(DiskSpec {
        sync: latency("sync")?,
        write: latency("write")?,
        read: latency("read")?,
        concurrency: concurrency as u32,
        iops: optional("iops", IOPS, 1.0)?,
        bytes: optional("throughput", THROUGHPUT, MIB)?,
        largest_request_bytes: largest_kib << 10,
        backing,
    })
}

/// Where the numbers of a table come from: there must be an answer.
fn origin(section: &Section<'_>) -> Result<(), ProfileError> {
    let names: Vec<&str> = KINDS.iter().map(|(name, ())| *name).collect();
    section.choice("kind", &KINDS)?.ok_or_else(|| section.missing("kind", &listed(&names)))?;
    section
        .text("source")?
        .ok_or_else(|| section.missing("source", "where the numbers are from"))?;
    Ok(())
}

fn latency(section: &Section<'_>) -> Result<Latency, ProfileError> {
    origin(section)?;
    let key = "quantiles_ms";
    let wanted = "pairs of a share of requests (0 to 1) and the ms that it does not exceed, as in \
                  [[0, 0.5], [0.5, 0.7], [1, 5]]";
    if section.value(key).is_none() {
        return Err(section.missing(key, wanted));
    }
    let number = |value: &Value| match value.kind {
        Kind::Integer(number) => Some(number as f64),
        Kind::Float(number) => Some(number),
        _ => None,
    };
    let point = |value: &Value| match &value.kind {
        Kind::Array(pair) => match &pair[..] {
            [share, ms] => Some((number(share)?, number(ms)?)),
            _ => None,
        },
        _ => None,
    };
    let points: Option<Vec<_>> = section.array(key)?.iter().map(point).collect();
    let points = points.ok_or_else(|| section.error_at(key, format!("must be {wanted}")))?;
    let latency = Latency::new(points).map_err(|problem| section.error_at(key, problem))?;
    if let Some(mean_ms) = section.number("mean_ms", Numbers::Above(0.0))?
        && (latency.mean_ms() / mean_ms - 1.0).abs() > MEAN_TOLERANCE
    {
        let seen = latency.mean_ms();
        let message = format!("is {mean_ms}, and the mean of {key} is {seen:.3}; mend one of them");
        return Err(section.error_at("mean_ms", message));
    }
    Ok(latency)
}

/// `keys`: of the base rate, the burst rate, the most credits, and those at the start.
fn rate(section: &Section<'_>, keys: &[&str], unit: f64) -> Result<Rate, ProfileError> {
    origin(section)?;
    let number = |key: &str| section.number(key, Numbers::Above(0.0));
    let per_second = number(keys[0])?.ok_or_else(|| section.missing(keys[0], "a rate"))?;
    let start = section.number(keys[3], Numbers::AtLeast(0.0))?;
    let burst = match (number(keys[1])?, number(keys[2])?, start) {
        (None, None, None) => None,
        (Some(burst), Some(credits), start) => {
            if burst < per_second {
                let message = format!("is {burst}, below {} ({per_second})", keys[0]);
                return Err(section.error_at(keys[1], message));
            }
            let starts_with = start.unwrap_or(credits);
            if starts_with > credits {
                let message = format!("is {starts_with}, above {} ({credits})", keys[2]);
                return Err(section.error_at(keys[3], message));
            }
            Some(Burst {
                per_second: burst * unit,
                credits: credits * unit,
                starts_with: starts_with * unit,
            })
        }
        (None, ..) => return Err(section.missing(keys[1], "the rate while credits last")),
        (_, None, _) => return Err(section.missing(keys[2], "how many credits can be saved up")),
    };
    Ok(Rate { per_second: per_second * unit, burst })
}
