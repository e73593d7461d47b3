//! `raftbench chaos agent`: what a real host runs, as root.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use chaos::agent::{Insecure, serve};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent_config;
use crate::commands::show;

/// Arguments of `chaos agent`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its configuration, TOML: where it listens, its TLS files, and the list of what it may touch
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do without TLS, on a loopback address: every user of this host can then break it
    #[arg(long)]
    insecure: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let path = &args.config;
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read --config {}", path.display()))?;
    let config = agent_config::parse(path, &text)?;
    let insecure = if args.insecure { Insecure::OnLoopback } else { Insecure::Refused };
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ends = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    // Whoever reads it may have gone.
    let listening = |address| drop(show(&format!("listens on {address}\n")));
    serve(config, insecure, listening, ends).await?;
    Ok(ExitCode::SUCCESS)
}
