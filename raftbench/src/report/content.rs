//! What a report says, in which order, whatever its format: the verdict and its reasons, the
//! dashboard, latency, faults, checks, and what each node used.

use super::check;
use super::figures::{bytes, count, ms, reading, seconds, us};
use crate::evidence::HostDisk;
use crate::folder::VIOLATION;
use crate::judge::summary::{
    CheckVerdict, Fault, FaultSeries, ScopeName, Spread, Summary, Threshold, ThresholdVerdict,
    Verdict,
};

/// A piece of a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// The verdict's line.
    Headline(String),
    /// Opens a part.
    Title(String),
    /// A paragraph of one sentence or two.
    Line(String),
    /// One of a list.
    Item(String),
    /// Rows under a header.
    Table(TextTable),
}

/// Rows under a header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextTable {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(crate) fn new(header: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { header: header.iter().map(|text| (*text).to_owned()).collect(), rows }
    }
}

/// The whole report.
pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !summary.unsafe_settings.is_empty() {
        let settings = summary.unsafe_settings.join(", ");
        blocks.push(Block::Headline(format!("UNSAFE: {settings}")));
    }
    verdict(summary, &mut blocks);
    thresholds(summary, &mut blocks);
    latency(summary, &mut blocks);
    write_steps(summary, &mut blocks);
    network(summary, &mut blocks);
    disk(summary, &mut blocks);
    faults(summary, &mut blocks);
    checks(summary, &mut blocks);
    resources(summary, &mut blocks);
    blocks
}

fn verdict(summary: &Summary, blocks: &mut Vec<Block>) {
    let verdict = match summary.verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::Invalid => "INVALID",
    };
    let reason = summary.reasons.first().map_or("no reason was given", String::as_str);
    blocks.push(Block::Headline(format!("{verdict}: {reason}")));
    blocks.extend(summary.reasons.iter().skip(1).map(|reason| Block::Item(reason.clone())));
    blocks.extend(summary.warnings.iter().map(|warning| Block::Item(format!("note: {warning}"))));
    blocks.push(Block::Line(format!(
        "{} on {} ({}) by {}, {} nodes, seed {}",
        summary.profile,
        summary.target,
        summary.target_version,
        summary.api,
        summary.nodes,
        summary.seed
    )));
    if !summary.description.is_empty() {
        blocks.push(Block::Line(summary.description.clone()));
    }
}

fn thresholds(summary: &Summary, blocks: &mut Vec<Block>) {
    let of = |scope: ScopeName, metric: &str| {
        summary.thresholds.iter().find(|row| row.scope == scope && row.metric == metric)
    };
    let outside: Vec<&Threshold> =
        summary.thresholds.iter().filter(|row| row.scope == ScopeName::OutsideFaults).collect();
    let rows = outside.iter().map(|row| {
        let whole = of(ScopeName::WholeRun, &row.metric);
        vec![
            row.metric.clone(),
            row.unit.clone(),
            format!("{}", row.limit),
            observed(row),
            word(row.verdict).to_owned(),
            whole.map_or("-".to_owned(), observed),
            whole.map_or("-", |whole| word(whole.verdict)).to_owned(),
        ]
    });
    let header = ["threshold", "unit", "limit", "outside faults", "", "whole run", ""];
    blocks.push(Block::Title("Dashboard".into()));
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
    if !summary.faults.is_empty() {
        let note = "the verdict rests on what was outside fault windows, and on [expect]";
        blocks.push(Block::Item(note.into()));
    }
    let told = |row: &&Threshold| {
        row.verdict != ThresholdVerdict::Pass || row.meaning.starts_with("upper bound")
    };
    for row in outside.into_iter().filter(told) {
        blocks.push(Block::Item(format!("{}: {}", row.metric, row.meaning)));
    }
    for row in &summary.observations {
        if row.scope == ScopeName::OutsideFaults {
            let seen = reading(row.observed);
            blocks
                .push(Block::Item(format!("{}: {seen} {}: {}", row.metric, row.unit, row.meaning)));
        }
    }
}

