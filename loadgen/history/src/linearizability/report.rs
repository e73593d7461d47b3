//! What a check says: the verdict, what was checked, and for each failure the operations that
//! cannot be ordered.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::explain::Case;
use super::keys::decide_all;
use super::limits::{CheckProgress, Exhausted, Limits};
use super::prepare::Step;
use super::records::{Grouped, Record, Texts};
use super::search::Decision;
use super::shrink::shrink;
use crate::{Kind, Operation, Outcome, shorten};

/// What a check says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Fail if any key's history has no order; else undecided if any could not be decided, or if
    /// nothing was observed, which no order could contradict.
    pub verdict: Verdict,
    /// Operations that were checked.
    pub operations: u64,
    /// Of them, those with an unknown outcome.
    pub unknown_writes: u64,
    /// Of them, those that observed something: gets, and cas, that ended ok.
    pub observations: u64,
    /// Keys that were checked.
    pub keys: u64,
    /// Operations that were not.
    pub left_out: LeftOut,
    /// Keys whose history has no order.
    pub failed_keys: u64,
    /// Of these, at most [`MAX_VIOLATIONS`], the smallest set of operations first.
    pub violations: Vec<Violation>,
    /// Keys that could not be decided.
    pub undecided_keys: u64,
    /// Of these, at most [`MAX_UNDECIDED`], by name.
    pub undecided: Vec<UndecidedKey>,
}

impl CheckReport {
    /// Why the verdict is undecided, where it is.
    pub fn why_undecided(&self) -> String {
        let Some(first) = self.undecided.first() else {
            return "no ok get or cas was there to contradict an order".to_owned();
        };
        let others = match self.undecided_keys {
            0 | 1 => String::new(),
            number => format!(", and {} of the other keys", number - 1),
        };
        let UndecidedKey { key, operations, limit } = first;
        let key = shorten(key, KEY_LETTERS);
        format!("key `{key}` ({operations} operations) ran into the {limit} limit{others}")
    }
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every key's operations can be ordered.
    Pass,
    /// Some key's cannot.
    Fail,
    /// Neither was shown.
    Undecided,
}

/// Operations that say nothing about linearizability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Of any kind: they never happened.
    pub failed: u64,
    /// Gets that did not ask for linearizability.
    pub serializable_gets: u64,
    /// Gets that nobody knows the answer of.
    pub unknown_gets: u64,
}

/// Operations on one key that cannot be ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// The key.
    pub key: String,
    /// The shape.
    pub kind: ViolationKind,
    /// What is wrong.
    pub sentence: String,
    /// How many operations the set has.
    pub size: u64,
    /// None of them can be left out.
    pub smallest: bool,
    /// The operation whose answer could not be, as a place in `operations`.
    pub culprit: usize,
    /// The set, in the order of invocation, and last what the sentence names besides; of a large one, the last [`MAX_WITNESSES`].
    pub operations: Vec<Witness>,
}

/// In a sentence.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key `{}`: {}", shorten(&self.key, KEY_LETTERS), self.sentence)
    }
}

/// An operation of a set, and its line in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// From 1.
    pub line: u64,
    /// As recorded, but for the error's text.
    pub operation: Operation,
}

/// The shapes that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// A value was read that nobody wrote to this key.
    ValueNeverWritten,
    /// A value was read whose only write provably never happened.
    FailedWriteRead,
    /// A read had completed before the value's write was invoked.
    ReadBeforeWrite,
    /// A value was read after a newer one had been there.
    StaleRead,
    /// A read after an acknowledged write did not see it, and nobody ever did.
    LostWrite,
    /// Two compare-and-swaps replaced the same value, which was there once.
    LostUpdate,
    /// No order exists, and the set has none of the shapes above.
    Unordered,
}

/// A key that could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndecidedKey {
    /// The key.
    pub key: String,
    /// Its operations.
    pub operations: u64,
    /// The limit that was reached: `time` or `memory`.
    pub limit: String,
}

/// A report holds no more violations than this.
pub const MAX_VIOLATIONS: usize = 5;
/// Nor more undecided keys than this.
pub const MAX_UNDECIDED: usize = 20;
/// A violation shows no more operations than this.
pub const MAX_WITNESSES: usize = 60;
/// A key's letters in a sentence.
const KEY_LETTERS: usize = 80;
/// So many keys that failed are shrunk, the shortest histories first.
const MAX_SHRUNK: usize = 50;

