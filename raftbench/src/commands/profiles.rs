//! `raftbench profiles`: the embedded profiles.

use std::process::ExitCode;

use crate::profile::embedded;

/// Arguments of `profiles`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this one, ready to be saved and changed
    name: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.name {
        Some(name) => print!("{}", embedded::text(&name)?),
        None => {
            let width = embedded::names().iter().map(|name| name.len()).max().unwrap_or(0);
            for name in embedded::names() {
                println!("{name:width$}  {}", embedded::description(name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
