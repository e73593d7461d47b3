//! `raftbench chaos inject`: one fault, from its beginning to its end.
//!
//! Exit codes: 0, 1 where it was not seen to bite, 2 where it was refused or its lease was lost.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use api::agent::{HealResponse, Observation};
use chaos::agent::client::Client;
use tokio::signal::unix::{SignalKind, signal};

use super::Whom;
use super::fault::FaultArgs;
use crate::commands::show;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A lease is renewed so often while it runs.
const RENEWALS: u32 = 3;

/// Arguments of `chaos inject`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: Whom,
    /// When nobody renews it, the agent undoes the fault after so long
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    lease_s: f64,
    /// How long it holds; absent: until Ctrl-C
    #[arg(long, value_name = "N")]
    for_s: Option<f64>,
    #[command(subcommand)]
    fault: FaultArgs,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let fault = args.fault.fault();
    ensure!((0.5..=3600.0).contains(&args.lease_s), "--lease-s must be from 0.5 to 3600");
    let ends_in = args.for_s.unwrap_or(86_400.0);
    ensure!((0.0..=86_400.0).contains(&ends_in), "--for-s must be from 0 to 86400");
    // From here on a signal ends the fault, and not the program.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut client = args.whom.connect().await?;
    let offset = client.clock_offset().await?;
    show(&format!(
        "the agent's clock shows {:+.3} ms of ours (within {:.3} ms)\n",
        offset.offset_ns as f64 / 1e6,
        offset.uncertainty.as_secs_f64() * 1e3
    ))?;
    let lease = Duration::from_secs_f64(args.lease_s);
    let injected = client.inject(fault, lease).await?;
    let id = injected.id;
    show(&format!("{id}: in force\n"))?;
    let holding = hold(&mut client, &id, lease);
    let held = tokio::select! {
        held = holding => held,
        () = tokio::time::sleep(Duration::from_secs_f64(ends_in)) => Ok(()),
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
    };
    // Also where a renewal failed: the agent may be there still.
    let healed = client.heal(&id).await;
    held?;
    let HealResponse { observation, undone, .. } = healed?;
    let Observation { bit, seen, figures } = observation.unwrap_or_default();
    let mut text = format!("{id}: {}: {seen}\n", if bit { "bit" } else { "was NOT seen to bite" });
    for figure in figures {
        let told = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        text += &format!("  {}: {} -> {}\n", figure.name, told(figure.before), told(figure.now));
    }
    show(&format!("{text}{id}: undone: {undone}\n"))?;
    Ok(ExitCode::from(u8::from(!bit)))
}

/// Renews the lease and looks at what it does, until that fails.
async fn hold(client: &mut Client, id: &str, lease: Duration) -> anyhow::Result<()> {
    let every = (lease / RENEWALS).min(LOOK_EVERY);
    let mut told = false;
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(every).await;
        if renewed.elapsed() >= lease / RENEWALS {
            client.renew(id, lease).await?;
            renewed = Instant::now();
        }
        let observation = client.observe(id).await?;
        if observation.bit && !told {
            show(&format!("{id}: bites: {}\n", observation.seen))?;
            told = true;
        }
    }
}
