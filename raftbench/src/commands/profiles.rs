//! `raftbench profiles`: the embedded profiles, and the networks and disks that they name.

use std::process::ExitCode;

use super::show;
use crate::profile::embedded::Shelf;

/// What is on which shelf, and how its names are told from a profile's.
const SHELVES: [(&str, Shelf); 3] =
    [("networks/", Shelf::Networks), ("disks/", Shelf::Disks), ("", Shelf::Profiles)];

/// Arguments of `profiles`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this one, ready to be saved and changed (a network as networks/NAME, a disk as
    /// disks/NAME)
    name: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.name else {
        show(&list())?;
        return Ok(ExitCode::SUCCESS);
    };
    let found =
        SHELVES.iter().find_map(|(prefix, shelf)| Some((*shelf, name.strip_prefix(prefix)?)));
    let (shelf, name) = found.unwrap_or((Shelf::Profiles, name));
    show(shelf.text(name)?)?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    let on = |shelf: Shelf, prefix: &'static str| {
        let entry = move |name| (format!("{prefix}{name}"), shelf.description(name));
        shelf.names().into_iter().map(entry)
    };
    let entries: Vec<_> =
        SHELVES.iter().rev().flat_map(|(prefix, shelf)| on(*shelf, prefix)).collect();
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries.iter().map(|(name, what)| format!("{name:width$}  {what}\n")).collect()
}
