//! Faults of links: from what a plan says and who its victims are to the links that are struck.

use anyhow::Context;
use chaos::{Cut, Fault, Impair, Scene, Victim};

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

/// Worse links on behalf of `victims`.
pub(super) fn impair(
    own: &Own,
    plan: &LinkPlan,
    victims: Vec<Victim>,
) -> anyhow::Result<Box<dyn Fault>> {
    let links = plan.directions(&hosts(own)?, &names(&victims));
    Ok(Box::new(Impair::of(scene(own, victims, links, plan.heal_after)?, plan.overlay)))
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

fn hosts(own: &Own) -> anyhow::Result<Vec<String>> {
    let lab = own.lab().context("there is no lab, and so no links")?;
    Ok(lab.network().hosts().to_vec())
}

fn names(victims: &[Victim]) -> Vec<String> {
    victims.iter().map(|victim| victim.name().to_owned()).collect()
}
