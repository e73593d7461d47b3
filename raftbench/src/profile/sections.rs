//! From a profile's sections to a plan: what each key means, its default, and what is refused.
//!
//! Invariant: the plan that comes out is sound; nobody checks it again.

use std::time::Duration;

use loadgen::preload::Preload;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec, MIN_VALUE_BYTES};
use loadgen::target::Api;

use super::document::Document;
use super::section::{Numbers, Section};
use super::{ProfileError, disks, faults, listed, networks};
use crate::plan::{Checks, ClusterPlan, Expect, Limits, METRICS, NetworkPlan, Plan, Target};

const ROOT: &[&str] =
    &["description", "cluster", "load", "phases", "faults", "random", "checks", "limits", "expect"];
const CLUSTER: &[&str] = &[
    "target",
    "nodes",
    "heartbeat_ms",
    "election_timeout_ms",
    "endpoints",
    "disk",
    "disk_backing",
    "network",
    "links",
    "bench_node",
    "etcd",
];
const LOAD: &[&str] = &[
    "arrivals",
    "rate_per_second",
    "clients",
    "connections",
    "timeout_ms",
    "max_outstanding",
    "reads",
    "mix",
    "keys",
    "values",
    "preload",
    "api",
];

/// More nodes than this on one machine measure the machine.
const MAX_NODES: u64 = 9;
/// etcd refuses requests from 1.5 MiB on.
const MAX_VALUE_BYTES: u64 = 1 << 20;
/// Every operation is kept in memory until the run is judged (about 100 bytes each).
const MAX_OPERATIONS: f64 = 50e6;
/// etcd refuses a longer one.
const MAX_ELECTION_TIMEOUT_MS: u64 = 50_000;

pub(super) fn plan(
    document: &Document,
    name: &str,
    seed: u64,
    key_prefix: &str,
) -> Result<Plan, ProfileError> {
    let root = Section::root(document, ROOT)?;
    let cluster = cluster(&root.section("cluster", CLUSTER)?, seed)?;
    let load = load(&root, seed, key_prefix)?;
    let api = api(&root, &cluster.target)?;
    let preload = preload(&root.section("load", LOAD)?)?;
    let checks = checks(&root.section("checks", &["audit", "linearizable"])?, &load)?;
    let faults = faults::faults(&root, &cluster, load.measure, seed)?;
    Ok(Plan {
        profile: name.to_owned(),
        description: root.text("description")?.unwrap_or_default().to_owned(),
        seed,
        cluster,
        preload,
        load,
        api,
        faults,
        checks,
        limits: limits(&root)?,
        expect: expect(&root)?,
    })
}

fn cluster(section: &Section<'_>, seed: u64) -> Result<ClusterPlan, ProfileError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Name {
        BenchNode,
        BenchNodeSession,
        Etcd,
        Nats,
        External,
    }
    let choices = [
        ("bench-node", Name::BenchNode),
        (SESSION_TARGET, Name::BenchNodeSession),
        ("etcd", Name::Etcd),
        ("nats", Name::Nats),
        ("external", Name::External),
    ];
    let target_name = section.choice("target", &choices)?.unwrap_or(Name::BenchNode);
    let target = match target_name {
        Name::BenchNode | Name::BenchNodeSession => Target::BenchNode,
        Name::Etcd => Target::Etcd,
        Name::Nats => {
            let message = "`nats` is not available yet; there are `bench-node`, `etcd` and \
                           `external`";
            return Err(section.error_at("target", message.into()));
        }
        Name::External => Target::External { endpoints: endpoints(section)? },
    };
    if target_name != Name::External && section.value("endpoints").is_some() {
        let message = format!(
            "is only for target `external`; the target is `{}`, which the run starts itself",
            target.name()
        );
        return Err(section.error_at("endpoints", message));
    }
    let nodes = section.integer("nodes", 1..=MAX_NODES)?.unwrap_or(3) as usize;
    let heartbeat_ms = section.integer("heartbeat_ms", 1..=10_000)?.unwrap_or(100);
    let election_timeout_ms =
        section.integer("election_timeout_ms", 2..=MAX_ELECTION_TIMEOUT_MS)?.unwrap_or(1000);
    // The first is the core's own rule, the second etcd's.
    let (fits, wanted) = match target {
        Target::Etcd => (5 * heartbeat_ms <= election_timeout_ms, "at least 5 x heartbeat_ms"),
        _ => (2 * heartbeat_ms < election_timeout_ms, "more than 2 x heartbeat_ms"),
    };
    if !fits {
        let message = format!(
            "is {election_timeout_ms}; with {} it must be {wanted} ({heartbeat_ms})",
            target.name()
        );
        return Err(section.error_at("election_timeout_ms", message));
    }
    let etcd_flags = section.section("etcd", &["flags"])?.texts("flags")?.unwrap_or_default();
    let external = matches!(target, Target::External { .. });
    let mut network = networks::network(section, nodes, seed)?;
    let disk = disks::disk(section, seed)?;
    if external && network.is_some() {
        let message = "is for a cluster that the run starts, and this one runs already";
        return Err(section.error_at("network", message.into()));
    }
    if disk.is_some() {
        if external {
            let message = "is for a cluster that the run starts, and this one runs already";
            return Err(section.error_at("disk", message.into()));
        }
        // A disk of one's own needs a host of one's own.
        if network.is_none() {
            let plain = NetworkPlan::plain(nodes);
            let plain = plain.map_err(|e| section.error_at("nodes", format!("is refused: {e}")))?;
            network = Some(plain);
        }
    }
    Ok(ClusterPlan {
        target,
        nodes: if external { 0 } else { nodes },
        heartbeat_ms,
        election_timeout_ms,
        network,
        disk,
        bench_node: section.raw_table("bench_node", bench_node_accepts)?,
        etcd_flags,
    })
}