fn observed(row: &Threshold) -> String {
    row.observed.map_or("no data".to_owned(), reading)
}

fn word(verdict: ThresholdVerdict) -> &'static str {
    match verdict {
        ThresholdVerdict::Pass => "pass",
        ThresholdVerdict::Fail => "FAIL",
        ThresholdVerdict::NoData => "no data",
    }
}

fn latency(summary: &Summary, blocks: &mut Vec<Block>) {
    let load = &summary.load.figures;
    blocks.push(Block::Title("Load".into()));
    blocks.push(Block::Line(format!(
        "{} arrivals: offered {}/s, achieved {}/s; {} operations due: {} ok, {} failed, {} unknown",
        summary.load.arrivals,
        count(load.offered_per_second),
        count(load.achieved_per_second),
        count(load.scheduled as f64),
        count(load.ok as f64),
        count(load.fail as f64),
        count(load.unknown as f64)
    )));
    let closed = summary.load.hides_stalls;
    let first = match closed {
        false => "all, from intended send",
        true => "all (closed loop: hides stalls)",
    };
    let lines = [
        (first, &load.latency_us),
        ("ok, from intended send", &load.ok_latency_us),
        ("ok, from actual send", &load.service_time_us),
        ("send lag", &load.send_lag_us),
    ];
    let rows =
        lines.iter().filter(|(name, _)| !(closed && name.contains("lag"))).map(|(name, q)| {
            vec![(*name).to_owned(), us(q.p50), us(q.p90), us(q.p99), us(q.p99_9), us(q.max)]
        });
    let header = ["latency in ms", "p50", "p90", "p99", "p99.9", "max"];
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
    if load.ok < load.scheduled {
        let note = "operations that are not ok count as at least their timeout in the first row";
        blocks.push(Block::Item(note.into()));
    }
    let share = summary.load.generator_cpu_share * 100.0;
    blocks.push(Block::Item(format!("the generator used {share:.0} % of one core")));
    for error in &summary.load.errors {
        blocks.push(Block::Item(format!("{} x {}", count(error.count as f64), error.text)));
    }
}

fn write_steps(summary: &Summary, blocks: &mut Vec<Block>) {
    if summary.write_steps.is_empty() {
        return;
    }
    let rows = summary.write_steps.iter().map(|step| {
        let (p50, p99) = (reading(step.p50_ms), reading(step.p99_ms));
        let name = format!("{}: {}", step.step, step.meaning);
        vec![name, p50, p99, count(step.writes as f64)]
    });
    let header = ["on its leader", "p50 ms", "p99 ms", "writes"];
    blocks.push(Block::Title("Where a write's time goes".into()));
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
    let note =
        "log and replicate run side by side; queue, commit, apply and answer follow each other";
    blocks.push(Block::Item(note.into()));
}

