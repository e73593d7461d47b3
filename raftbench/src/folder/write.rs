//! Writes what came of a run, one function for each file.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::Context;
use loadgen::intervals::{INTERVAL_NS, intervals};
use loadgen::latency_log::write_latency_log;
use loadgen::to_history::operations;
use serde::Serialize;

use super::leadership::Leadership;
use super::manifest::manifest;
use super::{HISTORY, RunFolder, SUMMARY, VIOLATION};
use crate::evidence::Observed;
use crate::judge::summary::Summary;
use crate::plan::Plan;

impl RunFolder {
    /// Everything but the report, which is made from these files. `arguments` are the command
    /// line's.
    pub fn write(
        &self,
        plan: &Plan,
        observed: &Observed,
        summary: &Summary,
        arguments: &[String],
    ) -> anyhow::Result<()> {
        let manifest = toml::to_string(&manifest(plan, observed, arguments))
            .context("cannot express the manifest as TOML")?;
        self.write_file("manifest.toml", |to| Ok(to.write_all(manifest.as_bytes())?))?;
        self.write_file("intervals.csv", |to| write_intervals(to, plan, observed))?;
        self.write_file("load.hlog", |to| {
            Ok(write_latency_log(to, &plan.load, &observed.load, observed.zero_unix_ns)?)
        })?;
        self.write_file("faults.jsonl", |to| write_lines(to, &observed.faults))?;
        self.write_file("events.jsonl", |to| write_lines(to, &observed.events))?;
        self.write_file("metrics.jsonl", |to| write_lines(to, &observed.samples))?;
        let names = observed.endpoint_names();
        let operations = operations(&observed.load, &plan.load.keys, Some(&names));
        history::write(&self.file(HISTORY), operations)?;
        let check = summary.checks.linearizability.as_ref();
        if let Some(violations) = check.map(|check| &check.violations).filter(|all| !all.is_empty())
        {
            let drawing = history::timeline(violations);
            self.write_file(VIOLATION, |to| Ok(to.write_all(drawing.as_bytes())?))?;
        }
        // Last: a folder with a summary is a whole one.
        self.write_file(SUMMARY, |to| {
            serde_json::to_writer_pretty(&mut *to, summary)?;
            Ok(to.write_all(b"\n")?)
        })
    }

    /// Writes one file of the folder.
    pub fn write_file(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = self.file(name);
        let written = || {
            let mut file = BufWriter::new(File::create(&path)?);
            write(&mut file)?;
            Ok::<(), anyhow::Error>(file.flush()?)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn write_lines(to: &mut impl Write, records: &[impl Serialize]) -> anyhow::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *to, record)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// A row per 100 ms of intended send time; leader and term as known at its end.
fn write_intervals(to: &mut impl Write, plan: &Plan, observed: &Observed) -> anyhow::Result<()> {
    let leadership = Leadership::of(observed);
    writeln!(
        to,
        "start_ms,scheduled,ok,fail,unknown,latency_p50_us,latency_p99_us,latency_max_us,leader,\
         term"
    )?;
    let number = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number}"));
    for row in intervals(&plan.load, &observed.load) {
        let (leader, term) = leadership.at(row.start_ns + INTERVAL_NS);
        writeln!(
            to,
            "{},{},{},{},{},{},{},{},{},{}",
            row.start_ns / 1_000_000,
            row.scheduled,
            row.ok,
            row.fail,
            row.unknown,
            number(row.latency_p50_us),
            number(row.latency_p99_us),
            number(row.latency_max_us),
            leader.unwrap_or_default(),
            term.map_or(String::new(), |term| term.to_string())
        )?;
    }
    Ok(())
}
