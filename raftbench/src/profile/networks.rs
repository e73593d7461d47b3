//! Networks: files like profiles, embedded from `profiles/networks/`, or a table in the profile
//! itself. From sites and the links between them to the conditions of every direction.
//!
//! ```toml
//! sites = ["a", "b", "c"]      # nodes take them in turn; clients are at the first
//! [within]                     # between hosts at one site
//! [between]                    # between hosts at different sites
//! [[links]]                    # what differs: between = [X, Y], or from = X, to = Y (sites, hosts)
//! ```
//!
//! Invariant: a later link has the last word on a direction, and replaces all that was said of it.

use std::collections::BTreeMap;

use chaos::lab::Layout;
use chaos::lab::links::{
    Bursts, Conditions, Direction, Implementation, Loss, Overlay, Share, Spread, millis,
};

use super::document::{Document, Kind, Value};
use super::embedded::Shelf;
use super::section::{Numbers, Section};
use super::{ProfileError, nearest};
use crate::plan::NetworkPlan;

const NETWORK: &[&str] = &["name", "description", "sites", "within", "between", "links"];
/// What a direction can be.
pub(super) const CONDITIONS: &[&str] = &[
    "round_trip_ms",
    "delay_ms",
    "jitter_ms",
    "jitter_spread",
    "loss_percent",
    "loss_bursts",
    "duplicate_percent",
    "reorder_percent",
    "corrupt_percent",
    "rate_mbit_per_second",
];
/// Where the numbers come from: for readers.
const SOURCE: &[&str] = &["kind", "date", "source"];
const ENDS: &[&str] = &["between", "from", "to"];

/// A lab has one client, on which the generator runs.
const CLIENTS: usize = 1;

/// The longest delay that a link takes: a minute.
const MAX_MS: f64 = 60_000.0;

/// `cluster.network`, for `nodes` nodes; `None` where the profile has none.
pub(super) fn network(
    cluster: &Section<'_>,
    nodes: usize,
    seed: u64,
) -> Result<Option<NetworkPlan>, ProfileError> {
    let implementations = [
        ("auto", None),
        ("netem", Some(Implementation::Netem)),
        ("switch", Some(Implementation::Switch)),
    ];
    let links = cluster.choice("links", &implementations)?.flatten();
    let Some(value) = cluster.value("network") else {
        return match cluster.value("links") {
            None => Ok(None),
            Some(_) => {
                Err(cluster.error_at("links", "is only for a cluster with `network`".into()))
            }
        };
    };
    let read = |section: &Section<'_>, name: String, given: toml::Value| {
        let layout = Layout::new(nodes, CLIENTS)
            .map_err(|error| cluster.error_at("nodes", format!("is refused: {error}")))?;
        let conditions = conditions_of_all(section, layout)?;
        let name = section.text("name")?.map_or(name, str::to_owned);
        let description = section.text("description")?.unwrap_or_default().to_owned();
        Ok(Some(NetworkPlan { name, description, given, links, layout, seed, conditions }))
    };
    match &value.kind {
        Kind::Text(name) => {
            let (file, text) = find(Shelf::Networks, name).map_err(|problem| match problem {
                // The profile's line is the one to mend.
                problem @ ProfileError::UnknownName { .. } => {
                    cluster.error_at("network", problem.to_string())
                }
                other => other,
            })?;
            let document = Document::parse(&file, &text)?;
            let is_embedded = !is_path(name);
            let given = match is_embedded {
                true => toml::Value::String(name.clone()),
                // A manifest must be whole without the file.
                false => with_name(&document.root, stem(name)),
            };
            read(&Section::root(&document, NETWORK)?, stem(name).to_owned(), given)
        }
        _ => {
            let section = cluster.section("network", NETWORK)?;
            read(&section, "own".into(), value.kind.to_toml())
        }
    }
}

pub(super) fn is_path(name: &str) -> bool {
    name.contains('/') || name.ends_with(".toml")
}

pub(super) fn stem(name: &str) -> &str {
    let stem = std::path::Path::new(name).file_stem().and_then(|stem| stem.to_str());
    stem.unwrap_or(name)
}

