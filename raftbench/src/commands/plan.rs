//! `raftbench plan`: the resolved timeline. Touches nothing.

use std::process::ExitCode;

use super::resolve::ProfileArgs;
use super::show;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    show(&args.profile.plan()?.to_string())?;
    Ok(ExitCode::SUCCESS)
}
