//! `raftbench node`: runs one member of a bench-node cluster, until SIGTERM or a failure.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `node`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    bench_node::run(&args.config)?;
    Ok(ExitCode::SUCCESS)
}
