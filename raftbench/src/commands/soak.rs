//! `raftbench soak`: kill -9 of random nodes under load, for as many rounds as asked; goes on
//! where it stopped. With `--seeds`, whole runs instead (`seeds`).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use loadgen::audit::AuditVerdict;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::resolve::ProfileArgs;
use super::{progress, say, seeds, show};
use crate::conductor::Interrupted;
use crate::conductor::lab::run_inside;
use crate::conductor::soak::{Round, Rounds, soak};
use crate::folder::RunFolder;

/// The file of all rounds, in the folder of `--out`.
const ROUNDS: &str = "rounds.jsonl";

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
    /// How many rounds there shall be in the end, with those that were done before
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(required_unless_present = "seeds", conflicts_with = "seeds")]
    rounds: Option<u64>,
    /// Instead: so many whole runs of the profile with all its faults, each with the next seed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: Option<u64>,
    /// Holds rounds.jsonl, or a run folder for each seed; the same command goes on where it stopped
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rounds from one audit to the next
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    audit_every: u64,
    /// Seconds from one kill to the next
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    round_s: u64,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(count) = args.seeds {
        return seeds::run(&args.profile, count, &args.out);
    }
    // One of the two is there.
    let last = args.rounds.unwrap_or_default();
    let mut plan = args.profile.plan()?;
    if let Some(network) = &plan.cluster.network
        && let Some(code) = run_inside(network, plan.cluster.disk.is_some())?
    {
        return Ok(code);
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut journal = RoundsFile::open(&args.out.join(ROUNDS))?;
    if let Some(first) = journal.rounds.first() {
        // One soak has one seed, whoever continues it.
        plan.seed = first.seed;
    }
    let next = journal.rounds.last().map_or(1, |round| round.round + 1);
    if journal.rounds.iter().all(Round::is_sound) && next <= last {
        let rounds = Rounds {
            first: next,
            last,
            per_batch: args.audit_every,
            period: Duration::from_secs(args.round_s),
        };
        let folder = RunFolder::create(&fresh(&args.out)?)?;
        let progress = progress::start(&plan);
        let watch = progress.watch();
        let soaked = soak(&plan, rounds, &folder, &watch, &mut |batch| journal.append(batch));
        progress.finish();
        match soaked {
            Ok(()) => {}
            Err(error) if error.is::<Interrupted>() => say(&format!("{error:#}")),
            Err(error) if folder.discard_unless_logged() => {
                if journal.rounds.is_empty() {
                    discard_empty(&args.out);
                }
                return Err(error);
            }
            Err(error) => {
                let logs = folder.logs().display().to_string();
                return Err(error.context(format!("the soak broke off; logs are in {logs}")));
            }
        }
        if journal.rounds.iter().all(Round::is_sound) {
            folder.remove_data()?;
        }
    }
    show(&(summary(&journal.rounds) + "\n"))?;
    Ok(ExitCode::from(verdict(&journal.rounds, last)))
}

/// In the order of a run's verdict: 1 where something was lost, else 4 where a kill did not bite, else
/// 1 where something did not come back, else 3 where rounds are missing.
fn verdict(rounds: &[Round], wanted: u64) -> u8 {
    if rounds.iter().any(|round| round.audit != AuditVerdict::Pass) {
        1
    } else if rounds.iter().any(|round| !round.effective) {
        4
    } else if rounds.iter().any(|round| !round.problems.is_empty()) {
        1
    } else if (rounds.len() as u64) < wanted {
        3
    } else {
        0
    }
}

/// A folder for this sitting: 1, 2, ...
fn fresh(out: &Path) -> anyhow::Result<PathBuf> {
    let free = (1..10_000).map(|number| out.join(number.to_string())).find(|path| !path.exists());
    free.with_context(|| format!("no free folder in {}", out.display()))
}

/// Removes the folder of a soak in which no round was ever done, unless something else lies there.
fn discard_empty(out: &Path) {
    std::fs::remove_file(out.join(ROUNDS)).ok();
    std::fs::remove_dir(out).ok();
}

/// The rounds on disk: whole batches, synced.
struct RoundsFile {
    file: File,
    rounds: Vec<Round>,
}

