//! `raftbench profiles`: the embedded profiles, and the networks that they name.

use std::process::ExitCode;

use super::show;
use crate::profile::embedded::Shelf;

/// How a network is told from a profile.
const NETWORKS: &str = "networks/";

/// Arguments of `profiles`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this one, ready to be saved and changed (a network as networks/NAME)
    name: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.name.as_deref().map(|name| (name, name.strip_prefix(NETWORKS))) {
        Some((_, Some(network))) => show(Shelf::Networks.text(network)?)?,
        Some((profile, None)) => show(Shelf::Profiles.text(profile)?)?,
        None => show(&list())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    let on = |shelf: Shelf, prefix: &'static str| {
        let entry = move |name| (format!("{prefix}{name}"), shelf.description(name));
        shelf.names().into_iter().map(entry)
    };
    let entries: Vec<_> = on(Shelf::Profiles, "").chain(on(Shelf::Networks, NETWORKS)).collect();
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries.iter().map(|(name, what)| format!("{name:width$}  {what}\n")).collect()
}
