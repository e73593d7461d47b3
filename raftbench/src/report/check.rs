//! What a linearizability check says: the verdict, what was checked, and the operations that cannot
//! be ordered.

use history::linearizability::{CheckReport, Verdict, Violation, Witness};
use history::{Kind, Operation, Outcome, shorten};

use super::figures::count;
use super::{Block, Format, TextTable, render};

/// Letters of a value or a node in a table, and of a key.
const LETTERS: usize = 24;
const KEY_LETTERS: usize = 80;

/// How long a check took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// To read the history.
    pub read_s: f64,
    /// To check it.
    pub check_s: f64,
}

/// A check, for a terminal.
pub fn check_report(check: &CheckReport, took: Took) -> String {
    let mut blocks = vec![Block::Headline(headline(check))];
    blocks.push(Block::Line(format!(
        "operations: {} ({} unknown writes); keys: {}; read in {:.2} s, checked in {:.2} s",
        count(check.operations as f64),
        count(check.unknown_writes as f64),
        count(check.keys as f64),
        took.read_s,
        took.check_s
    )));
    let left_out = check.left_out;
    blocks.push(Block::Line(format!(
        "left out: {} that failed, {} serializable gets, {} unknown gets",
        count(left_out.failed as f64),
        count(left_out.serializable_gets as f64),
        count(left_out.unknown_gets as f64)
    )));
    for violation in &check.violations {
        blocks.push(Block::Title(format!("Key {}", shorten(&violation.key, KEY_LETTERS))));
        blocks.push(Block::Line(violation.sentence.clone()));
        blocks.push(Block::Table(operations(violation)));
        let shown = violation.operations.len() as u64;
        if shown < violation.size {
            let size = count(violation.size as f64);
            blocks.push(Block::Item(format!("the last {shown} of {size} operations")));
        }
        blocks.push(Block::Item(match violation.smallest {
            true => "a smallest set: none of these operations can be left out".into(),
            false => "a smaller set was not found in time".into(),
        }));
    }
    blocks.extend(unshown(check));
    render(&blocks, Format::Table)
}

/// What a run's report lists of a check that did not pass.
pub(super) fn failures(check: &CheckReport) -> Vec<Block> {
    let violations = check.violations.iter().map(|violation| Block::Item(violation.to_string()));
    violations.chain(unshown(check)).collect()
}

fn headline(check: &CheckReport) -> String {
    let first = check.violations.first().map_or(String::new(), Violation::to_string);
    match check.verdict {
        Verdict::Pass => "PASS: the history is linearizable".to_owned(),
        Verdict::Fail => format!("FAIL: the history is not linearizable: {first}"),
        Verdict::Undecided => format!("UNDECIDED: {}", check.why_undecided()),
    }
}

/// Keys without a violation of their own in the report.
fn unshown(check: &CheckReport) -> Vec<Block> {
    let mut blocks = Vec::new();
    let others = check.failed_keys.saturating_sub(check.violations.len() as u64);
    if others > 0 {
        let others = count(others as f64);
        blocks.push(Block::Item(format!("{others} more keys are not linearizable")));
    }
    blocks.extend(check.undecided.iter().map(|undecided| {
        Block::Item(format!(
            "undecided: key {}, {} operations: the {} limit",
            shorten(&undecided.key, KEY_LETTERS),
            count(undecided.operations as f64),
            undecided.limit
        ))
    }));
    let others = check.undecided_keys.saturating_sub(check.undecided.len() as u64);
    if others > 0 {
        blocks.push(Block::Item(format!("{} more keys are undecided", count(others as f64))));
    }
    blocks
}

fn operations(violation: &Violation) -> TextTable {
    let rows = violation.operations.iter().enumerate().map(|(index, witness)| {
        let Witness { line, operation } = witness;
        let culprit = if index == violation.culprit { " <<" } else { "" };
        let answered = operation.complete_ns.map_or("never".to_owned(), at);
        vec![
            format!("{}{culprit}", what(operation)),
            count(*line as f64),
            operation.process.to_string(),
            operation.node.as_deref().map_or("-".to_owned(), |node| shorten(node, LETTERS)),
            at(operation.invoke_ns),
            answered,
            match operation.outcome {
                Outcome::Ok => "ok".to_owned(),
                Outcome::Fail => "fail".to_owned(),
                Outcome::Unknown => "unknown".to_owned(),
            },
        ]
    });
    let header = ["operation", "line", "process", "node", "sent ms", "answered ms", "outcome"];
    TextTable::new(&header, rows.collect())
}

fn at(ns: i64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

fn what(operation: &Operation) -> String {
    let text = |value: &Option<String>| {
        value.as_deref().map_or("absent".to_owned(), |value| shorten(value, LETTERS))
    };
    match operation.op {
        Kind::Put => format!("put {}", text(&operation.value)),
        Kind::Get => format!("get: {}", text(&operation.value)),
        Kind::Cas => format!("cas {} -> {}", text(&operation.expected), text(&operation.value)),
        Kind::Delete => "delete".to_owned(),
    }
}
