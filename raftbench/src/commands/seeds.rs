//! `raftbench soak --seeds`: whole runs of one profile, each with a seed of its own, one after the other;
//! goes on where it stopped.
//!
//! Invariant: a seed is done when its folder has a summary. What a run that was broken off left in its
//! folder is removed, and the run is made again.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use tabled::builder::Builder;
use tabled::settings::Style;

use super::resolve::ProfileArgs;
use super::{EXIT_USAGE, say, show};
use crate::folder::RunFolder;
use crate::judge::summary::{CheckVerdict, Summary, Verdict};
use crate::keeper::{Keeper, MARK};

/// The first seed, unless the command line gives another.
const FIRST: u64 = 1;

/// Makes the runs that are not there yet, and shows all.
pub(super) fn run(profile: &ProfileArgs, count: u64, out: &Path) -> anyhow::Result<ExitCode> {
    let plan = profile.plan()?;
    let (name, target) = (&plan.profile, plan.cluster.target.name());
    let first = profile.seed().unwrap_or(FIRST);
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let keeper = Keeper::start()?;
    let mut summaries = Vec::new();
    for seed in first..first.saturating_add(count) {
        let folder = out.join(seed.to_string());
        if RunFolder::open(&folder).is_err() {
            remove_what_broke_off(&folder)?;
            one(profile, seed, &folder, &keeper)?;
        }
        let summary = RunFolder::open(&folder)?.summary()?;
        if (summary.seed, &summary.profile, &*summary.target) != (seed, name, target) {
            let Summary { profile, target, seed, .. } = &summary;
            let path = folder.display();
            bail!("{path} is a run of {profile} on {target} with seed {seed}; give another --out");
        }
        say(&format!("seed {seed}: {}", in_words(&summary)));
        summaries.push(summary);
    }
    show(&(table(&summaries) + "\n"))?;
    Ok(ExitCode::from(verdict(&summaries)))
}

/// A process of its own: a lab is entered once in a process's life.
fn one(profile: &ProfileArgs, seed: u64, folder: &Path, keeper: &Keeper) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut run = Command::new(program);
    run.arg("run").args(profile.words()).args(["--seed", &seed.to_string(), "--out"]).arg(folder);
    let run = run.env(MARK, keeper.mark()).stdin(Stdio::null()).stdout(Stdio::null());
    let status = run.status().context("cannot start the run")?;
    match status.code() {
        Some(code) if code != i32::from(EXIT_USAGE) => Ok(()),
        _ => bail!("the run with seed {seed} broke off ({status}); the same command goes on"),
    }
}

/// A folder without a summary, but with what a run makes first.
fn remove_what_broke_off(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    if !RunFolder::at(folder).logs().is_dir() {
        bail!("{} is there and is no run folder; give another --out", folder.display());
    }
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// In the order of a run's verdict: 1 where a check failed, else 4, 1 or 3.
fn verdict(summaries: &[Summary]) -> u8 {
    let any = |verdict| summaries.iter().any(|summary| summary.verdict == verdict);
    let is_wrong = |summary: &Summary| {
        [summary.checks.audit, summary.checks.linearizable].contains(&CheckVerdict::Fail)
    };
    match () {
        () if summaries.iter().any(is_wrong) => 1,
        () if any(Verdict::Invalid) => 4,
        () if any(Verdict::Fail) => 1,
        () if any(Verdict::Inconclusive) => 3,
        () => 0,
    }
}

fn in_words(summary: &Summary) -> String {
    let reason = summary.reasons.first().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{reason}", verdict_in_words(summary.verdict))
}

fn verdict_in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Invalid => "invalid",
    }
}

fn check_in_words(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Pass => "pass",
        CheckVerdict::Fail => "FAIL",
        CheckVerdict::Undecided => "undecided",
        CheckVerdict::Skipped => "skipped",
    }
}

fn table(summaries: &[Summary]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "seed",
        "verdict",
        "linearizable",
        "faults",
        "bit",
        "acknowledged",
        "lost",
        "longest outage",
    ]);
    for summary in summaries {
        let lost = summary.checks.lost_writes;
        table.push_record([
            summary.seed.to_string(),
            verdict_in_words(summary.verdict).to_owned(),
            check_in_words(summary.checks.linearizable).to_owned(),
            summary.faults.len().to_string(),
            bit(summary).to_string(),
            summary.checks.acked_writes.to_string(),
            lost.map_or("not known".into(), |lost| lost.to_string()),
            format!("{:.0} ms", summary.stability.longest_outage_ms),
        ]);
    }
    let count = |of: &dyn Fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    let linearizable = |s: &Summary| u64::from(s.checks.linearizable == CheckVerdict::Pass);
    let passed = |s: &Summary| u64::from(s.verdict == Verdict::Pass);
    format!(
        "{}\n{} runs: {} passed, {} linearizable; {} of {} faults bit; {} writes acknowledged, {} \
         known to be lost",
        table.build().with(Style::rounded()),
        summaries.len(),
        count(&passed),
        count(&linearizable),
        count(&bit),
        count(&|s| s.faults.len() as u64),
        count(&|s| s.checks.acked_writes),
        count(&|s| s.checks.lost_writes.unwrap_or(0)),
    )
}

fn bit(summary: &Summary) -> u64 {
    summary.faults.iter().filter(|fault| fault.effective).count() as u64
}