/// The file of that name on `shelf`, or at that path, and its text.
pub(super) fn find(shelf: Shelf, name: &str) -> Result<(String, String), ProfileError> {
    match is_path(name) {
        false => {
            let text = shelf.text(name)?;
            Ok((format!("profiles/{}/{name}.toml", shelf.folder()), text.to_owned()))
        }
        true => std::fs::read_to_string(name)
            .map(|text| (name.to_owned(), text))
            .map_err(|source| ProfileError::Unreadable { path: name.to_owned(), source }),
    }
}

pub(super) fn with_name(root: &Value, name: &str) -> toml::Value {
    let mut value = root.kind.to_toml();
    if let toml::Value::Table(table) = &mut value {
        table.entry("name").or_insert_with(|| name.into());
    }
    value
}

/// Hosts by the names of their sites, and each by its own.
struct Map {
    hosts: Vec<String>,
    /// The site of each host.
    sites: Vec<String>,
}

impl Map {
    fn of(section: &Section<'_>, layout: Layout) -> Result<Self, ProfileError> {
        let hosts: Vec<String> = layout.hosts().into_iter().map(|host| host.name).collect();
        let sites = section.texts("sites")?.unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        for site in &sites {
            if hosts.contains(site) || !seen.insert(site) {
                let message = format!("has `{site}`, which is a host's name or there twice");
                return Err(section.error_at("sites", message));
            }
        }
        let mut nodes = 0;
        let place = |host: &String| match (sites.len(), host.starts_with('n')) {
            // Each is a site of its own.
            (0, _) => host.clone(),
            (_, false) => sites[0].clone(),
            (count, true) => {
                nodes += 1;
                sites[(nodes - 1) % count].clone()
            }
        };
        let sites = hosts.iter().map(place).collect();
        Ok(Self { hosts, sites })
    }

    /// The hosts that `name` means; none that it may mean is an error.
    fn hosts_of(
        &self,
        section: &Section<'_>,
        key: &str,
        name: &str,
        all_sites: &[String],
    ) -> Result<Vec<usize>, ProfileError> {
        let found: Vec<usize> = (0..self.hosts.len())
            .filter(|number| self.hosts[*number] == name || self.sites[*number] == name)
            .collect();
        // A site without nodes, where there are fewer nodes than sites, is known all the same.
        if found.is_empty() && !all_sites.iter().any(|site| site == name) {
            let known: Vec<&str> =
                all_sites.iter().chain(&self.hosts).map(String::as_str).collect();
            let hint = nearest(name, &known);
            let message =
                format!("has `{name}`{hint}; the sites and hosts are {}", known.join(", "));
            return Err(section.error_at(key, message));
        }
        Ok(found)
    }
}

fn conditions_of_all(
    section: &Section<'_>,
    layout: Layout,
) -> Result<Vec<(Direction, Conditions)>, ProfileError> {
    let map = Map::of(section, layout)?;
    let all_sites = section.texts("sites")?.unwrap_or_default();
    let keys = [CONDITIONS, SOURCE].concat();
    let within = conditions(&section.section("within", &keys)?)?;
    let between = conditions(&section.section("between", &keys)?)?;
    let mut all = BTreeMap::new();
    for from in 0..map.hosts.len() {
        for to in (0..map.hosts.len()).filter(|to| *to != from) {
            let here = map.sites[from] == map.sites[to];
            all.insert((from, to), if here { within } else { between });
        }
    }
    let keys = [ENDS, &keys].concat();
    for (index, value) in section.array("links")?.iter().enumerate() {
        let path = section.path_of(&format!("links.{}", index + 1));
        let link = Section::of(section.file(), path, value, &keys)?;
        let conditions = conditions(&link)?;
        let (from, to, both) = ends(&link, &map, &all_sites)?;
        for from in &from {
            for to in to.iter().filter(|to| *to != from) {
                all.insert((*from, *to), conditions);
                if both {
                    all.insert((*to, *from), conditions);
                }
            }
        }
    }
    let none = Conditions::default();
    let all = all.into_iter().filter(|(_, conditions)| *conditions != none);
    let named = all.map(|((from, to), conditions)| {
        (Direction { from: map.hosts[from].clone(), to: map.hosts[to].clone() }, conditions)
    });
    Ok(named.collect())
}

