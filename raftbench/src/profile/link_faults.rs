//! `[[faults]]` of the kinds `partition` and `link`: what is done to the links between the hosts of
//! a lab.
//!
//! ```toml
//! [[faults]]
//! kind = "partition"
//! shape = "isolate"       # isolate | one-way-out | one-way-in | halves | bridge | ring
//! target = "leader"       # halves: the one side; bridge: who reaches both; ring: none
//! from = "peers"          # all | peers | clients; of isolate and the one-way shapes
//! flap_down_s = 0.5       # with flap_up_s: it comes and goes
//! flap_up_s = 1
//! at_s = 5
//! heal_after_s = 6
//!
//! [[faults]]
//! kind = "link"
//! target = "follower"
//! from = "peers"
//! way = "both"            # both | out | in, seen from the target
//! delay_ms = 40           # and the other conditions of a network, for each direction
//! at_s = 5
//! heal_after_s = 6
//! ```

use std::time::Duration;

use chaos::Flap;
use chaos::lab::links::{Conditions, Loss, Others, Overlay, Share, Way};

use super::ProfileError;
use super::document::Kind;
use super::faults::Keys;
use super::networks::overlay;
use super::section::Section;
use crate::plan::{
    ClusterPlan, FaultKind, FaultTarget, LinkPlan, NetworkPlan, PartitionPlan, Shape, check_over,
};

/// Beside those of every fault.
pub(super) const PARTITION: Keys = &["shape", "from", "flap_down_s", "flap_up_s", "heal_after_s"];

/// Beside those of every fault, and the conditions of a network.
pub(super) const LINK: Keys = &["from", "way", "heal_after_s"];

const OTHERS: [(&str, Others); 3] =
    [("all", Others::All), ("peers", Others::Peers), ("clients", Others::Clients)];

/// What was under way when links were cut must have arrived before the proof begins.
const LEAST_DOWN: Duration = Duration::from_millis(400);

/// A ring has no victim of its own: it is everybody's.
pub(super) fn needs_no_target(section: &Section<'_>) -> bool {
    let is =
        |key, text| matches!(section.value(key).map(|v| &v.kind), Some(Kind::Text(t)) if t == text);
    is("kind", "partition") && is("shape", "ring")
}

/// A fault of kind `partition`.
pub(super) fn partition(
    section: &Section<'_>,
    cluster: &ClusterPlan,
    target: &FaultTarget,
) -> Result<FaultKind, ProfileError> {
    network(section, cluster)?;
    let shape = section.choice("shape", &Shape::ALL)?.ok_or_else(|| {
        section.missing(
            "shape",
            "`isolate`, `one-way-out`, `one-way-in`, `halves`, `bridge` or `ring`",
        )
    })?;
    let from = section.choice("from", &OTHERS)?;
    if from.is_some() && !shape.takes_others() {
        let message = format!("is not for shape `{}`, which is among the nodes", shape.name());
        return Err(section.error_at("from", message));
    }
    let nodes = cluster.nodes;
    let least = match shape {
        Shape::Ring => 4,
        Shape::Bridge => 3,
        _ => 1,
    };
    if nodes < least {
        let message = format!(
            "is `{}`, which cuts nothing among {nodes} nodes; it takes {least}",
            shape.name()
        );
        return Err(section.error_at("shape", message));
    }
    let is_one = match target {
        FaultTarget::Leader | FaultTarget::Follower | FaultTarget::One => true,
        FaultTarget::Names(names) => names.len() == 1,
        _ => false,
    };
    if shape == Shape::Bridge && !is_one {
        let message =
            format!("is `{target}`; a bridge is one node: `leader`, `follower`, `one` or a name");
        return Err(section.error_at("target", message));
    }
    let is_everyone = match target {
        FaultTarget::All => true,
        FaultTarget::Names(names) => names.len() >= nodes,
        _ => nodes == 1,
    };
    if shape == Shape::Halves && is_everyone {
        let message = format!("is `{target}`, which leaves nobody on the other side");
        return Err(section.error_at("target", message));
    }
    let heal_after = heal_after(section)?;
    let flap = flap(section, heal_after)?;
    let from = from.unwrap_or_default();
    Ok(FaultKind::Partition(PartitionPlan { shape, from, flap, heal_after }))
}

