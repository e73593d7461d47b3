//! Two runs side by side.
//!
//! Invariant: shows differences and draws no conclusion: one run on each side decides nothing.

use toml::Table;

use crate::judge::summary::{ScopeName, Summary, Verdict};
use crate::report::{Block, Format, TextTable, count, ms, reading, render, signed};

/// One side: what the run came to, and its profile as resolved.
pub struct Side {
    /// `summary.json`.
    pub summary: Summary,
    /// `[profile]` of the manifest.
    pub profile: Table,
}

/// The comparison, for a terminal.
pub fn compare(a: &Side, b: &Side) -> String {
    let mut blocks = vec![
        Block::Headline(format!(
            "A: {}  {} on {} ({}), seed {}",
            word(a.summary.verdict),
            a.summary.profile,
            a.summary.target,
            a.summary.target_version,
            a.summary.seed
        )),
        Block::Headline(format!(
            "B: {}  {} on {} ({}), seed {}",
            word(b.summary.verdict),
            b.summary.profile,
            b.summary.target,
            b.summary.target_version,
            b.summary.seed
        )),
    ];
    let changed = changed(&a.profile, &b.profile);
    blocks.push(Block::Title("What was set differently".into()));
    match changed.is_empty() {
        true => blocks.push(Block::Line("nothing: the same profile as resolved".into())),
        false => {
            blocks.push(Block::Table(TextTable::new(&["setting", "A", "B"], changed)));
        }
    }
    blocks.push(Block::Title("What came of it".into()));
    let header = ["", "unit", "A", "B", "B - A", "%"];
    blocks.push(Block::Table(TextTable::new(&header, figures(&a.summary, &b.summary))));
    blocks.push(Block::Line(
        "One run on each side decides nothing: run-to-run noise is not known from it. Repeat both, \
         interleaved, before you conclude."
            .into(),
    ));
    render(&blocks, Format::Table)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Invalid => "invalid",
    }
}

fn figures(a: &Summary, b: &Summary) -> Vec<Vec<String>> {
    let (la, lb) = (&a.load.figures, &b.load.figures);
    let in_ms = |us: f64| us / 1e3;
    let mut rows = vec![
        row("offered", "1/s", la.offered_per_second, lb.offered_per_second, count),
        row("achieved", "1/s", la.achieved_per_second, lb.achieved_per_second, count),
        row("latency p50", "ms", in_ms(la.latency_us.p50), in_ms(lb.latency_us.p50), ms),
        row("latency p90", "ms", in_ms(la.latency_us.p90), in_ms(lb.latency_us.p90), ms),
        row("latency p99", "ms", in_ms(la.latency_us.p99), in_ms(lb.latency_us.p99), ms),
        row("latency p99.9", "ms", in_ms(la.latency_us.p99_9), in_ms(lb.latency_us.p99_9), ms),
        row("latency max", "ms", in_ms(la.latency_us.max), in_ms(lb.latency_us.max), ms),
        row("failed", "ops", la.fail as f64, lb.fail as f64, count),
        row("unknown", "ops", la.unknown as f64, lb.unknown as f64, count),
        row(
            "longest outage",
            "ms",
            a.stability.longest_outage_ms,
            b.stability.longest_outage_ms,
            ms,
        ),
        row("unavailable", "ms", a.stability.unavailable_ms, b.stability.unavailable_ms, ms),
    ];
    let told = |name: &str, of: fn(&Summary) -> Option<u64>| match (of(a), of(b)) {
        (Some(a), Some(b)) => vec![row(name, "", a as f64, b as f64, count)],
        _ => Vec::new(),
    };
    rows.extend(told("leader changes", |summary| summary.stability.leader_changes));
    rows.extend(told("term growth", |summary| summary.stability.term_growth));
    for threshold in a.thresholds.iter().filter(|row| row.scope == ScopeName::OutsideFaults) {
        let other = b
            .thresholds
            .iter()
            .find(|other| other.scope == threshold.scope && other.metric == threshold.metric);
        let text = |row: Option<&crate::judge::summary::Threshold>| {
            let seen = row.and_then(|row| row.observed);
            seen.map_or("no data".to_owned(), reading)
        };
        rows.push(vec![
            threshold.metric.clone(),
            threshold.unit.clone(),
            text(Some(threshold)),
            text(other),
            String::new(),
            String::new(),
        ]);
    }
    for step in &a.write_steps {
        let Some(other) = b.write_steps.iter().find(|other| other.step == step.step) else {
            continue;
        };
        rows.push(vec![
            format!("{} of a write, p99", step.step),
            "ms".into(),
            reading(step.p99_ms),
            reading(other.p99_ms),
            String::new(),
            String::new(),
        ]);
    }
    for series in &a.fault_series {
        let Some(other) = b.fault_series.iter().find(|other| other.id == series.id) else {
            continue;
        };
        let pairs = [
            ("outage", series.outage_ms, other.outage_ms),
            ("election", series.election_ms, other.election_ms),
            ("longest gap", series.longest_gap_ms, other.longest_gap_ms),
        ];
        for (name, a, b) in pairs {
            if let (Some(a), Some(b)) = (a, b) {
                rows.push(row(&format!("{} {name} p50", series.id), "ms", a.p50, b.p50, ms));
                rows.push(row(&format!("{} {name} p99", series.id), "ms", a.p99, b.p99, ms));
            }
        }
    }
    let lost = |summary: &Summary| summary.checks.lost_writes.map_or(f64::NAN, |lost| lost as f64);
    let count_or_unknown =
        |lost: f64| if lost.is_nan() { "not known".to_owned() } else { count(lost) };
    rows.push(row("lost writes", "", lost(a), lost(b), count_or_unknown));
    rows
}