/// Who is at the two ends of a link, and whether both directions are meant.
fn ends(
    link: &Section<'_>,
    map: &Map,
    all_sites: &[String],
) -> Result<(Vec<usize>, Vec<usize>, bool), ProfileError> {
    let hosts = |key: &str, name: &str| map.hosts_of(link, key, name, all_sites);
    match (link.texts("between")?, link.text("from")?, link.text("to")?) {
        (Some(pair), None, None) => match &pair[..] {
            [one, other] => Ok((hosts("between", one)?, hosts("between", other)?, true)),
            _ => Err(link.error_at("between", "must name two, as in [\"n1\", \"n2\"]".into())),
        },
        (None, Some(from), Some(to)) => Ok((hosts("from", from)?, hosts("to", to)?, false)),
        _ => Err(link.error("needs either `between` (both directions), or `from` and `to`".into())),
    }
}

/// The conditions that a table gives to one direction.
fn conditions(section: &Section<'_>) -> Result<Conditions, ProfileError> {
    let conditions = overlay(section)?.over(Conditions::default());
    conditions.check().map_err(|error| section.error(format!("is refused: {error}")))?;
    Ok(conditions)
}

/// The conditions that a table names.
pub(super) fn overlay(section: &Section<'_>) -> Result<Overlay, ProfileError> {
    let ms = |key: &'static str, factor: f64| -> Result<Option<_>, ProfileError> {
        let Some(given) = section.number(key, Numbers::Within(0.0, MAX_MS))? else {
            return Ok(None);
        };
        let time = millis(key, given * factor);
        time.map(Some).map_err(|error| section.error_at(key, error.to_string()))
    };
    let delay = match (ms("round_trip_ms", 0.5)?, ms("delay_ms", 1.0)?) {
        (Some(_), Some(_)) => {
            let message = "and `delay_ms` cannot both be given: half the round trip is the delay";
            return Err(section.error_at("round_trip_ms", message.into()));
        }
        (half, delay) => half.or(delay),
    };
    let spreads =
        [("uniform", Spread::Uniform), ("normal", Spread::Normal), ("pareto", Spread::Pareto)];
    let spread = section.choice("jitter_spread", &spreads)?;
    let jitter = ms("jitter_ms", 1.0)?;
    if spread.is_some() && jitter.unwrap_or_default().is_zero() {
        return Err(section.error_at("jitter_spread", "is only for a link with `jitter_ms`".into()));
    }
    let rate = section.number("rate_mbit_per_second", Numbers::Within(0.008, 1e6))?;
    Ok(Overlay {
        delay,
        jitter,
        spread,
        loss: loss(section)?,
        duplicate: percent(section, "duplicate_percent")?,
        reorder: percent(section, "reorder_percent")?,
        corrupt: percent(section, "corrupt_percent")?,
        rate_bits_per_second: rate.map(|megabits| (megabits * 1e6) as u64),
    })
}

fn loss(section: &Section<'_>) -> Result<Option<Loss>, ProfileError> {
    let independent = percent(section, "loss_percent")?;
    let keys =
        ["turns_bad_percent", "turns_good_percent", "while_bad_percent", "while_good_percent"];
    let bursts = section.section("loss_bursts", &keys)?;
    match (independent, section.value("loss_bursts")) {
        (Some(_), Some(_)) => {
            let message = "and `loss_bursts` cannot both be given";
            Err(section.error_at("loss_percent", message.into()))
        }
        (Some(share), None) => Ok(Some(Loss::Independent(share))),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let needed = |key: &'static str, what| {
                percent(&bursts, key)?.ok_or_else(|| bursts.missing(key, what))
            };
            Ok(Some(Loss::Bursts(Bursts {
                turns_bad: needed(keys[0], "the chance, at each packet, that a bad time begins")?,
                turns_good: needed(keys[1], "the chance, at each packet, that it ends")?,
                loss_while_bad: percent(&bursts, keys[2])?.unwrap_or(Share::ALL),
                loss_while_good: percent(&bursts, keys[3])?.unwrap_or_default(),
            })))
        }
    }
}

fn percent(section: &Section<'_>, key: &'static str) -> Result<Option<Share>, ProfileError> {
    let Some(given) = section.number(key, Numbers::Within(0.0, 100.0))? else { return Ok(None) };
    let share = Share::percent(key, given);
    share.map(Some).map_err(|error| section.error_at(key, error.to_string()))
}
