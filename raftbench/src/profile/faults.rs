//! `[[faults]]`: each kind has its own keys; and the timeline that they make together.
//!
//! Invariant: every fault has its victims. One that would find too few nodes running, or a leader
//! where no quorum is left, is refused before anything starts.

use std::time::Duration;

use super::disk_faults;
use super::document::{Kind, Value};
use super::section::Section;
use super::{ProfileError, link_faults, listed, nearest, networks, random};
use crate::plan::{ClusterPlan, FaultKind, FaultPlan, FaultTarget, Target};

/// What every fault has.
const COMMON: Keys = &["kind", "target", "at_s", "every_s", "times"];

/// The kinds of processes, of the cluster and of links, each with the keys that it may have.
const KINDS: [(&str, &[Keys]); 8] = [
    ("kill", &[COMMON, &["restart_after_s"]]),
    ("terminate", &[COMMON, &["restart_after_s"]]),
    ("pause", &[COMMON, &["resume_after_s"]]),
    ("restart", &[COMMON]),
    ("transfer", &[COMMON]),
    ("replace", &[COMMON, &["rejoin_after_s"]]),
    ("partition", &[COMMON, link_faults::PARTITION]),
    ("link", &[COMMON, link_faults::LINK, networks::CONDITIONS]),
];

/// Names of keys.
pub(super) type Keys = &'static [&'static str];

/// All kinds.
fn kinds() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let disks = disk_faults::KINDS.map(|(kind, own)| (kind, [COMMON, own].concat()));
    KINDS.map(|(kind, parts)| (kind, parts.concat())).into_iter().chain(disks)
}

/// Reads and checks all faults; in order of time.
pub(super) fn faults(
    root: &Section<'_>,
    cluster: &ClusterPlan,
    measure: Duration,
    seed: u64,
) -> Result<Vec<FaultPlan>, ProfileError> {
    let values = root.array("faults")?;
    let is_external = matches!(cluster.target, Target::External { .. });
    if is_external && root.value("random").is_some() {
        let message = "makes faults, which need processes that the run started; leave it out";
        return Err(root.error_at("random", message.into()));
    }
    if is_external && !values.is_empty() {
        return Err(root.error_at(
            "faults",
            "strike processes that the run started, and this cluster runs already; set `faults` \
             to [] (--set faults=[]) or let the run start the cluster"
                .into(),
        ));
    }
    let mut timeline = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let id = format!("f{}", index + 1);
        let section = fault_section(root.file(), format!("faults.{id}"), value)?;
        for fault in fault(&section, &id, cluster, measure)? {
            timeline.push((fault, section.clone()));
        }
    }
    timeline.sort_by_key(|(fault, _)| fault.at);
    check_victims(&timeline, cluster.nodes)?;
    random::draw(root, cluster, measure, seed, &mut timeline)?;
    Ok(timeline.into_iter().map(|(fault, _)| fault).collect())
}

/// The table, once its kind has said which keys it may have.
pub(super) fn fault_section<'a>(
    file: &'a str,
    path: String,
    value: &'a Value,
) -> Result<Section<'a>, ProfileError> {
    let kind = match &value.kind {
        Kind::Table(table) => table.get("kind"),
        _ => None,
    };
    let kind = kind.and_then(|kind| match &kind.kind {
        Kind::Text(kind) => Some(kind.as_str()),
        _ => None,
    });
    let known = kinds().find(|(name, _)| kind == Some(*name));
    let Some((_, keys)) = known else {
        // Without a kind, no other key can be judged.
        let any: Vec<&str> = match &value.kind {
            Kind::Table(table) => table.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let section = Section::of(file, path, value, &any)?;
        let kinds: Vec<&str> = kinds().map(|(name, _)| name).collect();
        return Err(match section.text("kind")? {
            Some(kind) => section.error_at(
                "kind",
                format!("`{kind}` is not one of {}{}", listed(&kinds), nearest(kind, &kinds)),
            ),
            None => section.missing("kind", &listed(&kinds)),
        });
    };
    Section::of(file, path, value, &keys)
}