/// The node has the last word on its own settings; asked here, the answer names the line.
fn bench_node_accepts(setting: toml::Table) -> Result<(), String> {
    let read: Result<bench_node::Settings, _> = toml::Value::Table(setting).try_into();
    read.map(drop).map_err(|error| error.message().to_owned())
}

fn endpoints(section: &Section<'_>) -> Result<Vec<String>, ProfileError> {
    let endpoints = section.texts("endpoints")?.unwrap_or_default();
    if endpoints.is_empty() {
        return Err(section.missing("endpoints", "--endpoints HOST:PORT,..."));
    }
    for endpoint in &endpoints {
        let port = endpoint.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port != 0);
        if port.is_none() || endpoint.contains('/') {
            let message = format!("has `{endpoint}`; it must be HOST:PORT, without a scheme");
            return Err(section.error_at("endpoints", message));
        }
    }
    let mut seen: Vec<&String> = endpoints.iter().collect();
    seen.sort_unstable();
    if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(section.error_at("endpoints", format!("has `{}` twice", twice[0])));
    }
    Ok(endpoints)
}

/// `bench-node-session` is bench-node, spoken to by sessions.
const SESSION_TARGET: &str = "bench-node-session";

fn api(root: &Section<'_>, target: &Target) -> Result<Api, ProfileError> {
    let section = root.section("load", LOAD)?;
    let choices = [Api::Etcd, Api::Session].map(|api| (api.name(), api));
    let by_target = root.section("cluster", CLUSTER)?.text("target")? == Some(SESSION_TARGET);
    let otherwise = if by_target { Api::Session } else { Api::Etcd };
    let api = section.choice("api", &choices)?.unwrap_or(otherwise);
    if api == Api::Session && *target == Target::Etcd {
        let message = "`session` is bench-node's own; etcd speaks `etcd` alone";
        return Err(section.error_at("api", message.into()));
    }
    Ok(api)
}

fn load(root: &Section<'_>, seed: u64, key_prefix: &str) -> Result<LoadSpec, ProfileError> {
    let section = &root.section("load", LOAD)?;
    let connections = section.integer("connections", 1..=10_000)?.unwrap_or(16) as usize;
    let arrivals = arrivals(section, connections)?;
    let timeout = section.integer("timeout_ms", 1..=600_000)?.unwrap_or(5000);
    let timeout = Duration::from_millis(timeout);
    let max_outstanding = max_outstanding(section, arrivals, timeout)?;
    let reads = section.choice(
        "reads",
        &[("linearizable", Consistency::Linearizable), ("serializable", Consistency::Serializable)],
    )?;
    let (warmup, measure, drain) = phases(root, timeout)?;
    if let Arrivals::Constant { rate_per_second } | Arrivals::Poisson { rate_per_second } = arrivals
    {
        let operations = rate_per_second * (warmup + measure).as_secs_f64();
        if operations > MAX_OPERATIONS {
            let message = format!(
                "makes {operations:.0} operations in {:.0} s; one run holds up to \
                 {MAX_OPERATIONS:.0}: lower it, or shorten [phases]",
                (warmup + measure).as_secs_f64()
            );
            return Err(section.error_at("rate_per_second", message));
        }
    }
    let values = section.section("values", &["bytes"])?;
    let value_bytes = values.integer("bytes", MIN_VALUE_BYTES as u64..=MAX_VALUE_BYTES)?;
    Ok(LoadSpec {
        arrivals,
        connections,
        timeout,
        max_outstanding,
        reads: reads.unwrap_or(Consistency::Linearizable),
        put_share: put_share(&section.section("mix", &["put", "get"])?)?,
        keys: keys(&section.section("keys", &["count", "distribution", "exponent"])?, key_prefix)?,
        value_bytes: value_bytes.unwrap_or(256) as usize,
        warmup,
        measure,
        drain,
        seed,
    })
}

