//! `raftbench run`: one run, from profile to verdict.

use std::path::PathBuf;
use std::process::ExitCode;

use super::progress;
use super::resolve::ProfileArgs;
use super::show;
use crate::conductor;
use crate::folder::RunFolder;
use crate::judge::judge;
use crate::judge::summary::{CheckVerdict, Verdict};
use crate::report::{Format, report};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Where the run folder is made [default: results/local/<time>-<profile>-<target>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let plan = args.profile.plan()?;
    if let Some(network) = &plan.cluster.network
        && let Some(code) = conductor::lab::run_inside(network, plan.cluster.disk.is_some())?
    {
        return Ok(code);
    }
    let path = args
        .out
        .unwrap_or_else(|| RunFolder::default_path(&plan.profile, plan.cluster.target.name()));
    let folder = RunFolder::create(&path)?;
    let progress = progress::start(&plan);
    let observed = conductor::run(&plan, &folder, &progress.watch());
    progress.finish();
    let observed = match observed {
        Ok(observed) => observed,
        Err(error) if folder.discard_unless_logged() => return Err(error),
        Err(error) => {
            let logs = folder.logs();
            return Err(error.context(format!("the run broke off; logs are in {}", logs.display())));
        }
    };
    let judging = progress::line("judging the run");
    let summary = judge(&plan, &observed);
    drop(judging);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    folder.write(&plan, &observed, &summary, &arguments)?;
    let page = report(&folder, Format::Markdown)?;
    folder.write_file("report.md", |to| Ok(std::io::Write::write_all(to, page.as_bytes())?))?;
    let table = report(&folder, Format::Table)?;
    let mut text = format!("{table}\nrun folder: {}\n", folder.path().display());
    let checks = [summary.checks.audit, summary.checks.linearizable];
    if observed.problems.is_empty() && !checks.contains(&CheckVerdict::Fail) {
        folder.remove_data()?;
    } else {
        text += &format!("the nodes' data is kept in {}\n", folder.data().display());
    }
    show(&text)?;
    Ok(ExitCode::from(match summary.verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 1,
        Verdict::Inconclusive => 3,
        Verdict::Invalid => 4,
    }))
}
