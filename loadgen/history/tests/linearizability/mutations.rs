//! Linearizable histories of some size with one thing broken: each break contradicts the definition
//! by itself, so each must be caught, and the broken operation must be named.

use history::linearizability::Verdict;
use history::{Kind, Operation, Outcome};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::checked;
use crate::generate::Shape;

const SEEDS: u64 = 300;

/// Puts and gets, cas and deletes, unknown outcomes.
fn shapes() -> [Shape; 3] {
    let plain = Shape::of(600, 3, 8);
    [
        plain.clone(),
        Shape { unknown: 0.05, ..plain.clone() },
        Shape { unknown: 0.02, mix: [0.4, 0.4, 0.15, 0.05], ..plain },
    ]
}

/// Breaks histories, and returns how many of them it could break.
#[track_caller]
fn all_caught(
    break_it: impl Fn(&mut Xoshiro256PlusPlus, &mut Vec<Operation>) -> Option<usize>,
) -> u64 {
    let mut broken = 0;
    for seed in 0..SEEDS {
        for shape in shapes() {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut history = shape.operations(seed);
            assert_eq!(checked(&history).verdict, Verdict::Pass, "seed {seed} of {shape:?}");
            let Some(at) = break_it(&mut rng, &mut history) else { continue };
            broken += 1;
            let report = checked(&history);
            assert_eq!(report.verdict, Verdict::Fail, "seed {seed} of {shape:?}");
            let violation = &report.violations[0];
            let line = at as u64 + 1;
            assert!(
                violation.operations.iter().any(|witness| witness.line == line),
                "seed {seed} of {shape:?}: line {line} is not in {violation:#?}"
            );
            assert!(violation.size <= 4, "seed {seed} of {shape:?}: {violation:#?}");
        }
    }
    broken
}

#[test]
fn a_stale_read_is_caught() {
    let broken = all_caught(|rng, history| {
        // A value, its write, another write after that, and a read after the other.
        let reads = ok_of(history, Kind::Get);
        let read = *reads.choose(rng)?;
        let writes = ok_of(history, Kind::Put);
        let on_key = |at: &&usize| history[**at].key == history[read].key;
        let before = |at: &&usize, other: usize| {
            history[**at].complete_ns.is_some_and(|ns| ns < history[other].invoke_ns)
        };
        let newer: Vec<usize> =
            writes.iter().filter(on_key).filter(|at| before(at, read)).copied().collect();
        let newer = *newer.choose(rng)?;
        let older: Vec<usize> =
            writes.iter().filter(on_key).filter(|at| before(at, newer)).copied().collect();
        let older = *older.choose(rng)?;
        history[read].value = history[older].value.clone();
        Some(read)
    });
    assert!(broken > SEEDS, "{broken}");
}

#[test]
fn a_write_that_was_read_and_never_happened_is_caught() {
    let broken = all_caught(|rng, history| {
        let read = *ok_of(history, Kind::Get).choose(rng)?;
        let value = history[read].value.clone()?;
        let key = history[read].key.clone();
        let has_it = |op: &Operation| op.value.as_ref() == Some(&value) && op.key == key;
        let write = history.iter().position(|op| op.op != Kind::Get && has_it(op))?;
        if history.iter().any(|op| op.expected.as_ref() == Some(&value)) {
            return None;
        }
        // The read that completes first shows it.
        let reads = ok_of(history, Kind::Get).into_iter().filter(|at| has_it(&history[*at]));
        let first = reads.min_by_key(|at| history[*at].complete_ns)?;
        history.remove(write);
        Some(first - usize::from(write < first))
    });
    assert!(broken > SEEDS, "{broken}");
}

#[test]
fn a_read_before_its_write_is_caught() {
    let broken = all_caught(|rng, history| {
        let write = *ok_of(history, Kind::Put).choose(rng)?;
        let value = history[write].value.clone();
        let reads = |op: &Operation| {
            op.op == Kind::Get && op.value == value && op.key == history[write].key
        };
        let reads = history.iter().filter(|op| reads(op) && op.outcome == Outcome::Ok);
        let read_ns = reads.filter_map(|op| op.complete_ns).min()?;
        history[write].invoke_ns = read_ns + 1;
        history[write].complete_ns = Some(read_ns + rng.random_range(2..1_000_000));
        Some(write)
    });
    assert!(broken > SEEDS, "{broken}");
}

#[test]
fn a_value_replaced_twice_is_caught() {
    let broken = all_caught(|rng, history| {
        let cas = *ok_of(history, Kind::Cas).choose(rng)?;
        history[cas].expected.as_ref()?;
        let mut again = history[cas].clone();
        again.value = Some("again".to_owned());
        history.push(again);
        Some(history.len() - 1)
    });
    assert!(broken > SEEDS / 2, "{broken}");
}

fn ok_of(history: &[Operation], op: Kind) -> Vec<usize> {
    let wanted = |operation: &Operation| operation.op == op && operation.outcome == Outcome::Ok;
    (0..history.len()).filter(|at| wanted(&history[*at])).collect()
}
