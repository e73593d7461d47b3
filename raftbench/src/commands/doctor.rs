//! `raftbench doctor`: what works on this host, what each missing thing costs, and what earlier
//! runs left behind.
//!
//! Exit codes: 0, and 1 where something was left behind and not removed, or where nothing can run.

use std::path::PathBuf;
use std::process::ExitCode;

use chaos::abilities::{Ability, examine};
use chaos::agent::{LeftBehind, heal, left_behind};
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Style, Width};

use super::show;
use crate::agent_config::STATE_DIR;
use crate::leftovers::{find, run_folders};

/// How wide the table may be.
const COLUMNS: usize = 100;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End and undo what earlier runs left behind
    #[arg(long)]
    heal: bool,
    /// In JSON
    #[arg(long)]
    json: bool,
    /// Where run folders are, in which undo journals are looked for
    #[arg(long, value_name = "DIR", default_value = "results/local")]
    runs: PathBuf,
    /// The state directory of this host's agent, in which its undo journal is
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    agent_state: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    abilities: &'a [Ability],
    left_behind: Vec<String>,
    healed: Vec<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let abilities = examine();
    let left = find(&run_folders(&args.runs))?;
    let (mut healed, mut remains) = (Vec::new(), Vec::new());
    for leftover in &left {
        match args.heal.then(|| leftover.heal()) {
            Some(Ok(done)) => healed.push(format!("{} ({done})", leftover.told())),
            Some(Err(why)) => {
                remains.push(format!("{} (cannot be healed: {why})", leftover.told()))
            }
            None => remains.push(leftover.told()),
        }
    }
    let of_agent = agents(&args, &mut healed, &mut remains)?;
    let can_run = abilities.iter().all(|ability| ability.works || ability.name != "pidfd");
    let text = match args.json {
        true => {
            let told = Told {
                abilities: &abilities,
                left_behind: remains.clone(),
                healed: healed.clone(),
            };
            serde_json::to_string_pretty(&told)? + "\n"
        }
        false => page(&abilities, left.len() + of_agent, &healed, &remains),
    };
    show(&text)?;
    Ok(ExitCode::from(u8::from(!remains.is_empty() || !can_run)))
}

/// What an agent left behind, of which there is none now; how many that is.
fn agents(
    args: &Args,
    healed: &mut Vec<String>,
    remains: &mut Vec<String>,
) -> anyhow::Result<usize> {
    let told = |left: &LeftBehind| format!("fault {} of an agent: {}", left.fault, left.told);
    if !args.heal {
        let left = left_behind(&args.agent_state)?;
        remains.extend(left.iter().map(told));
        return Ok(left.len());
    }
    let undone = heal(&args.agent_state)?;
    for (left, result) in &undone {
        match result {
            Ok(done) => healed.push(format!("{} ({done})", told(left))),
            Err(why) => remains.push(format!("{} (cannot be healed: {why})", told(left))),
        }
    }
    Ok(undone.len())
}

fn page(abilities: &[Ability], left: usize, healed: &[String], remains: &[String]) -> String {
    let mut rows = Builder::default();
    rows.push_record(["", "works", "seen", "serves"]);
    for ability in abilities {
        let works = if ability.works { "yes" } else { "NO" };
        rows.push_record([&*ability.name, works, &*ability.seen, &*ability.serves]);
    }
    let mut table = rows.build();
    table
        .with(Style::rounded())
        .with(Width::wrap(COLUMNS).keep_words(true).priority(Priority::max(true)));
    let mut text = format!("{table}\n");
    if left == 0 {
        text += "nothing was left behind by earlier runs\n";
    }
    for line in healed {
        text += &format!("healed: {line}\n");
    }
    for line in remains {
        text += &format!("left behind: {line}\n");
    }
    if !remains.is_empty() {
        text += "`raftbench doctor --heal` ends and undoes what was left behind\n";
    }
    text
}