fn faults(summary: &Summary, blocks: &mut Vec<Block>) {
    let stability = &summary.stability;
    blocks.push(Block::Title("Service".into()));
    let told = |number: Option<u64>| number.map_or("unknown".to_owned(), |n| count(n as f64));
    blocks.push(Block::Line(format!(
        "longest outage {} ms, unavailable {} ms; leader changes: {}, term growth: {}; late is over \
         {} ms",
        ms(stability.longest_outage_ms),
        ms(stability.unavailable_ms),
        told(stability.leader_changes),
        told(stability.term_growth),
        ms(stability.late_after_ms)
    )));
    if let Some(quiet) = &stability.quiet_gap_ms {
        blocks.push(Block::Item(format!(
            "longest time without a success in each of {} half seconds without a fault: p50 {}, p99 {}, \
             max {} ms",
            count(quiet.count as f64),
            ms(quiet.p50),
            ms(quiet.p99),
            ms(quiet.max)
        )));
    }
    if summary.faults.is_empty() {
        return;
    }
    for series in &summary.fault_series {
        fault_series(series, blocks);
    }
    let optional = |number: Option<f64>| number.map_or("-".to_owned(), ms);
    let shown = shown_faults(summary);
    let rows = shown.iter().map(|fault| {
        vec![
            format!("{} {} {}", fault.id, fault.kind, fault.target),
            seconds(fault.injected_s),
            format!("{}{}", if fault.outage_at_least { ">= " } else { "" }, ms(fault.outage_ms)),
            optional(fault.first_success_ms),
            optional(fault.election_ms),
            optional(fault.longest_gap_ms),
            count(fault.operations_lost as f64),
            window(fault),
        ]
    });
    let header = [
        "fault",
        "at s",
        "outage ms",
        "first ok ms",
        "election ms",
        "longest gap ms",
        "ops lost",
        "whole at s",
    ];
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
    for fault in &shown {
        let bit = if fault.effective { "bit" } else { "did NOT bite" };
        blocks.push(Block::Item(format!("{} {bit}: {}", fault.id, fault.proof)));
    }
    if shown.len() < summary.faults.len() {
        blocks.push(Block::Item(format!(
            "of the faults that repeat often only the longest gaps, and what did not bite, are shown: \
             {} of {}; summary.json has all",
            shown.len(),
            summary.faults.len()
        )));
    }
}

/// A series with more times than this is shown by its worst.
const SHOWN_WHOLE: u64 = 6;
const SHOWN_OF_LONG: usize = 3;

/// The faults that have a line of their own, in their order.
fn shown_faults(summary: &Summary) -> Vec<&Fault> {
    let long = |fault: &Fault| {
        let series = fault.id.split_once('.').map(|(id, _)| id);
        summary.fault_series.iter().any(|s| Some(s.id.as_str()) == series && s.times > SHOWN_WHOLE)
    };
    let mut worst: Vec<&Fault> =
        summary.faults.iter().filter(|fault| long(fault) && fault.effective).collect();
    let gap = |fault: &Fault| fault.longest_gap_ms.unwrap_or(f64::MAX);
    worst.sort_by(|a, b| gap(b).total_cmp(&gap(a)));
    worst.truncate(SHOWN_OF_LONG);
    let shown = |fault: &&Fault| {
        !long(fault) || !fault.effective || worst.iter().any(|other| other.id == fault.id)
    };
    summary.faults.iter().filter(shown).collect()
}

fn fault_series(series: &FaultSeries, blocks: &mut Vec<Block>) {
    let split = series.split_votes.map_or(String::new(), |split| format!(", {split} split votes"));
    blocks.push(Block::Line(format!(
        "{} {} {}: {} times, {} bit; {} operations lost{split}",
        series.id,
        series.kind,
        series.target,
        series.times,
        series.effective,
        count(series.operations_lost as f64)
    )));
    let lines = [
        ("outage", series.outage_ms),
        ("first ok", series.first_success_ms),
        ("election", series.election_ms),
        ("longest gap", series.longest_gap_ms),
    ];
    let rows = lines.iter().filter_map(|(name, spread)| {
        let Spread { count: seen, p50, p90, p99, max } = (*spread)?;
        let number = count(seen as f64);
        Some(vec![(*name).to_owned(), ms(p50), ms(p90), ms(p99), ms(max), number])
    });
    let header = [&format!("{}, ms", series.id), "p50", "p90", "p99", "max", "of"];
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
}

fn window(fault: &Fault) -> String {
    match (fault.recovered_s, fault.healed_s) {
        (Some(recovered_s), _) => seconds(recovered_s),
        (None, Some(_)) => "late".to_owned(),
        (None, None) => "held".to_owned(),
    }
}

