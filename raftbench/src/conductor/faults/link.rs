//! Faults of links: from what a plan says and who its victims are to the links that are struck.

use std::time::Instant;

use anyhow::Context;
use chaos::{BASELINE, Baseline, Cut, Fault, Impair, Scene, Victim};

use super::super::cluster::Own;
use crate::plan::{LinkPlan, PartitionPlan};

/// A partition on behalf of `victims`.
pub(super) fn cut(
    own: &Own,
    plan: &PartitionPlan,
    victims: Vec<Victim>,
) -> anyhow::Result<Box<dyn Fault>> {
    let cuts = plan.cuts(&hosts(own)?, &names(&victims))?;
    Ok(Box::new(Cut::of(scene(own, victims, cuts, plan.heal_after)?, plan.flap)))
}

/// Worse links on behalf of `victims`; `baseline` is what the hosts measured before.
pub(super) fn impair(
    own: &Own,
    plan: &LinkPlan,
    victims: Vec<Victim>,
    baseline: Option<Baseline>,
) -> anyhow::Result<Box<dyn Fault>> {
    let links = plan.directions(&hosts(own)?, &names(&victims));
    let scene = scene(own, victims, links, plan.heal_after)?.with_baseline(baseline);
    Ok(Box::new(Impair::of(scene, plan.overlay)))
}

fn scene(
    own: &Own,
    victims: Vec<Victim>,
    directions: std::collections::BTreeSet<chaos::lab::links::Direction>,
    holds: std::time::Duration,
) -> anyhow::Result<Scene> {
    let lab = own.lab().context("there is no lab, and so no links")?;
    let scene = Scene::of(victims, lab.lab().clone(), lab.shared_network(), directions, holds);
    scene.context("there is nobody whose links to strike")
}

/// Looks at the hosts until `until`, when a fault of their links begins.
pub(super) fn baseline(own: &Own, until: Instant) -> anyhow::Result<Baseline> {
    let lab = own.lab().context("there is no lab, and so no links")?;
    std::thread::sleep(until.saturating_duration_since(Instant::now() + BASELINE));
    let mut baseline = Baseline::open(lab.lab(), lab.shared_network())?;
    baseline.watch(until)?;
    Ok(baseline)
}

fn hosts(own: &Own) -> anyhow::Result<Vec<String>> {
    let lab = own.lab().context("there is no lab, and so no links")?;
    Ok(lab.network().hosts().to_vec())
}

fn names(victims: &[Victim]) -> Vec<String> {
    victims.iter().map(|victim| victim.name().to_owned()).collect()
}
