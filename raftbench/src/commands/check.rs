//! `raftbench check`: linearizability of a recorded history.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use history::Reader;
use history::linearizability::{CheckProgress, CheckReport, Checker, Limits, Verdict};
use serde::Serialize;

use super::{progress, show};
use crate::folder::{RunFolder, VIOLATION};
use crate::report::check::{Took, check_report};

/// The line on the terminal is renewed once in so many operations.
const OPERATIONS_BETWEEN_WORDS: u64 = 50_000;
/// And so often while keys are checked.
const BETWEEN_WORDS: Duration = Duration::from_millis(250);

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder, or a history: .jsonl, plain or compressed with zstd
    #[arg(value_name = "RUN|HISTORY")]
    history: PathBuf,
    /// What is not decided after so many seconds is undecided
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = seconds)]
    time_limit_s: f64,
    /// Where a failure is drawn [default: violation.svg in the run folder, or HISTORY.violation.svg]
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For a terminal
    Table,
    /// For programs
    Json,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Outcome<'a> {
    history: &'a Path,
    #[serde(flatten)]
    check: &'a CheckReport,
    read_s: f64,
    check_s: f64,
    /// Where the failure is drawn; absent where there is none.
    svg: Option<&'a Path>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (history, default_svg) = files(&args.history)?;
    let limits = Limits { time: Duration::from_secs_f64(args.time_limit_s), ..Limits::default() };
    let (check, took) = checked(&history, &limits)?;
    let svg = (!check.violations.is_empty()).then(|| args.svg.unwrap_or(default_svg));
    let drawn = svg.as_ref().map(|svg| {
        std::fs::write(svg, history::timeline(&check.violations))
            .with_context(|| format!("cannot draw into {}", svg.display()))
    });
    let text = match args.format {
        Format::Json => {
            let svg = svg.as_deref().filter(|_| matches!(drawn, Some(Ok(()))));
            let Took { read_s, check_s } = took;
            let outcome = Outcome { history: &history, check: &check, read_s, check_s, svg };
            serde_json::to_string_pretty(&outcome)? + "\n"
        }
        Format::Table => match (&svg, &drawn) {
            (Some(svg), Some(Ok(()))) => {
                format!("{}\ndrawn in {}\n", check_report(&check, took), svg.display())
            }
            _ => check_report(&check, took),
        },
    };
    show(&text)?;
    // The verdict stands, drawn or not.
    if let Some(Err(error)) = drawn {
        eprintln!("error: {error:#}");
    }
    Ok(ExitCode::from(match check.verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 1,
        Verdict::Undecided => 3,
    }))
}

/// The history, and where a failure is drawn by default.
fn files(given: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    if given.is_dir() {
        let folder = RunFolder::at(given);
        return Ok((folder.history()?, folder.file(VIOLATION)));
    }
    let mut svg = OsString::from(given);
    svg.push(".violation.svg");
    Ok((given.to_owned(), svg.into()))
}

fn checked(history: &Path, limits: &Limits) -> anyhow::Result<(CheckReport, Took)> {
    let line = progress::line("reading");
    let begun = Instant::now();
    let mut checker = Checker::default();
    for (read, number) in Reader::open(history)?.zip(1_u64..) {
        let (at, operation) = read?;
        checker.add(at, &operation);
        if number.is_multiple_of(OPERATIONS_BETWEEN_WORDS) {
            line.says(format!("reading: {number} operations"));
        }
    }
    let read_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let progress = CheckProgress::default();
    let check = thread::scope(|scope| {
        let (end, ended) = channel::<()>();
        let (line, progress) = (&line, &progress);
        scope.spawn(move || {
            while ended.recv_timeout(BETWEEN_WORDS) == Err(RecvTimeoutError::Timeout) {
                let (decided, keys) = progress.keys();
                line.says(match keys {
                    0 => "sorting".to_owned(),
                    _ if decided == keys => "looking for the smallest sets".to_owned(),
                    _ => format!("checking: {decided} of {keys} keys"),
                });
            }
        });
        let check = checker.check(limits, progress);
        drop(end);
        check
    });
    Ok((check, Took { read_s, check_s: begun.elapsed().as_secs_f64() }))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(seconds),
        _ => Err("must be a number of seconds above 0, up to 1000000".to_owned()),
    }
}