/// A fault of kind `link`.
pub(super) fn link(
    section: &Section<'_>,
    cluster: &ClusterPlan,
) -> Result<FaultKind, ProfileError> {
    let network = network(section, cluster)?;
    let from = section.choice("from", &OTHERS)?.unwrap_or_default();
    let ways = [("both", Way::Both), ("out", Way::Out), ("in", Way::In)];
    let way = section.choice("way", &ways)?.unwrap_or_default();
    let overlay = overlay(section)?;
    if overlay == Overlay::default() {
        let message = "says nothing of the links; give one of delay_ms, jitter_ms, loss_percent, \
                       loss_bursts, duplicate_percent, reorder_percent, corrupt_percent, \
                       rate_mbit_per_second";
        return Err(section.error(message.into()));
    }
    let hosts = network.layout.hosts();
    let between = hosts.iter().flat_map(|a| hosts.iter().map(move |b| (&a.name, &b.name)));
    let links: Vec<Conditions> = between
        .filter(|(a, b)| a != b && (from.has(a) || from.has(b)))
        .map(|(from, to)| conditions(network, from, to))
        .collect();
    check_over(&overlay, links.iter().copied()).map_err(|error| {
        section.error(format!("is refused over the network `{}`: {error}", network.name))
    })?;
    let hides_order = |link: &Conditions| {
        let under = overlay.over(*link);
        let loses = under.loss != Loss::None || under.corrupt > Share::default();
        under.reorder != link.reorder && loses
    };
    if links.iter().any(hides_order) {
        let message = "changes links that also lose or spoil packets: what comes after such a one is \
                       out of order, too, and nobody could tell; make them two faults";
        return Err(section.error_at("reorder_percent", message.into()));
    }
    Ok(FaultKind::Link(LinkPlan { overlay, from, way, heal_after: heal_after(section)? }))
}

fn conditions(network: &NetworkPlan, from: &str, to: &str) -> Conditions {
    let mut found = network.conditions.iter().filter(|(way, _)| way.from == from && way.to == to);
    found.next().map(|(_, conditions)| *conditions).unwrap_or_default()
}

fn network<'a>(
    section: &Section<'_>,
    cluster: &'a ClusterPlan,
) -> Result<&'a NetworkPlan, ProfileError> {
    cluster.network.as_ref().ok_or_else(|| {
        let known = super::embedded::Shelf::Networks.names();
        let message = format!(
            "needs links between the nodes, and over loopback there are none; give the cluster a \
             network, as in cluster.network = \"same-az\" (there are: {})",
            known.join(", ")
        );
        section.error_at("kind", message)
    })
}

fn heal_after(section: &Section<'_>) -> Result<Duration, ProfileError> {
    let missing = || section.missing("heal_after_s", "how long the fault holds, in seconds");
    section.seconds("heal_after_s", false)?.ok_or_else(missing)
}

fn flap(section: &Section<'_>, holds: Duration) -> Result<Option<Flap>, ProfileError> {
    let times = (section.seconds("flap_down_s", false)?, section.seconds("flap_up_s", false)?);
    let flap = match times {
        (None, None) => return Ok(None),
        (Some(down), Some(up)) => Flap { down, up },
        (Some(_), None) => return Err(section.missing("flap_up_s", "how long the links are up")),
        (None, Some(_)) => return Err(section.missing("flap_down_s", "how long they are down")),
    };
    if flap.down < LEAST_DOWN {
        let message = format!(
            "is {} s, too short to see that nothing arrives; at least {} s",
            flap.down.as_secs_f64(),
            LEAST_DOWN.as_secs_f64()
        );
        return Err(section.error_at("flap_down_s", message));
    }
    if 3 * (flap.down + flap.up) > holds {
        let message = format!(
            "is {} s, in which the links would not go down and up three times; lengthen it, or shorten \
             flap_down_s and flap_up_s",
            holds.as_secs_f64()
        );
        return Err(section.error_at("heal_after_s", message));
    }
    Ok(Some(flap))
}
