//! Hand-made histories: what is allowed, and the sentence for what is not.

use history::Operation;
use history::linearizability::{Verdict, ViolationKind};

use crate::{cas, checked, delete, failed, get, lines, passes, put, unknown};

#[track_caller]
fn allowed(history: &[Operation]) {
    assert!(passes(history), "should pass:\n{}", lines(history));
}

/// The violation's kind, the lines it names, the culprit's line, and a part of its sentence.
#[track_caller]
fn refused(history: &[Operation], kind: ViolationKind, named: &[u64], culprit: u64, says: &str) {
    let report = checked(history);
    assert_eq!(report.verdict, Verdict::Fail, "{}", lines(history));
    let violation = &report.violations[0];
    let mut seen: Vec<u64> = violation.operations.iter().map(|witness| witness.line).collect();
    seen.sort_unstable();
    assert_eq!(seen, named, "{violation:#?}");
    assert_eq!(violation.operations[violation.culprit].line, culprit, "{violation:#?}");
    assert_eq!(violation.kind, kind, "{violation:#?}");
    assert!(violation.sentence.contains(says), "`{}` lacks `{says}`", violation.sentence);
}

#[test]
fn operations_under_way_together_may_take_effect_either_way() {
    allowed(&[put("a", 0, 10), put("b", 5, 15), get(Some("a"), 12, 20)]);
    allowed(&[put("a", 0, 10), put("b", 5, 15), get(Some("b"), 16, 20)]);
    // Equal times do not order.
    allowed(&[put("a", 0, 10), get(None, 10, 12), get(Some("a"), 13, 14)]);
    allowed(&[get(Some("a"), 0, 5), put("a", 5, 9)]);
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_once() {
    let write = unknown(put("a", 0, 0));
    allowed(&[write.clone(), get(None, 5, 6), get(Some("a"), 100, 101)]);
    allowed(&[write.clone(), get(None, 5, 6)]);
    allowed(&[write.clone(), put("b", 5, 6), get(Some("b"), 7, 8), get(Some("a"), 9, 10)]);
    refused(
        &[write, put("b", 5, 6), get(Some("a"), 7, 8), put("c", 9, 10), get(Some("a"), 11, 12)],
        ViolationKind::LostWrite,
        &[1, 3, 4, 5],
        5,
        "get (line 5) returned `a`, although it was sent 1 ns after put `c` (line 4) had completed; \
         `a` is older: get (line 3) had completed before put (line 4) was sent; nobody ever read `c`",
    );
}

#[test]
fn an_unknown_delete_explains_an_absence_and_an_unknown_cas_only_what_it_could_replace() {
    allowed(&[put("a", 0, 1), unknown(delete(2, 2)), get(Some("a"), 5, 6), get(None, 8, 9)]);
    allowed(&[put("a", 0, 1), unknown(cas(Some("a"), "b", 2, 2)), get(Some("b"), 5, 6)]);
    refused(
        &[put("a", 0, 1), unknown(cas(Some("x"), "b", 2, 2)), get(Some("b"), 5, 6)],
        ViolationKind::Unordered,
        &[2, 3],
        3,
        "no order of these 2 operations",
    );
}

#[test]
fn a_failed_compare_tells_nothing() {
    allowed(&[put("a", 0, 1), failed(cas(Some("a"), "b", 2, 3)), get(Some("a"), 4, 5)]);
}

#[test]
fn a_stale_read_is_called_so() {
    refused(
        &[
            put("a", 0, 1_000_000),
            put("b", 2_000_000, 3_000_000),
            get(Some("b"), 4_000_000, 5_000_000),
            get(Some("a"), 5_500_000, 6_000_000),
            put("c", 7_000_000, 8_000_000),
            get(Some("c"), 9_000_000, 9_500_000),
        ],
        ViolationKind::StaleRead,
        &[1, 2, 4],
        4,
        "get (line 4) returned `a`, although it was sent 2.50 ms after put `b` (line 2) had \
         completed; `a` is older: put (line 1) had completed before put (line 2) was sent",
    );
}

#[test]
fn a_value_that_went_back_is_a_stale_read() {
    // Both writes are under way all the time; the reads contradict each other.
    refused(
        &[
            put("a", 0, 100),
            put("b", 0, 100),
            get(Some("a"), 10, 20),
            get(Some("b"), 30, 40),
            get(Some("a"), 50, 60),
        ],
        ViolationKind::StaleRead,
        &[1, 2, 3, 4, 5],
        5,
        "get (line 5) returned `a`, although it was sent 10 ns after get (line 4) had returned `b`; \
         `a` is older: get (line 3) had completed before get (line 4) was sent",
    );
}

#[test]
fn a_write_that_nobody_ever_saw_is_lost() {
    refused(
        &[put("a", 0, 1), put("b", 2, 3), get(Some("a"), 10, 11), get(Some("a"), 12, 13)],
        ViolationKind::LostWrite,
        &[1, 2, 3],
        3,
        "nobody ever read `b`",
    );
    refused(
        &[put("a", 0, 1), get(None, 10, 11)],
        ViolationKind::LostWrite,
        &[1, 2],
        2,
        "get (line 2) found no value, although it was sent 9 ns after put `a` (line 1) had \
         completed; nobody had deleted it; nobody ever read `a`",
    );
}

#[test]
fn an_absence_after_a_delete_was_undone_is_a_stale_read() {
    refused(
        &[put("a", 0, 1), delete(2, 3), get(Some("a"), 4, 5)],
        ViolationKind::StaleRead,
        &[1, 2, 3],
        3,
        "after delete (line 2) had completed",
    );
}

#[test]
fn values_from_nowhere_are_named() {
    refused(
        &[put("a", 0, 1), get(Some("z"), 2, 3)],
        ViolationKind::ValueNeverWritten,
        &[2],
        2,
        "get (line 2) returned `z`, which nobody ever wrote to this key",
    );
    refused(
        &[failed(put("z", 0, 1)), get(Some("z"), 2, 3)],
        ViolationKind::FailedWriteRead,
        &[1, 2],
        2,
        "its only write, put `z` (line 1), had failed",
    );
    refused(
        &[get(Some("a"), 0, 1), put("a", 4, 5)],
        ViolationKind::ReadBeforeWrite,
        &[1, 2],
        1,
        "get (line 1) returned `a` and completed 3 ns before its write, put `a` (line 2), was sent",
    );
}

#[test]
fn two_updates_of_one_value_are_a_lost_update() {
    refused(
        &[put("a", 0, 1), cas(Some("a"), "b", 2, 9), cas(Some("a"), "c", 3, 8)],
        ViolationKind::LostUpdate,
        &[1, 2, 3],
        2,
        "both replaced `a`, which was written only once",
    );
    refused(
        &[cas(None, "b", 2, 9), cas(None, "c", 3, 8)],
        ViolationKind::LostUpdate,
        &[1, 2],
        1,
        "both replaced absent, which was absent only once",
    );
}

#[test]
fn values_may_come_again() {
    allowed(&[put("a", 0, 1), put("b", 2, 3), put("a", 4, 5), get(Some("a"), 6, 7)]);
    allowed(&[put("a", 0, 1), cas(Some("a"), "a", 2, 3), get(Some("a"), 6, 7)]);
    let twice = [put("a", 0, 1), put("b", 2, 3), put("a", 2, 20), get(Some("b"), 4, 5)];
    allowed(&twice);
}

/// The smallest set comes first, and what was left out is counted.
#[test]
fn the_smallest_set_comes_first() {
    let on = |key: &str, operation: Operation| Operation { key: key.to_owned(), ..operation };
    let history = [
        on("one", put("a", 0, 1)),
        on("one", put("b", 2, 3)),
        on("one", get(Some("a"), 4, 5)),
        on("two", get(Some("z"), 0, 1)),
        on("three", put("c", 0, 1)),
        on("three", failed(put("d", 2, 3))),
        on("three", unknown(get(None, 2, 3))),
        on(
            "three",
            Operation { consistency: history::Consistency::Serializable, ..get(None, 4, 5) },
        ),
    ];
    let report = checked(&history);
    let keys: Vec<&str> = report.violations.iter().map(|found| found.key.as_str()).collect();
    assert_eq!((keys, report.failed_keys), (vec!["two", "one"], 2));
    assert_eq!((report.operations, report.keys), (5, 3));
    let left_out = report.left_out;
    let counts = (left_out.failed, left_out.serializable_gets, left_out.unknown_gets);
    assert_eq!(counts, (1, 1, 1));
}

#[test]
fn nothing_observed_decides_nothing() {
    assert_eq!(checked(&[]).verdict, Verdict::Undecided);
    assert_eq!(checked(&[failed(put("a", 0, 1))]).verdict, Verdict::Undecided);
    // Writes alone can always be ordered.
    let unread = [put("a", 0, 1), delete(2, 3), unknown(cas(None, "b", 4, 4))];
    assert_eq!(checked(&unread).verdict, Verdict::Undecided);
    assert_eq!(checked(&[get(None, 0, 1)]).verdict, Verdict::Pass);
}
