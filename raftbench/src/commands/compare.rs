//! `raftbench compare`: two run folders side by side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::show;
use crate::compare::{Side, compare};
use crate::folder::RunFolder;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run folder that stands left
    a: PathBuf,
    /// The run folder that stands right
    b: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (a, b) = (side(&args.a)?, side(&args.b)?);
    show(&compare(&a, &b))?;
    Ok(ExitCode::SUCCESS)
}

fn side(path: &Path) -> anyhow::Result<Side> {
    let folder = RunFolder::open(path)?;
    Ok(Side { summary: folder.summary()?, profile: folder.profile()? })
}
