//! What the limits are for, and what they leave alone.

use std::time::Duration;

use history::Operation;
use history::linearizability::{CheckProgress, Checker, Limits, Verdict, check};

use crate::{cas, get, put};

/// One cas from each of ten values to each other, all under way together: to order them is to walk
/// each edge of a complete graph once. Such a walk ends where it began, and the read says it did not;
/// no rule sees that, and the sets of edges are 2^90.
fn hard(key: &str) -> Vec<Operation> {
    let value = |number: usize| format!("v{number}");
    let mut history = vec![put("v0", 0, 1)];
    for from in 0..10 {
        for to in (0..10).filter(|to| *to != from) {
            history.push(cas(Some(&value(from)), &value(to), 2, 1000));
        }
    }
    history.push(get(Some("v1"), 2000, 2001));
    history.into_iter().map(|operation| Operation { key: key.to_owned(), ..operation }).collect()
}

const LITTLE_MEMORY: Limits = Limits { time: Duration::from_secs(600), memory_bytes: 4 << 20 };
const NO_TIME: Limits = Limits { time: Duration::ZERO, memory_bytes: 1 << 40 };

#[test]
fn a_key_beyond_the_limits_is_undecided_and_named() {
    let mut history = hard("hard");
    history.extend([put("a", 0, 1), get(Some("a"), 2, 3)]);
    for (limits, limit) in [(LITTLE_MEMORY, "memory"), (NO_TIME, "time")] {
        let report = check(&history, &limits);
        assert_eq!(report.verdict, Verdict::Undecided);
        let [undecided] = report.undecided.as_slice() else { panic!("{report:#?}") };
        assert_eq!((undecided.key.as_str(), undecided.limit.as_str()), ("hard", limit));
        assert_eq!((undecided.operations, report.keys), (92, 2));
        assert!(report.violations.is_empty(), "{report:#?}");
    }
}

#[test]
fn a_key_that_fails_fails_the_check_whatever_others_are() {
    let mut history = hard("hard");
    history.extend([put("a", 0, 1), get(None, 2, 3)]);
    let report = check(&history, &NO_TIME);
    assert_eq!((report.verdict, report.failed_keys, report.undecided.len()), (Verdict::Fail, 1, 1));
}

#[test]
fn progress_counts_the_keys_that_were_decided() {
    let mut checker = Checker::default();
    let history = [hard("hard"), vec![put("a", 0, 1)]].concat();
    for (line, operation) in (1..).zip(&history) {
        checker.add(line, operation);
    }
    let progress = CheckProgress::default();
    assert_eq!(progress.keys(), (0, 0));
    checker.check(&NO_TIME, &progress);
    assert_eq!(progress.keys(), (1, 2));
}