pub(super) fn fault(
    section: &Section<'_>,
    id: &str,
    cluster: &ClusterPlan,
    measure: Duration,
) -> Result<Vec<FaultPlan>, ProfileError> {
    let target = match link_faults::needs_no_target(section) {
        true if has(section, "target") => {
            let message = "is not for shape `ring`, which is among all nodes";
            return Err(section.error_at("target", message.into()));
        }
        true => FaultTarget::All,
        false => target(section, cluster)?,
    };
    let restart_after = if has(section, "restart_after_s") {
        section.seconds("restart_after_s", true)?
    } else {
        None
    };
    let kind = match section.text("kind")?.unwrap_or_default() {
        "kill" => FaultKind::Kill { restart_after },
        "terminate" => FaultKind::Terminate { restart_after },
        "restart" => FaultKind::Terminate { restart_after: Some(Duration::ZERO) },
        "partition" => link_faults::partition(section, cluster, &target)?,
        "link" => link_faults::link(section, cluster)?,
        "transfer" => {
            check_successor(section, &target, cluster.nodes)?;
            FaultKind::Transfer
        }
        "replace" => {
            check_replaced(section, &target, cluster.nodes)?;
            let rejoin_after = section.seconds("rejoin_after_s", true)?.ok_or_else(|| {
                let what = "how long after the kill the new member starts, in seconds";
                section.missing("rejoin_after_s", what)
            })?;
            FaultKind::Replace { rejoin_after }
        }
        _ if let Some(fault) = disk_faults::fault(section, cluster)? => FaultKind::Disk(fault),
        _ => {
            let resume_after = section.seconds("resume_after_s", false)?.ok_or_else(|| {
                section.missing("resume_after_s", "how long the pause holds, in seconds")
            })?;
            FaultKind::Pause { resume_after }
        }
    };
    let first = section.seconds("at_s", true)?;
    let first = first
        .ok_or_else(|| section.missing("at_s", "seconds from the start of the measured phase"))?;
    let every = section.seconds("every_s", false)?;
    let times = section.integer("times", 1..=10_000)?;
    let times = match (every, times) {
        (None, None) => 1,
        (Some(_), Some(times)) => times as u32,
        (Some(_), None) => return Err(section.missing("times", "how often the fault happens")),
        (None, Some(_)) => return Err(section.missing("every_s", "the seconds between repeats")),
    };
    if kind == FaultKind::Transfer && times > 1 && matches!(target, FaultTarget::Names(_)) {
        let message = "hands leadership to one node again and again, which has it already the second \
                       time; make the target `follower`, or give each transfer a table of its own";
        return Err(section.error_at("times", message.into()));
    }
    (0..times)
        .map(|repeat| {
            let at = first + every.unwrap_or_default() * repeat;
            let id = if times == 1 { id.to_owned() } else { format!("{id}.{}", repeat + 1) };
            check_time(section, kind, at, measure)?;
            Ok(FaultPlan { id, kind, target: target.clone(), at })
        })
        .collect()
}

/// Leadership goes to one member, and not to the one that has it.
fn check_successor(
    section: &Section<'_>,
    target: &FaultTarget,
    nodes: usize,
) -> Result<(), ProfileError> {
    let one = match target {
        FaultTarget::Follower => nodes > 1,
        FaultTarget::Names(names) => names.len() == 1 && nodes > 1,
        _ => false,
    };
    if one {
        return Ok(());
    }
    let message = format!(
        "is `{target}`, and a transfer's target is who is to lead next: `follower`, or the name of \
         one node, in a cluster of more than one"
    );
    Err(section.error_at("target", message))
}

/// Members are replaced one at a time, and by those that are left.
fn check_replaced(
    section: &Section<'_>,
    target: &FaultTarget,
    nodes: usize,
) -> Result<(), ProfileError> {
    let one = match target {
        FaultTarget::Leader | FaultTarget::Follower | FaultTarget::One => true,
        FaultTarget::Names(names) => names.len() == 1,
        _ => false,
    };
    let message = match (one, nodes >= 3) {
        (true, true) => return Ok(()),
        (false, _) => format!(
            "is `{target}`, and members are replaced one at a time: `leader`, `follower`, `one`, or \
             the name of one node"
        ),
        (true, false) => format!(
            "is `{target}` in a cluster of {nodes}; without a third member there is nobody left to \
             agree on the change"
        ),
    };
    Err(section.error_at("target", message))
}

fn has(section: &Section<'_>, key: &str) -> bool {
    section.value(key).is_some()
}

fn target(section: &Section<'_>, cluster: &ClusterPlan) -> Result<FaultTarget, ProfileError> {
    let groups = ["leader", "follower", "followers", "one", "minority", "majority", "all"];
    let names = match section.value("target").map(|value| &value.kind) {
        None => {
            return Err(
                section.missing("target", &format!("{} or names of nodes", listed(&groups)))
            );
        }
        Some(Kind::Text(text)) => match text.as_str() {
            "leader" => return Ok(FaultTarget::Leader),
            "follower" => return Ok(FaultTarget::Follower),
            "followers" => return Ok(FaultTarget::Followers),
            "one" => return Ok(FaultTarget::One),
            "minority" => return Ok(FaultTarget::Minority),
            "majority" => return Ok(FaultTarget::Majority),
            "all" => return Ok(FaultTarget::All),
            name => vec![name.to_owned()],
        },
        Some(_) => section.texts("target")?.unwrap_or_default(),
    };
    let known = cluster.node_names();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for (index, name) in names.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let all: Vec<&str> = known.iter().chain(&groups).copied().collect();
            let message = format!(
                "`{name}` does not exist{}; a fault's target is one of {}, or an array of nodes",
                nearest(name, &all),
                listed(&all)
            );
            return Err(section.error_at("target", message));
        }
        if names[..index].contains(name) {
            return Err(section.error_at("target", format!("has `{name}` twice")));
        }
    }
    match names.is_empty() {
        true => Err(section.error_at("target", "is empty; name at least one node".into())),
        false => Ok(FaultTarget::Names(names)),
    }
}

