//! `raftbench profiles`: the embedded profiles.

use std::process::ExitCode;

use super::show;
use crate::profile::embedded;

/// Arguments of `profiles`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this one, ready to be saved and changed
    name: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.name {
        Some(name) => show(embedded::text(&name)?)?,
        None => show(&list())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    let names = embedded::names();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let line = |name: &&str| format!("{name:width$}  {}\n", embedded::description(name));
    names.iter().map(line).collect()
}
