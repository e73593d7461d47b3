//! Hands leadership to another member, as an operator does before maintenance.
//!
//! Invariant: it counts only where the cluster itself says afterwards that the member leads, in a
//! later term; the answer to the request proves nothing. Nothing is left to undo.

use std::time::Instant;

use anyhow::{Context, bail};
use loadgen::target::admin;

use super::faults::{Stage, VERIFY_AT_LEAST};
use super::status::View;
use crate::evidence::FaultRecord;

/// How long the request may take: an election timeout, and what a busy machine adds.
const CALL_PATIENCE: std::time::Duration = VERIFY_AT_LEAST;

/// Asks the leader of `view` to hand over to the record's victim, and looks until it has.
pub(super) async fn hand_over(
    stage: &Stage,
    view: &View,
    record: &mut FaultRecord,
) -> anyhow::Result<()> {
    let [successor] = record.victims.as_slice() else { bail!("one member is to lead next") };
    let leader = view.leader().context("no node led when it began")?;
    if leader.node == *successor {
        bail!("{successor} led already");
    }
    let to = view.of(successor).with_context(|| format!("{successor} gave no status"))?.member_id;
    let node = stage.cluster.nodes().iter().find(|node| node.name == leader.node);
    let client = &node.with_context(|| format!("{} has no address", leader.node))?.client;
    let channel = admin::channel(client, CALL_PATIENCE).await?;

    let asked = Instant::now();
    record.injected_ns = stage.clock.now_ns();
    let answered = match chaos::does_nothing() {
        true => Ok(()),
        false => admin::move_leader(channel, client, to).await,
    };
    let took_ms = asked.elapsed().as_secs_f64() * 1e3;
    if let Err(error) = answered {
        // Whoever leads next was then elected by the others, not handed over to.
        bail!("{} refused after {took_ms:.1} ms: {error}", leader.node);
    }
    let answered = format!("{} answered after {took_ms:.1} ms", leader.node);

    let term = leader.status.term;
    loop {
        let now = stage.cluster.view(&stage.clock).await;
        let after_ms = asked.elapsed().as_secs_f64() * 1e3;
        if let Some(next) = now.leader()
            && next.node == *successor
            && next.status.term > term
        {
            let in_term = next.status.term;
            record.effective = true;
            record.proof = format!(
                "{answered}; {successor} led in term {in_term} (before: {} in term {term}), seen \
                 {after_ms:.1} ms after",
                leader.node
            );
            return Ok(());
        }
        if asked.elapsed() >= VERIFY_AT_LEAST {
            let leads = now.leader().map_or("nobody led".to_owned(), |next| {
                format!("{} led in term {}", next.node, next.status.term)
            });
            bail!("{answered}; {leads} {after_ms:.0} ms after, not {successor}");
        }
    }
}
