//! What is shown of a run, in every format.
//!
//! Invariant: made from the folder alone, and from nothing that changes: the same folder gives the
//! same bytes.

pub mod check;
mod content;
mod figures;
mod junit;
mod markdown;
mod terminal;

use crate::folder::RunFolder;

pub(crate) use content::{Block, TextTable};
pub(crate) use figures::{count, ms, reading, signed};

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal, up to 100 columns wide.
    Table,
    /// For a page.
    Markdown,
    /// `summary.json` as it stands.
    Json,
    /// For a CI's test report.
    Junit,
}

/// The report of a run.
pub fn report(folder: &RunFolder, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => folder.summary_text()?,
        Format::Table => render(&content::blocks(&folder.summary()?), format),
        Format::Markdown => render(&content::blocks(&folder.summary()?), format),
        Format::Junit => junit::junit(&folder.summary()?),
    })
}

/// Blocks as text: Markdown if asked for, else for a terminal.
pub(crate) fn render(blocks: &[Block], format: Format) -> String {
    match format {
        Format::Markdown => markdown::markdown(blocks),
        _ => terminal::terminal(blocks),
    }
}