/// What is written before the load; absent: nothing.
fn preload(section: &Section<'_>) -> Result<Option<Preload>, ProfileError> {
    if section.value("preload").is_none() {
        return Ok(None);
    }
    let section = section.section("preload", &["keys", "bytes"])?;
    let keys = section.integer("keys", 1..=100_000_000)?;
    let keys = keys.ok_or_else(|| section.missing("keys", "how many keys to write"))? as u32;
    let bytes = section.integer("bytes", MIN_VALUE_BYTES as u64..=MAX_VALUE_BYTES)?;
    let bytes = bytes.ok_or_else(|| section.missing("bytes", "the size of each value"))?;
    Ok(Some(Preload { keys, value_bytes: bytes as usize }))
}

fn arrivals(section: &Section<'_>, connections: usize) -> Result<Arrivals, ProfileError> {
    #[derive(Clone, Copy)]
    enum Name {
        Constant,
        Poisson,
        Closed,
    }
    let choices =
        [("constant", Name::Constant), ("poisson", Name::Poisson), ("closed", Name::Closed)];
    let name = section.choice("arrivals", &choices)?.unwrap_or(Name::Poisson);
    let rate = section.number("rate_per_second", Numbers::Above(0.0))?;
    let clients = section.integer("clients", 1..=100_000)?;
    match (name, rate, clients) {
        (Name::Closed, None, clients) => {
            Ok(Arrivals::Closed { clients: clients.map_or(connections, |count| count as usize) })
        }
        (Name::Closed, Some(_), _) => Err(section.error_at(
            "rate_per_second",
            "is not for closed arrivals, where each client sends when its last answer came; leave \
             it out and give `clients`"
                .into(),
        )),
        (_, _, Some(_)) => Err(section.error_at(
            "clients",
            "is only for arrivals = \"closed\"; open loop takes `rate_per_second`".into(),
        )),
        (_, None, _) => Err(section.missing("rate_per_second", "operations per second")),
        (Name::Constant, Some(rate_per_second), _) => Ok(Arrivals::Constant { rate_per_second }),
        (Name::Poisson, Some(rate_per_second), _) => Ok(Arrivals::Poisson { rate_per_second }),
    }
}

/// Below rate x timeout, a stall that the timeout would bear fails operations at the generator's
/// own bound, and the run measures that bound.
fn max_outstanding(
    section: &Section<'_>,
    arrivals: Arrivals,
    timeout: Duration,
) -> Result<usize, ProfileError> {
    let given = section.integer("max_outstanding", 1..=50_000_000)?;
    let rate = match arrivals {
        Arrivals::Closed { clients } => {
            return match given {
                None => Ok(clients),
                Some(_) => Err(section.error_at(
                    "max_outstanding",
                    "is not for closed arrivals: each client has one operation".into(),
                )),
            };
        }
        Arrivals::Constant { rate_per_second } | Arrivals::Poisson { rate_per_second } => {
            rate_per_second
        }
    };
    let least = (rate * timeout.as_secs_f64()).ceil();
    match given {
        // Poisson arrivals bunch: twice the mean leaves room for any bunch.
        None => Ok((2.0 * least).max(1000.0) as usize),
        Some(given) if given as f64 >= least => Ok(given as usize),
        Some(given) => Err(section.error_at(
            "max_outstanding",
            format!(
                "is {given}; it must be at least rate_per_second x timeout ({least}), or be left \
                 out"
            ),
        )),
    }
}