/// Checks a history.
pub(super) fn report(history: Grouped, limits: &Limits, progress: &CheckProgress) -> CheckReport {
    let keys = history.keys();
    let decisions = decide_all(&keys, limits, progress);
    let of = |wanted: fn(&Decision) -> bool| {
        let decided = keys.iter().zip(&decisions).filter(move |(_, decision)| wanted(decision));
        decided.map(|(records, decision)| (*records, *decision)).collect::<Vec<_>>()
    };
    let failed = of(|decision| *decision == Decision::NoOrder);
    let exhausted = of(|decision| matches!(decision, Decision::Exhausted(_)));
    let number =
        |wanted: fn(&&Record) -> bool| history.checked().iter().filter(wanted).count() as u64;
    let observations = number(|record| {
        record.outcome == Outcome::Ok && matches!(record.op, Kind::Get | Kind::Cas)
    });
    let verdict = match (failed.is_empty(), exhausted.is_empty() && observations > 0) {
        (false, _) => Verdict::Fail,
        (true, false) => Verdict::Undecided,
        (true, true) => Verdict::Pass,
    };
    let mut report = CheckReport {
        verdict,
        operations: history.checked().len() as u64,
        unknown_writes: number(|record| record.outcome == Outcome::Unknown),
        observations,
        keys: keys.len() as u64,
        left_out: history.left_out,
        failed_keys: failed.len() as u64,
        violations: Vec::new(),
        undecided_keys: exhausted.len() as u64,
        undecided: Vec::new(),
    };
    if !failed.is_empty() || !exhausted.is_empty() {
        let texts = history.texts();
        let failed: Vec<&[Record]> = failed.into_iter().map(|(records, _)| records).collect();
        report.violations = violations(&history, failed, limits, &texts);
        let named = exhausted.into_iter().map(|(records, decision)| UndecidedKey {
            key: texts.key(records[0].key).to_owned(),
            operations: records.len() as u64,
            limit: match decision {
                Decision::Exhausted(Exhausted::Memory) => "memory".to_owned(),
                _ => "time".to_owned(),
            },
        });
        report.undecided = named.collect();
        report.undecided.sort_by(|a, b| a.key.cmp(&b.key));
        report.undecided.truncate(MAX_UNDECIDED);
    }
    report
}

/// The violations of keys that failed, the smallest first.
fn violations(
    history: &Grouped,
    mut failed: Vec<&[Record]>,
    limits: &Limits,
    texts: &Texts<'_>,
) -> Vec<Violation> {
    failed.sort_by_key(|records| records.len());
    failed.truncate(MAX_SHRUNK);
    let mut left = failed.len() as u32;
    let begun = Instant::now();
    let mut violations: Vec<Violation> = failed
        .into_iter()
        .map(|records| {
            let now = Instant::now();
            let deadline = now + limits.time.saturating_sub(now - begun) / left;
            left -= 1;
            let steps: Vec<Step> = records.iter().map(Step::of).collect();
            let part = shrink(&steps, deadline, limits.memory_bytes);
            let set: Vec<Record> = part.places.iter().map(|place| records[*place]).collect();
            violation(history, records, &set, part.smallest, texts)
        })
        .collect();
    violations.sort_by(|a, b| (a.size, &a.key).cmp(&(b.size, &b.key)));
    violations.truncate(MAX_VIOLATIONS);
    violations
}

fn violation(
    history: &Grouped,
    records: &[Record],
    set: &[Record],
    smallest: bool,
    texts: &Texts<'_>,
) -> Violation {
    let key = records[0].key;
    let failed_writes = history.failed_writes(key);
    let case = Case { part: set, history: records, failed_writes, texts };
    let explanation = case.explain();
    let set = &[set, explanation.beside.as_slice()].concat();
    // The culprit is among the last to complete, not always among the last to be invoked.
    let hidden = set.len().saturating_sub(MAX_WITNESSES).min(explanation.culprit);
    let shown = set[hidden..].iter().take(MAX_WITNESSES);
    Violation {
        key: texts.key(key).to_owned(),
        kind: explanation.kind,
        sentence: explanation.sentence,
        size: set.len() as u64,
        smallest,
        culprit: explanation.culprit - hidden,
        operations: shown
            .map(|record| {
                let (line, operation) = texts.operation(record);
                Witness { line, operation }
            })
            .collect(),
    }
}
