//! Lowe's memory: the configurations that a search has entered.
//!
//! Invariant: exact. A configuration is kept whole, not as its hash, so that two are never taken
//! for one another.
//!
//! A configuration is entered in vain, too, if one was entered before that differs only in that it
//! had used less of what may have taken effect: whatever can be done from the new one could be done
//! from that one. (If that one is not left yet, the new one has come back to it by a detour, and a way
//! to an order without the detour is still to be tried there.)

use std::collections::HashMap;

/// Entered configurations, and about how many bytes they take.
#[derive(Default)]
pub(super) struct Seen {
    /// By register and taken steps that took effect: what had been used of the others, none of them
    /// covered by another.
    entered: HashMap<Box<[u32]>, Vec<Box<[u32]>>>,
    key: Vec<u32>,
    bytes: usize,
    /// The furthest that any of them has come.
    first: u32,
}

/// The cost of an element beside its own bytes: its place in a table or list that is not full, and
/// the allocation's.
const OVERHEAD_BYTES: usize = 48;

impl Seen {
    /// Enters a configuration; false if that is in vain. `first` is the rank of the first untaken
    /// step, `ahead` are the ranks that were taken beyond it, ascending. `used` holds, for each kind
    /// of twins of which some were taken, the last of them, ascending; `twins_of` tells their kind.
    pub(super) fn enter(
        &mut self,
        (state, first): (u32, u32),
        ahead: &[u32],
        used: &[u32],
        twins_of: impl Fn(u32) -> u32,
    ) -> bool {
        self.key.clear();
        self.key.extend([state, first]);
        self.key.extend_from_slice(ahead);
        let entered = match self.entered.get_mut(self.key.as_slice()) {
            Some(entered) => entered,
            None => {
                self.bytes += OVERHEAD_BYTES + size_of_val(self.key.as_slice());
                self.entered.entry(self.key.as_slice().into()).or_default()
            }
        };
        if entered.iter().any(|before| covers(before, used, &twins_of)) {
            return false;
        }
        entered.retain(|before| {
            let covered = covers(used, before, &twins_of);
            self.bytes -= if covered { OVERHEAD_BYTES + size_of_val(&**before) } else { 0 };
            !covered
        });
        self.bytes += OVERHEAD_BYTES + size_of_val(used);
        entered.push(used.into());
        self.first = self.first.max(first);
        true
    }

    /// Forgets all, if none can be reached from where the first untaken step has this rank.
    pub(super) fn forget_before(&mut self, first: u32) {
        if self.bytes > 0 && first > self.first {
            *self = Self { key: std::mem::take(&mut self.key), ..Self::default() };
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether `less` used nothing that `more` did not use.
fn covers(less: &[u32], more: &[u32], twins_of: &impl Fn(u32) -> u32) -> bool {
    let mut more = more.iter().copied();
    less.len() <= more.len()
        && less.iter().all(|last| {
            // Twins stand together, so a later kind's numbers are all larger.
            more.find(|other| other >= last || twins_of(*other) == twins_of(*last))
                .is_some_and(|other| other >= *last && twins_of(other) == twins_of(*last))
        })
}