fn check_time(
    section: &Section<'_>,
    kind: FaultKind,
    at: Duration,
    measure: Duration,
) -> Result<(), ProfileError> {
    if at >= measure {
        let message = format!(
            "puts the fault at {} s, and the measured phase ends at {} s; move the fault, or \
             lengthen phases.measure_s",
            at.as_secs_f64(),
            measure.as_secs_f64()
        );
        let key = if has(section, "every_s") { "every_s" } else { "at_s" };
        return Err(section.error_at(key, message));
    }
    let healed = kind.holds().map(|held| at + held);
    let Some(healed) = healed.filter(|healed| *healed > measure) else { return Ok(()) };
    let (key, instead) = match kind {
        FaultKind::Pause { .. } => ("resume_after_s", "shorten it"),
        FaultKind::Partition(_) | FaultKind::Link(_) => ("heal_after_s", "shorten it"),
        FaultKind::Disk(fault) => (fault.kind.undo_key(), "shorten it"),
        FaultKind::Transfer => ("at_s", "move it"),
        FaultKind::Replace { .. } => ("rejoin_after_s", "shorten it"),
        FaultKind::Kill { .. } | FaultKind::Terminate { .. } => {
            ("restart_after_s", "shorten it, or leave it out to keep the node down")
        }
    };
    let message = format!(
        "ends the fault at {} s, and the measured phase ends at {} s, so that nobody would see \
         the recovery; {instead}",
        healed.as_secs_f64(),
        measure.as_secs_f64()
    );
    Err(section.error_at(key, message))
}

/// Walks the timeline and counts who is held when.
pub(super) fn check_victims(
    timeline: &[(FaultPlan, Section<'_>)],
    nodes: usize,
) -> Result<(), ProfileError> {
    let quorum = nodes / 2 + 1;
    let held_at = |faults: &[(FaultPlan, Section<'_>)], at: Duration| -> Vec<FaultPlan> {
        let holds = |fault: &FaultPlan| fault.kind.holds().is_none_or(|held| fault.at + held > at);
        let faults = faults.iter().map(|(fault, _)| fault.clone());
        faults.filter(|fault| fault.kind.takes_out() && holds(fault)).collect()
    };
    for (index, (fault, section)) in timeline.iter().enumerate() {
        let at_s = fault.at.as_secs_f64();
        let held = held_at(&timeline[..index], fault.at);
        let running = nodes - count(&held, nodes);
        let wanted = victims(&fault.target, nodes);
        if wanted == 0 {
            let message = format!("is `{}`, and a cluster of {nodes} has none", fault.target);
            return Err(section.error_at("target", message));
        }
        if let FaultTarget::Names(names) = &fault.target {
            let twice = held.iter().find_map(|other| match &other.target {
                FaultTarget::Names(others) => {
                    names.iter().find(|name| others.contains(name)).map(|name| (other, name))
                }
                _ => None,
            });
            if let Some((other, name)) = twice {
                let message =
                    format!("strikes {name} at {at_s} s, and {} still holds it", other.id);
                return Err(section.error_at("target", message));
            }
        }
        let needs_leader = matches!(
            fault.target,
            FaultTarget::Leader | FaultTarget::Follower | FaultTarget::Followers
        );
        let needs_leader = needs_leader || fault.kind == FaultKind::Transfer;
        if matches!(fault.kind, FaultKind::Replace { .. }) && running.saturating_sub(1) < quorum {
            let message = format!(
                "is to be replaced at {at_s} s, when {} of {nodes} nodes are held: those that are \
                 left without it could not agree on the change",
                nodes - running
            );
            return Err(section.error_at("target", message));
        }
        let wanted = if fault.target == FaultTarget::Followers { wanted + 1 } else { wanted };
        if wanted > running || (needs_leader && running < quorum) {
            let others: Vec<&str> = held.iter().map(|fault| fault.id.as_str()).collect();
            let message = format!(
                "is `{}` at {at_s} s, when {} of {nodes} nodes are held by {}; {}",
                fault.target,
                nodes - running,
                others.join(", "),
                match needs_leader && running < quorum {
                    true => format!("without {quorum} nodes there is no leader"),
                    false => format!("it needs {wanted} running"),
                }
            );
            return Err(section.error_at("target", message));
        }
    }
    Ok(())
}

fn count(held: &[FaultPlan], nodes: usize) -> usize {
    held.iter().map(|fault| victims(&fault.target, nodes)).sum::<usize>().min(nodes)
}

/// How many nodes a target comes to.
fn victims(target: &FaultTarget, nodes: usize) -> usize {
    match target {
        FaultTarget::Leader | FaultTarget::One => 1,
        FaultTarget::Follower => nodes.saturating_sub(1).min(1),
        FaultTarget::Followers => nodes - 1,
        FaultTarget::Minority => (nodes - 1) / 2,
        FaultTarget::Majority => nodes / 2 + 1,
        FaultTarget::All => nodes,
        FaultTarget::Names(names) => names.len(),
    }
}