impl RoundsFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot read {}", path.display());
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).read(true).append(true).open(path).with_context(context)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(context)?;
        let (mut rounds, mut whole) = (Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            match serde_json::from_str(line) {
                Ok(round) if line.ends_with('\n') => rounds.push(round),
                // Cut off while it was written: its round is done again.
                _ if whole + line.len() == text.len() => break,
                Ok(_) => break,
                Err(error) => bail!("{}, line {}: {error}", path.display(), rounds.len() + 1),
            }
            whole += line.len();
        }
        file.set_len(whole as u64).with_context(context)?;
        Ok(Self { file, rounds })
    }

    fn append(&mut self, batch: Vec<Round>) -> anyhow::Result<()> {
        let mut text = String::new();
        for round in &batch {
            text.push_str(&serde_json::to_string(round)?);
            text.push('\n');
        }
        self.file.write_all(text.as_bytes()).context("cannot write rounds.jsonl")?;
        self.file.sync_data().context("cannot sync rounds.jsonl")?;
        self.rounds.extend(batch);
        Ok(())
    }
}

fn summary(rounds: &[Round]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "target",
        "rounds",
        "bit",
        "nodes killed",
        "all back",
        "slowest to catch up",
    ]);
    for target in ["one", "minority", "majority", "all"] {
        let of: Vec<_> = rounds.iter().filter(|round| round.target == target).collect();
        table.push_record(line(target, &of));
    }
    table.push_record(line("together", &rounds.iter().collect::<Vec<_>>()));
    let table = table.build().with(Style::rounded()).to_string();
    // The audit's figures are a batch's; each batch counts once.
    let batches: Vec<&Round> = rounds.iter().filter(|r| r.round == r.audited_rounds.0).collect();
    let sum = |figure: fn(&Round) -> u64| batches.iter().map(|round| figure(round)).sum::<u64>();
    let mut text = format!(
        "{table}\n{} audits; {} writes acknowledged, {} unknown, {} lost",
        batches.len(),
        sum(|round| round.acked_writes),
        sum(|round| round.unknown_writes),
        sum(|round| round.lost_writes)
    );
    for round in rounds.iter().filter(|round| !round.effective) {
        text += &format!("\nround {} did not bite: {}", round.round, round.proof);
    }
    let mut problems: Vec<_> = rounds.iter().flat_map(|round| &round.problems).collect();
    problems.dedup();
    problems.iter().for_each(|problem| text += &format!("\n{problem}"));
    text
}

fn line(target: &str, rounds: &[&Round]) -> [String; 6] {
    let slowest_ms = rounds.iter().filter_map(|round| round.recovery_ms).reduce(f64::max);
    [
        target.to_owned(),
        rounds.len().to_string(),
        rounds.iter().filter(|round| round.effective).count().to_string(),
        rounds.iter().map(|round| round.victims.len()).sum::<usize>().to_string(),
        rounds.iter().filter(|round| round.recovery_ms.is_some()).count().to_string(),
        slowest_ms.map_or("-".into(), |ms| format!("{ms:.0} ms")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(effective: bool, audit: AuditVerdict, problems: &[&str]) -> Round {
        Round {
            round: 1,
            seed: 7,
            target: "one".into(),
            victims: vec!["n1".into()],
            effective,
            proof: String::new(),
            down_ms: None,
            recovery_ms: None,
            audited_rounds: (1, 1),
            audit,
            acked_writes: 1,
            unknown_writes: 0,
            lost_writes: 0,
            problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
        }
    }

    #[test]
    fn every_exit_code_has_its_cause() {
        let sound = || round(true, AuditVerdict::Pass, &[]);
        // A node that was not killed cannot be started again either, which is told as well.
        let missed = || round(false, AuditVerdict::Pass, &["n1 still runs"]);
        let late = || round(true, AuditVerdict::Pass, &["n1 did not catch up"]);
        let lost = || round(true, AuditVerdict::Fail, &["a write is lost"]);
        assert_eq!(verdict(&[sound(), sound()], 2), 0);
        assert_eq!(verdict(&[sound()], 2), 3);
        assert_eq!(verdict(&[sound(), late()], 2), 1);
        assert_eq!(verdict(&[late(), missed()], 2), 4);
        assert_eq!(verdict(&[missed(), lost()], 2), 1);
    }
}
