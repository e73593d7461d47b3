//! Revisions against real time: what was known before an operation was sent bounds what it may
//! find or make.
//!
//! Invariant: only an answer that came strictly before an operation was sent counts as known. The
//! order of revisions is the order of writes of the whole store, so a bound from one key holds
//! for writes to every key, and for reads of that key.

use std::collections::HashMap;

use history::{Kind, Outcome};

use super::{Audit, FindingKind};
use crate::record::OpRecord;

pub(super) fn check(audit: &mut Audit<'_>) {
    let ops = audit.ops;
    // Whoever learnt a revision: acknowledged puts, and reads that found something.
    let mut knowers: Vec<&OpRecord> =
        ops.iter().filter(|op| op.outcome == Outcome::Ok && op.revision > 0).collect();
    knowers.sort_by_key(|op| op.completed_ns);
    let mut later: Vec<&OpRecord> = ops.iter().filter(|op| op.sent_ns.is_some()).collect();
    later.sort_by_key(|op| op.sent_ns);
    let mut known = knowers.into_iter().peekable();
    let mut highest: Option<&OpRecord> = None;
    let mut highest_of_key: HashMap<u32, &OpRecord> = HashMap::new();
    for op in later {
        while let Some(knower) = known.next_if(|knower| knower.completed_ns < op.sent_ns) {
            if highest.is_none_or(|before| before.revision < knower.revision) {
                highest = Some(knower);
            }
            let of_key = highest_of_key.entry(knower.key).or_insert(knower);
            if of_key.revision < knower.revision {
                *of_key = knower;
            }
        }
        match op.kind {
            Kind::Put => check_write(audit, op, highest),
            _ => check_read(audit, op, highest_of_key.get(&op.key).copied()),
        }
    }
}

/// A write comes after all that was known before it was sent.
fn check_write(audit: &mut Audit<'_>, put: &OpRecord, before: Option<&OpRecord>) {
    let (Some(before), Some(revision)) = (before, audit.revision_of.get(&put.sequence).copied())
    else {
        return;
    };
    if revision <= before.revision {
        let operations = [before.sequence, put.sequence];
        audit.find(FindingKind::RevisionOrder, audit.keys.name(put.key), &operations, || {
            format!(
                "put {} has revision {revision}, but {} {} had seen revision {} before it was sent",
                put.sequence,
                name_of(before),
                before.sequence,
                before.revision
            )
        });
    }
}

/// A linearizable read sees all that was known of its key before it was sent.
fn check_read(audit: &mut Audit<'_>, get: &OpRecord, before: Option<&OpRecord>) {
    let Some(before) = before else { return };
    if get.outcome == Outcome::Ok && get.linearizable && get.revision < before.revision {
        let operations = [before.sequence, get.sequence];
        audit.find(FindingKind::StaleRead, audit.keys.name(get.key), &operations, || {
            let seen = match get.revision {
                0 => "no such key".to_owned(),
                revision => format!("revision {revision}"),
            };
            format!(
                "get {} saw {seen}, but {} {} had seen revision {} before it was sent",
                get.sequence,
                name_of(before),
                before.sequence,
                before.revision
            )
        });
    }
}

fn name_of(op: &OpRecord) -> &'static str {
    if op.kind == Kind::Put { "put" } else { "get" }
}
