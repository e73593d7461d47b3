//! `raftbench report`: shows a run folder again.

use std::path::PathBuf;
use std::process::ExitCode;

use super::show;
use crate::folder::RunFolder;
use crate::report::{Format, report};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder
    run: PathBuf,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    show(&report(&RunFolder::open(&args.run)?, args.format)?)?;
    Ok(ExitCode::SUCCESS)
}
