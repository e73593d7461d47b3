//! Records as lines of a history.
//!
//! Invariant: an operation's interval is the widest that is known. It begins when the operation
//! was sent, and ends with its answer; what is unknown has no end, whatever was heard of it.

use history::{Consistency, Kind, Operation, Outcome};

use crate::record::{LoadResult, OpRecord, ReadValue};
use crate::spec::Keys;
use crate::workload::Values;

/// All operations of a run, in the order of their intended send times. `nodes` names the endpoints
/// in their order; without it an endpoint is its own name.
pub fn operations<'a>(
    result: &'a LoadResult,
    keys: &'a Keys,
    nodes: Option<&'a [String]>,
) -> impl Iterator<Item = Operation> + 'a {
    let names = nodes.unwrap_or(&result.endpoints);
    result.ops.iter().map(move |op| Operation {
        process: op.process,
        op: op.kind,
        key: keys.name(op.key),
        value: value_of(op),
        expected: None,
        // What was never sent never happened; when it was refused is all there is to say.
        invoke_ns: op.sent_ns.unwrap_or_else(|| op.completed_ns.unwrap_or(op.intended_ns)),
        complete_ns: op.completed_ns.filter(|_| op.outcome != Outcome::Unknown),
        outcome: op.outcome,
        consistency: if op.linearizable {
            Consistency::Linearizable
        } else {
            Consistency::Serializable
        },
        revision: (op.outcome == Outcome::Ok).then_some(op.revision),
        node: names.get(usize::from(op.node)).cloned(),
        error: op.error.map(|number| result.errors[usize::from(number)].clone()),
    })
}

/// A value's leading digits say which write it is; the filler says nothing more.
fn value_of(op: &OpRecord) -> Option<String> {
    match (op.kind, op.read) {
        (Kind::Get, Some(ReadValue::Written(sequence))) => Some(Values::text(sequence)),
        (Kind::Get, Some(ReadValue::Foreign)) => Some("not a value of this run".to_owned()),
        (Kind::Get, _) => None,
        _ => Some(Values::text(op.sequence)),
    }
}
