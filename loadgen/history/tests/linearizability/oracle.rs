//! Two checkers that are simple enough to be believed, for short histories. Both follow the
//! definition word for word: take any operation that no remaining one precedes.

use std::collections::{BTreeMap, HashSet};

use history::{Kind, Operation, Outcome};

/// By all permutations.
pub(crate) fn by_brute_force(history: &[Operation]) -> bool {
    by_key(history).values().all(|operations| permute(operations, 0, None))
}

/// By the textbook: Wing and Gong's search with Lowe's memory, and nothing else.
pub(crate) fn by_the_textbook(history: &[Operation]) -> bool {
    by_key(history).values().all(|operations| {
        assert!(operations.len() <= 64, "a set is one word here");
        search(operations, 0, None, &mut HashSet::new())
    })
}

/// What says something, by key.
fn by_key(history: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        let told = match (operation.op, operation.outcome) {
            (_, Outcome::Fail) => false,
            (Kind::Get, outcome) => {
                outcome == Outcome::Ok
                    && operation.consistency == history::Consistency::Linearizable
            }
            _ => true,
        };
        if told {
            keys.entry(&operation.key).or_default().push(operation);
        }
    }
    keys
}

fn permute(operations: &[&Operation], taken: u64, state: Option<&str>) -> bool {
    all_taken(operations, taken)
        || next(operations, taken, state)
            .any(|(index, state)| permute(operations, taken | 1 << index, state))
}

fn search<'a>(
    operations: &[&'a Operation],
    taken: u64,
    state: Option<&'a str>,
    seen: &mut HashSet<(u64, Option<&'a str>)>,
) -> bool {
    all_taken(operations, taken)
        || seen.insert((taken, state))
            && next(operations, taken, state)
                .any(|(index, state)| search(operations, taken | 1 << index, state, seen))
}

fn all_taken(operations: &[&Operation], taken: u64) -> bool {
    let is_taken = |index: usize| taken >> index & 1 == 1;
    let must = |operation: &Operation| operation.outcome == Outcome::Ok;
    operations.iter().enumerate().all(|(index, operation)| is_taken(index) || !must(operation))
}

/// What can be taken, and the register after it.
fn next<'a, 'b>(
    operations: &'b [&'a Operation],
    taken: u64,
    state: Option<&'a str>,
) -> impl Iterator<Item = (usize, Option<&'a str>)> + use<'a, 'b> {
    let untaken = move |index: &usize| taken >> index & 1 == 0;
    let preceded = move |index: usize| {
        let invoke_ns = operations[index].invoke_ns;
        (0..operations.len()).filter(untaken).any(|other| {
            let other = operations[other];
            other.outcome == Outcome::Ok && other.complete_ns.is_some_and(|ns| ns < invoke_ns)
        })
    };
    let candidates = (0..operations.len()).filter(untaken).filter(move |index| !preceded(*index));
    candidates.filter_map(move |index| {
        let Operation { op, value, expected, .. } = operations[index];
        let after = match op {
            Kind::Put => value.as_deref(),
            Kind::Delete => None,
            Kind::Get if value.as_deref() == state => state,
            Kind::Cas if expected.as_deref() == state => value.as_deref(),
            Kind::Get | Kind::Cas => return None,
        };
        Some((index, after))
    })
}