fn row(name: &str, unit: &str, a: f64, b: f64, text: fn(f64) -> String) -> Vec<String> {
    if a.is_nan() || b.is_nan() {
        return vec![name.into(), unit.into(), text(a), text(b), String::new(), String::new()];
    }
    let percent = match a == 0.0 {
        true => String::new(),
        false => signed(format!("{:.1}", (b - a) / a * 100.0)),
    };
    vec![name.into(), unit.into(), text(a), text(b), signed(text(b - a)), percent]
}

/// Settings by path that are not the same.
fn changed(a: &Table, b: &Table) -> Vec<Vec<String>> {
    let (a, b) = (flat("", a), flat("", b));
    let mut paths: Vec<&String> = a.keys().chain(b.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let text = |side: &std::collections::BTreeMap<String, String>, path: &str| {
        side.get(path).cloned().unwrap_or_else(|| "-".into())
    };
    paths
        .into_iter()
        .filter(|path| a.get(*path) != b.get(*path))
        .map(|path| vec![path.clone(), text(&a, path), text(&b, path)])
        .collect()
}

fn flat(path: &str, table: &Table) -> std::collections::BTreeMap<String, String> {
    let mut out = std::collections::BTreeMap::new();
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(inner) => out.extend(flat(&path, inner)),
            toml::Value::Array(values) if values.iter().any(toml::Value::is_table) => {
                for (index, value) in values.iter().enumerate() {
                    if let toml::Value::Table(inner) = value {
                        out.extend(flat(&format!("{path}.f{}", index + 1), inner));
                    }
                }
            }
            other => {
                out.insert(path, other.to_string());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_listed_by_path() {
        let table = |text: &str| text.parse::<Table>().expect("TOML");
        let a = table("[load]\nrate = 1\nsame = 2\n[[faults]]\nkind = 'kill'");
        let b = table("[load]\nrate = 5\nsame = 2\n[[faults]]\nkind = 'pause'\nat = 1");
        let rows = changed(&a, &b);
        let rows: Vec<_> = rows.iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            rows,
            ["faults.f1.at - 1", "faults.f1.kind \"kill\" \"pause\"", "load.rate 1 5"]
        );
    }
}
