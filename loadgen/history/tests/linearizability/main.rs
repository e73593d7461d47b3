//! The checker against checkers that are simple enough to be believed, against histories that are
//! known to be wrong, and against its limits.

#[path = "../generate/mod.rs"]
mod generate;
mod limits;
mod mutations;
mod oracle;
mod random;
mod shapes;

use history::linearizability::{CheckReport, Limits, Verdict, check};
use history::{Consistency, Kind, Operation, Outcome};

/// The checker's verdict; it must come to one. Of nothing there is an order.
#[track_caller]
fn passes(history: &[Operation]) -> bool {
    let report = checked(history);
    match report.verdict {
        Verdict::Pass => true,
        Verdict::Fail => false,
        Verdict::Undecided if report.observations == 0 => true,
        Verdict::Undecided => panic!("undecided:\n{}", lines(history)),
    }
}

fn checked(history: &[Operation]) -> CheckReport {
    check(history, &Limits::default())
}

/// A history as a file has it, for a failure's message.
fn lines(history: &[Operation]) -> String {
    let line = |operation| serde_json::to_string(operation).expect("JSON") + "\n";
    history.iter().map(line).collect()
}

/// An ok operation on `k`.
fn ok(op: Kind, value: Option<&str>, invoke_ns: i64, complete_ns: i64) -> Operation {
    Operation {
        process: 0,
        op,
        key: "k".to_owned(),
        value: value.map(str::to_owned),
        expected: None,
        invoke_ns,
        complete_ns: Some(complete_ns),
        outcome: Outcome::Ok,
        consistency: Consistency::Linearizable,
        revision: None,
        node: None,
        error: None,
    }
}

fn put(value: &str, invoke_ns: i64, complete_ns: i64) -> Operation {
    ok(Kind::Put, Some(value), invoke_ns, complete_ns)
}

fn get(value: Option<&str>, invoke_ns: i64, complete_ns: i64) -> Operation {
    ok(Kind::Get, value, invoke_ns, complete_ns)
}

fn delete(invoke_ns: i64, complete_ns: i64) -> Operation {
    ok(Kind::Delete, None, invoke_ns, complete_ns)
}

fn cas(expected: Option<&str>, value: &str, invoke_ns: i64, complete_ns: i64) -> Operation {
    let expected = expected.map(str::to_owned);
    Operation { expected, ..ok(Kind::Cas, Some(value), invoke_ns, complete_ns) }
}

fn unknown(operation: Operation) -> Operation {
    Operation { complete_ns: None, outcome: Outcome::Unknown, ..operation }
}

fn failed(operation: Operation) -> Operation {
    Operation { outcome: Outcome::Fail, ..operation }
}
