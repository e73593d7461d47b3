//! Is a history linearizable? Is there, for each key, an order of its operations that every
//! client's observations agree with, and that keeps two operations apart in time in that order?
//!
//! Invariant: sound both ways. `Pass` means that such an order was found for every key, `Fail` that
//! none exists for at least one; what the limits did not allow to decide is `Undecided`, with the
//! key's name. The verdict rests on intervals and values alone: revisions, nodes, and the order of
//! lines play no part in it, and values need not be unique.
//!
//! # What is checked
//! Each key is a register that starts absent. `put` writes, `delete` writes "absent", `get` reads,
//! and an ok `cas` found `expected` and wrote `value` in one step. An operation takes effect at one
//! moment between its invocation and its completion; equal times do not order.
//!
//! - ok: it took effect.
//! - unknown: it may take effect at any time after its invocation, or never. So does an unknown cas,
//!   if it finds what it expects; where it does not, it has no effect, which is the same as never.
//!   An unknown get tells nothing and is left out.
//! - fail: it never happened, and is left out. The compare of a failed cas did not match at some
//!   moment, but a fail is also what was never sent, so nothing is concluded from it.
//! - A serializable get is left out: it promises nothing of the kind.
//!
//! Linearizability is local (Herlihy and Wing 1990, theorem 1): a history is linearizable if each
//! key's is. Keys are therefore checked one by one, on all cores.
//!
//! # How
//! The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993): take any
//! operation that no untaken one precedes, if the register allows it; go back when nothing can be
//! taken. With Lowe's memory ("Testing for linearizability", 2017): a configuration (the set of
//! taken operations and the register) that led nowhere once is not entered again. That alone is
//! exponential in the number of operations under way at once, and unknown writes stay under way for
//! ever. Rules keep it small; each leaves a way to an order wherever there is one. The first two are
//! applied once, in `prepare`, the others in `search`:
//!
//! 1. **A value with one writer bounds it.** The write precedes every read of its value: it
//!    completes, in effect, by the first of their completions, and if an ok operation observed it,
//!    it happened, unknown or not. So an unknown write that was read is open no longer.
//! 2. **An unknown write that nobody can have observed is dropped.** In any order, what follows it
//!    is an unconditional write, or nothing: anything else would observe its value. Without it the
//!    order still stands. Observers are ok gets, ok cas, and unknown cas that are not dropped
//!    themselves, if they had not completed before the write was invoked. This holds for puts, cas
//!    and deletes; that keys start absent only means that "absent" is observed more often.
//! 3. **A read that can be taken is taken.** It changes nothing; whatever order there is, there is
//!    one with it here.
//! 4. **A block that closes is taken for good.** A write that is the last remaining writer of its
//!    value must be followed by all remaining observers of it, with nothing between them; where the
//!    last is a cas, its own value's follow in the same way. If the whole block can be taken now,
//!    and no cas that could go on from the present value can be taken now, then any order starts
//!    with an unconditional write and still stands with the block moved to its front. If the block
//!    cannot be completed, it cannot start here at all. Histories of puts and gets with unique
//!    values, such as this suite's own, are decided by rules 1 to 4 without ever going back (they
//!    are Gibbons and Korach's clusters: "Testing shared memories", 1997).
//! 5. **An unknown write is only taken for an observer** that could be taken right behind it
//!    (by the argument of rule 2).
//! 6. **Twins are taken in one order.** Of operations that do the same, the one that completes first
//!    goes first: in any order the two can change places.
//! 7. **No dead ends on sight.** A value that is still to be observed, and that nobody can write
//!    again, is not overwritten; and if the operation that holds all others up waits for a value,
//!    somebody must be able to write it now.
//! 8. **What led nowhere covers more than itself.** A configuration that differs from one that led
//!    nowhere only in that it used more of the unknown writes leads nowhere either (see `seen`).
//!
//! Quiescent moments need no rule of their own. A configuration is remembered as the operations
//! taken beyond the first untaken one (in the order of completion), so at a quiescent moment only the
//! register and the unknown writes used so far tell configurations apart, and what failed beyond it
//! fails once.
//!
//! What is NP-complete stays so (values that repeat, many deletes): for that there are [`Limits`].
//!
//! # A failure
//! The set of operations that cannot be ordered is made small by steps that keep its meaning (see
//! `shrink`), named where it has a known shape (see `explain`), and drawn by
//! [`timeline`](crate::timeline()).

mod explain;
mod keys;
mod limits;
mod prepare;
mod records;
mod report;
mod search;
mod seen;
mod shrink;

use std::borrow::Borrow;

pub use limits::{CheckProgress, Limits};
pub use report::{
    CheckReport, LeftOut, MAX_UNDECIDED, MAX_VIOLATIONS, MAX_WITNESSES, UndecidedKey, Verdict,
    Violation, ViolationKind, Witness,
};

use crate::Operation;
use records::Records;

/// Takes a history in, one operation after the other in any order, and checks it. It keeps about
/// 50 bytes for each operation, and each key and value once.
#[derive(Debug, Default)]
pub struct Checker {
    records: Records,
}

impl Checker {
    /// Takes in an operation; `line` is what the report calls it by.
    ///
    /// # Panics
    /// If the operation has a [`problem`](Operation::problem).
    pub fn add(&mut self, line: u64, operation: &Operation) {
        if let Some(problem) = operation.problem() {
            panic!("operation {line} is unsound: {problem}");
        }
        self.records.add(line, operation);
    }

    /// Checks what was taken in.
    pub fn check(self, limits: &Limits, progress: &CheckProgress) -> CheckReport {
        report::report(self.records.grouped(), limits, progress)
    }
}

/// Checks operations in memory, numbered from 1.
pub fn check<O: Borrow<Operation>>(
    operations: impl IntoIterator<Item = O>,
    limits: &Limits,
) -> CheckReport {
    let mut checker = Checker::default();
    for (index, operation) in operations.into_iter().enumerate() {
        checker.add(index as u64 + 1, operation.borrow());
    }
    checker.check(limits, &CheckProgress::default())
}