fn put_share(mix: &Section<'_>) -> Result<f64, ProfileError> {
    let put = mix.number("put", Numbers::Within(0.0, 1.0))?;
    let get = mix.number("get", Numbers::Within(0.0, 1.0))?;
    let (put, get) = match (put, get) {
        (None, None) => (0.5, 0.5),
        (put, get) => (put.unwrap_or(0.0), get.unwrap_or(0.0)),
    };
    if (put + get - 1.0).abs() > 1e-6 {
        return Err(mix.error(format!("sums to {}; `put` and `get` must sum to 1", put + get)));
    }
    Ok(put)
}

fn keys(section: &Section<'_>, prefix: &str) -> Result<Keys, ProfileError> {
    // The audit reads every key back.
    let count = section.integer("count", 1..=10_000_000)?.unwrap_or(10_000);
    let zipfian = section.choice("distribution", &[("uniform", false), ("zipfian", true)])?;
    let exponent = section.number("exponent", Numbers::Within(0.01, 10.0))?;
    let distribution = match (zipfian.unwrap_or(false), exponent) {
        (true, exponent) => KeyDistribution::Zipfian { exponent: exponent.unwrap_or(0.99) },
        (false, None) => KeyDistribution::Uniform,
        (false, Some(_)) => {
            let message = "is only for distribution = \"zipfian\"";
            return Err(section.error_at("exponent", message.into()));
        }
    };
    Ok(Keys { prefix: prefix.to_owned(), count: count as u32, distribution })
}

fn phases(
    root: &Section<'_>,
    timeout: Duration,
) -> Result<(Duration, Duration, Duration), ProfileError> {
    let section = root.section("phases", &["warmup_s", "measure_s", "drain_s"])?;
    let warmup = section.seconds("warmup_s", true)?.unwrap_or(Duration::from_secs(3));
    let measure = section.seconds("measure_s", false)?;
    let measure = measure.ok_or_else(|| section.missing("measure_s", "how long to measure"))?;
    let drain = section.seconds("drain_s", true)?.unwrap_or(timeout + Duration::from_secs(1));
    if drain < timeout {
        return Err(section.error_at(
            "drain_s",
            format!(
                "is {} s, shorter than load.timeout_ms = {}: the last operations' answers would \
                 not be awaited; lengthen it, or leave it out",
                drain.as_secs_f64(),
                timeout.as_millis()
            ),
        ));
    }
    Ok((warmup, measure, drain))
}

fn checks(section: &Section<'_>, load: &LoadSpec) -> Result<Checks, ProfileError> {
    let audit = section.boolean("audit")?.unwrap_or(true);
    let linearizable = section.boolean("linearizable")?.unwrap_or(false);
    // Writes alone can always be ordered: such a check could not fail.
    if linearizable && (load.put_share >= 1.0 || load.reads == Consistency::Serializable) {
        return Err(section.error_at(
            "linearizable",
            "needs gets that ask for linearizability: set load.mix.get above 0, and load.reads = \
             \"linearizable\""
                .into(),
        ));
    }
    Ok(Checks { audit, linearizable })
}

fn limits(root: &Section<'_>) -> Result<Limits, ProfileError> {
    let keys = [
        "leader_changes_per_minute",
        "wal_fsync_p99_ms",
        "commit_p99_ms",
        "follower_lag_entries",
        "term_growth_per_minute",
    ];
    let (section, default) = (root.section("limits", &keys)?, Limits::default());
    let number = |key: &str, default: f64| {
        section.number(key, Numbers::AtLeast(0.0)).map(|number| number.unwrap_or(default))
    };
    Ok(Limits {
        leader_changes_per_minute: number(keys[0], default.leader_changes_per_minute)?,
        wal_fsync_p99_ms: number(keys[1], default.wal_fsync_p99_ms)?,
        commit_p99_ms: number(keys[2], default.commit_p99_ms)?,
        follower_lag_entries: section
            .integer(keys[3], 0..=u64::MAX >> 1)?
            .unwrap_or(default.follower_lag_entries),
        term_growth_per_minute: number(keys[4], default.term_growth_per_minute)?,
    })
}

fn expect(root: &Section<'_>) -> Result<Expect, ProfileError> {
    let section = root.section("expect", &["max_outage_ms", "late_after_ms", "required"])?;
    let required = section.texts("required")?;
    for name in required.iter().flatten() {
        if !METRICS.contains(&name.as_str()) {
            let message = format!("has `{name}`; the metrics are {}", listed(&METRICS));
            return Err(section.error_at("required", message));
        }
    }
    Ok(Expect {
        max_outage_ms: section.number("max_outage_ms", Numbers::AtLeast(0.0))?,
        required,
        late_after_ms: section.number("late_after_ms", Numbers::Above(0.0))?,
    })
}
