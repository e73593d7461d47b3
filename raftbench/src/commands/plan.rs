//! `raftbench plan`: the resolved timeline. Touches nothing.

use std::process::ExitCode;

use super::resolve::ProfileArgs;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    print!("{}", args.profile.plan()?);
    Ok(ExitCode::SUCCESS)
}
