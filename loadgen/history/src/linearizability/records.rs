//! A history in memory, small: 48 bytes for each operation that is checked, every name once.

use std::collections::HashMap;

use crate::{Consistency, Kind, Operation, Outcome};

use super::report::LeftOut;

/// The value of a key that is not there.
pub(super) const ABSENT: u32 = 0;
/// The completion of an operation that may take effect at any time after its invocation.
pub(super) const NEVER_NS: i64 = i64::MAX;
/// No revision was recorded.
const NO_REVISION: i64 = i64::MIN;
/// No node was recorded, or more nodes were than have a number.
const NO_NODE: u16 = u16::MAX;

/// One operation; names are numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) invoke_ns: i64,
    /// [`NEVER_NS`] unless it ended ok or failed.
    pub(super) complete_ns: i64,
    revision: i64,
    pub(super) key: u32,
    /// Read or written; [`ABSENT`] for a delete.
    pub(super) value: u32,
    /// A cas only.
    pub(super) expected: u32,
    process: u32,
    /// The last that has a number, if there are more lines than that.
    line: u32,
    node: u16,
    pub(super) op: Kind,
    pub(super) outcome: Outcome,
}

impl Record {
    pub(super) fn line(&self) -> u32 {
        self.line
    }
}

/// What was taken in.
#[derive(Debug, Default)]
pub(super) struct Records {
    names: Names,
    checked: Vec<Record>,
    failed_writes: Vec<Record>,
    left_out: LeftOut,
}

/// Names and their numbers.
#[derive(Debug, Default)]
struct Names {
    keys: Numbers,
    /// From 1; 0 is [`ABSENT`].
    values: Numbers,
    nodes: Numbers,
}

#[derive(Debug, Default)]
struct Numbers(HashMap<Box<str>, u32>);

impl Numbers {
    fn of(&mut self, name: &str) -> u32 {
        if let Some(number) = self.0.get(name) {
            return *number;
        }
        let next = u32::try_from(self.0.len()).expect("fewer names than 2^32");
        self.0.insert(name.into(), next);
        next
    }

    fn names(&self) -> Vec<&str> {
        let mut names = vec![""; self.0.len()];
        self.0.iter().for_each(|(name, number)| names[*number as usize] = name);
        names
    }
}

impl Records {
    pub(super) fn add(&mut self, line: u64, operation: &Operation) {
        let left_out = match (operation.op, operation.outcome, operation.consistency) {
            (_, Outcome::Fail, _) => &mut self.left_out.failed,
            (Kind::Get, _, Consistency::Serializable) => &mut self.left_out.serializable_gets,
            (Kind::Get, Outcome::Unknown, _) => &mut self.left_out.unknown_gets,
            _ => {
                let record = self.record(line, operation);
                return self.checked.push(record);
            }
        };
        *left_out += 1;
        if operation.op != Kind::Get {
            let record = self.record(line, operation);
            self.failed_writes.push(record);
        }
    }

    fn record(&mut self, line: u64, operation: &Operation) -> Record {
        let Names { keys, values, nodes } = &mut self.names;
        let mut value = |value: &Option<String>| {
            value.as_ref().map_or(ABSENT, |value| values.of(value).saturating_add(1))
        };
        let ended = operation.outcome != Outcome::Unknown;
        Record {
            invoke_ns: operation.invoke_ns,
            complete_ns: operation.complete_ns.filter(|_| ended).unwrap_or(NEVER_NS),
            revision: operation.revision.unwrap_or(NO_REVISION),
            key: keys.of(&operation.key),
            value: value(&operation.value),
            expected: value(&operation.expected),
            process: operation.process,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            node: match &operation.node {
                Some(node) => u16::try_from(nodes.of(node)).unwrap_or(NO_NODE),
                None => NO_NODE,
            },
            op: operation.op,
            outcome: operation.outcome,
        }
    }

    /// By key, and in the order of invocation within each.
    pub(super) fn grouped(mut self) -> Grouped {
        let order = |record: &Record| (record.key, record.invoke_ns, record.line);
        self.checked.sort_unstable_by_key(order);
        self.failed_writes.sort_unstable_by_key(order);
        let Self { names, checked, failed_writes, left_out } = self;
        Grouped { names, checked, failed_writes, left_out }
    }
}

/// A history by key.
pub(super) struct Grouped {
    names: Names,
    checked: Vec<Record>,
    failed_writes: Vec<Record>,
    pub(super) left_out: LeftOut,
}

impl Grouped {
    /// The operations of each key that has any, in the order of invocation.
    pub(super) fn keys(&self) -> Vec<&[Record]> {
        self.checked.chunk_by(|a, b| a.key == b.key).collect()
    }

    /// All operations that are checked.
    pub(super) fn checked(&self) -> &[Record] {
        &self.checked
    }

    /// The writes to a key that provably never happened.
    pub(super) fn failed_writes(&self, key: u32) -> &[Record] {
        let start = self.failed_writes.partition_point(|record| record.key < key);
        let end = self.failed_writes.partition_point(|record| record.key <= key);
        &self.failed_writes[start..end]
    }

    /// Names by number; made anew for each call.
    pub(super) fn texts(&self) -> Texts<'_> {
        let Names { keys, values, nodes } = &self.names;
        Texts { keys: keys.names(), values: values.names(), nodes: nodes.names() }
    }
}

/// The names of a history.
pub(super) struct Texts<'a> {
    keys: Vec<&'a str>,
    values: Vec<&'a str>,
    nodes: Vec<&'a str>,
}

impl Texts<'_> {
    pub(super) fn key(&self, key: u32) -> &str {
        self.keys[key as usize]
    }

    pub(super) fn value(&self, value: u32) -> Option<&str> {
        (value != ABSENT).then(|| self.values[value as usize - 1])
    }

    /// An operation as its line has it, but for the error's text.
    pub(super) fn operation(&self, record: &Record) -> (u64, Operation) {
        let text = |value: u32| self.value(value).map(str::to_owned);
        let operation = Operation {
            process: record.process,
            op: record.op,
            key: self.key(record.key).to_owned(),
            value: text(record.value),
            expected: text(record.expected),
            invoke_ns: record.invoke_ns,
            complete_ns: (record.complete_ns != NEVER_NS).then_some(record.complete_ns),
            outcome: record.outcome,
            consistency: Consistency::Linearizable,
            revision: (record.revision != NO_REVISION).then_some(record.revision),
            node: self.nodes.get(usize::from(record.node)).map(|node| (*node).to_owned()),
            error: None,
        };
        (u64::from(record.line), operation)
    }
}
