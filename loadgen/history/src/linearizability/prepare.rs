//! What a search starts from: one key's operations as steps on a register, with what follows from
//! the values alone already in them (rules 1 and 2 of the module).
//!
//! Invariant: the prepared steps can be ordered if and only if the given ones can.

use std::collections::HashMap;
use std::ops::Range;

use super::records::{ABSENT, NEVER_NS, Record};
use crate::{Kind, Outcome};

/// No value: a put observes none, a get writes none.
pub(super) const NONE: u32 = u32::MAX;

/// An operation as the register sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The value that must be there, or [`NONE`].
    pub(super) observes: u32,
    /// The value that is there afterwards, or [`NONE`] if it is the one before.
    pub(super) writes: u32,
    pub(super) invoke_ns: i64,
    pub(super) complete_ns: i64,
    /// It took effect; otherwise it may have.
    pub(super) must: bool,
}

impl Step {
    pub(super) fn of(record: &Record) -> Self {
        let Record { value, expected, invoke_ns, complete_ns, .. } = *record;
        let (observes, writes) = match record.op {
            Kind::Put => (NONE, value),
            Kind::Delete => (NONE, ABSENT),
            Kind::Get => (value, NONE),
            // Writes what it found: as good as a read.
            Kind::Cas if value == expected => (expected, NONE),
            Kind::Cas => (expected, value),
        };
        Self { observes, writes, invoke_ns, complete_ns, must: record.outcome == Outcome::Ok }
    }

    pub(super) fn is_read(&self) -> bool {
        self.writes == NONE
    }
}

/// Steps to be ordered. Values are numbered from 0, which is "absent".
#[derive(Debug)]
pub(super) struct Prepared {
    /// Those that took effect, in the order of invocation; then those that may have, twins together.
    pub(super) steps: Vec<Step>,
    /// How many took effect.
    pub(super) must: usize,
    /// The twins among the others, each in the order of invocation.
    pub(super) twins: Vec<Range<usize>>,
    /// How many values there are.
    pub(super) values: usize,
}

/// Prepares steps; `None` if the values alone show that no order exists: something was observed
/// that nobody wrote, or before anybody had begun to write it.
pub(super) fn prepare(given: &[Step]) -> Option<Prepared> {
    let (mut steps, values) = renumbered(given);
    bound(&mut steps, values)?;
    drop_unobserved(&mut steps, values);
    steps.sort_unstable_by_key(|step| match step.must {
        true => (0, 0, 0, step.invoke_ns, step.complete_ns),
        false => (1, step.observes, step.writes, step.invoke_ns, 0),
    });
    let must = steps.partition_point(|step| step.must);
    let mut twins = Vec::new();
    let mut start = must;
    for group in steps[must..].chunk_by(|a, b| (a.observes, a.writes) == (b.observes, b.writes)) {
        twins.push(start..start + group.len());
        start += group.len();
    }
    Some(Prepared { steps, must, twins, values })
}

/// Without what can have no effect, and values numbered in the order of their appearance.
fn renumbered(given: &[Step]) -> (Vec<Step>, usize) {
    let mut numbers = HashMap::from([(NONE, NONE), (ABSENT, ABSENT)]);
    let mut number = |value: u32| {
        let next = numbers.len() as u32 - 1;
        *numbers.entry(value).or_insert(next)
    };
    let effective = given.iter().filter(|step| step.must || !step.is_read());
    let steps = effective
        .map(|step| Step { observes: number(step.observes), writes: number(step.writes), ..*step })
        .collect();
    (steps, numbers.len() - 1)
}

/// Rule 1: what the first observation of a value says of its only writer.
fn bound(steps: &mut [Step], values: usize) -> Option<()> {
    #[derive(Clone)]
    struct Value {
        writers: u32,
        writer: usize,
        /// When the first step that observed it, and took effect, completed.
        first_ns: Option<i64>,
    }
    let mut of = vec![Value { writers: 0, writer: 0, first_ns: None }; values];
    for (index, step) in steps.iter().enumerate() {
        if step.writes != NONE {
            let value = &mut of[step.writes as usize];
            (value.writers, value.writer) = (value.writers + 1, index);
        }
        if step.observes != NONE && step.must {
            let first_ns = &mut of[step.observes as usize].first_ns;
            *first_ns = Some(first_ns.map_or(step.complete_ns, |ns| ns.min(step.complete_ns)));
        }
    }
    // "Absent" was there from the start: no write of it is the only one.
    let mut waiting: Vec<usize> = (0..values).filter(|value| *value != ABSENT as usize).collect();
    while let Some(value) = waiting.pop() {
        let Value { writers, writer, first_ns: Some(first_ns) } = of[value] else { continue };
        match writers {
            0 => return None,
            1 => {}
            _ => continue,
        }
        let step = &mut steps[writer];
        if step.invoke_ns > first_ns {
            return None;
        }
        if step.must && step.complete_ns <= first_ns {
            continue;
        }
        step.must = true;
        step.complete_ns = step.complete_ns.min(first_ns);
        // A cas that took effect has observed something in its turn, and by then.
        if step.observes != NONE {
            let found = &mut of[step.observes as usize].first_ns;
            *found = Some(found.map_or(step.complete_ns, |ns| ns.min(step.complete_ns)));
            if step.observes != ABSENT {
                waiting.push(step.observes as usize);
            }
        }
    }
    Some(())
}

/// Rule 2: keeps, of the steps that may have taken effect, those whose value a step that is kept
/// can have observed.
fn drop_unobserved(steps: &mut Vec<Step>, values: usize) {
    // Until when each value can have been observed.
    let mut until_ns: Vec<Option<i64>> = vec![None; values];
    for step in steps.iter().filter(|step| step.must && step.observes != NONE) {
        let until = &mut until_ns[step.observes as usize];
        *until = (*until).max(Some(step.complete_ns));
    }
    // The latest first: what a cas observes was mostly written before it, so that one round does.
    let mut open: Vec<Step> = steps.iter().filter(|step| !step.must).copied().collect();
    open.sort_unstable_by_key(|step| std::cmp::Reverse(step.invoke_ns));
    steps.retain(|step| step.must);
    loop {
        let before = open.len();
        open.retain(|step| {
            let observed = until_ns[step.writes as usize].is_some_and(|ns| ns >= step.invoke_ns);
            if observed {
                if step.observes != NONE {
                    until_ns[step.observes as usize] = Some(NEVER_NS);
                }
                steps.push(*step);
            }
            !observed
        });
        if open.len() == before {
            return;
        }
    }
}