fn checks(summary: &Summary, blocks: &mut Vec<Block>) {
    let checks = &summary.checks;
    let word = |verdict: CheckVerdict| match verdict {
        CheckVerdict::Pass => "pass",
        CheckVerdict::Fail => "FAIL",
        CheckVerdict::Undecided => "undecided",
        CheckVerdict::Skipped => "skipped",
    };
    blocks.push(Block::Title("Checks".into()));
    let checked = checks.linearizability.as_ref().map_or(String::new(), |check| {
        format!(
            " ({} operations on {} keys)",
            count(check.operations as f64),
            count(check.keys as f64)
        )
    });
    blocks.push(Block::Line(format!(
        "audit: {} ({} acknowledged writes, {} lost; {} unknown); linearizable: {}{checked}",
        word(checks.audit),
        count(checks.acked_writes as f64),
        checks.lost_writes.map_or("nobody knows how many".into(), |lost| count(lost as f64)),
        count(checks.unknown_writes as f64),
        word(checks.linearizable)
    )));
    blocks.extend(checks.findings.iter().map(|finding| Block::Item(finding.clone())));
    if let Some(check) = &checks.linearizability {
        blocks.extend(check::failures(check));
        if !check.violations.is_empty() {
            blocks.push(Block::Item(format!("drawn in {VIOLATION}")));
        }
    }
}

fn network(summary: &Summary, blocks: &mut Vec<Block>) {
    let Some(network) = &summary.network else { return };
    let rows = network.round_trips.iter().map(|trip| {
        let (asked, measured) = (trip.asked_ms, trip.measured_ms);
        let between = format!("{} - {}", trip.from, trip.to);
        vec![between, format!("{asked:.3}"), format!("{measured:.3}")]
    });
    let header = ["round trip, ms", "asked", "measured"];
    blocks.push(Block::Title(format!("Network: {}, by {}", network.name, network.links)));
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
    blocks.push(Block::Item("measured before the load, as TCP connections were set up".into()));
    blocks.push(Block::Item(network.about.clone()));
}

fn disk(summary: &Summary, blocks: &mut Vec<Block>) {
    let Some(disk) = &summary.disk else { return };
    let row = |who: &str, syncs: String, times: [f64; 5]| {
        let times = times.iter().map(|ms| format!("{ms:.3}"));
        [who.to_owned(), syncs].into_iter().chain(times).collect::<Vec<_>>()
    };
    let asked = &disk.asked;
    let times = [asked.mean_ms, asked.p25_ms, asked.p50_ms, asked.p75_ms, asked.p99_ms];
    let mut rows = vec![row("asked for", "-".into(), times)];
    rows.extend(disk.hosts.iter().map(|host| {
        let times = [host.mean_ms, host.p25_ms, host.p50_ms, host.p75_ms, host.p99_ms];
        row(&host.node, count(host.timed_syncs as f64), times)
    }));
    let header = ["sync, ms", "syncs", "mean", "p25", "p50", "p75", "p99"];
    blocks.push(Block::Title(format!("Disk: {}, emulated, bytes in {}", disk.name, disk.backing)));
    blocks.push(Block::Table(TextTable::new(&header, rows)));
    blocks.push(Block::Item(
        "each node's own syncs, from their turn to their answer, under no fault of the disk".into(),
    ));
    let most = |of: fn(&HostDisk) -> f64| disk.hosts.iter().map(of).fold(0.0, f64::max);
    blocks.push(Block::Item(format!(
        "the emulation adds {:.3} ms to a call, which is taken off its waits; without waits a sync \
         takes {:.3} ms here",
        most(|host| host.transit_ms),
        most(|host| host.floor_sync_ms)
    )));
}

fn resources(summary: &Summary, blocks: &mut Vec<Block>) {
    if summary.resources.is_empty() {
        return;
    }
    let rows = summary.resources.iter().map(|used| {
        vec![
            used.node.clone(),
            format!("{:.2}", used.cpu_seconds),
            bytes(used.rss_bytes),
            bytes(used.written_bytes),
            used.syncs.map_or("-".to_owned(), |syncs| count(syncs as f64)),
        ]
    });
    let header = ["node", "CPU s", "memory, most", "written", "log syncs"];
    blocks.push(Block::Title("Nodes, in the measured phase".into()));
    blocks.push(Block::Table(TextTable::new(&header, rows.collect())));
}
