//! From a key's history that has no order to a small part of it that has none either.
//!
//! Invariant: every step keeps the meaning. If the history had an order, so would the part; so
//! a part without one proves that the history has none. The steps are:
//!
//! - the history ends at a moment: what had not begun is dropped; of what was under way, a read is
//!   dropped and a write becomes unknown (it may take effect later, or never). The earliest such
//!   moment at which no order exists is found by bisection, since it is so from then on;
//! - a read is dropped: it changed nothing;
//! - a cas becomes a put: it writes the same, and demands less;
//! - a write is dropped whose value no remaining operation observes: in any order, what follows it
//!   is an unconditional write or nothing, and does not miss it.
//!
//! Dropping goes by halves, quarters and so on, down to single operations (Zeller and Hildebrandt's
//! "Simplifying and isolating failure-inducing input", 2002). In the end no single operation can be
//! dropped in this way, unless the time ran out.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Instant;

use super::limits::Budget;
use super::prepare::{NONE, Step};
use super::records::NEVER_NS;
use super::search::{Decision, decide};

/// A part of a history.
#[derive(Debug)]
pub(super) struct Part {
    /// Places in the history, in its order.
    pub(super) places: Vec<usize>,
    /// No single operation can be dropped.
    pub(super) smallest: bool,
}

#[derive(Clone, Copy)]
struct Item {
    step: Step,
    place: usize,
}

/// Shrinks a history without an order, given in the order of invocation, until `deadline`.
pub(super) fn shrink(history: &[Step], deadline: Instant, memory_bytes: usize) -> Part {
    let items: Vec<Item> =
        history.iter().enumerate().map(|(place, step)| Item { step: *step, place }).collect();
    let shrinking = Shrinking { deadline, memory_bytes };
    let items = shrinking.reduced(shrinking.ended_early(items));
    let smallest = Instant::now() < deadline;
    Part { places: items.into_iter().map(|item| item.place).collect(), smallest }
}

struct Shrinking {
    deadline: Instant,
    memory_bytes: usize,
}

impl Shrinking {
    fn has_no_order(&self, items: &[Item]) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        let steps: Vec<Step> = items.iter().map(|item| item.step).collect();
        decide(&steps, Budget::new(self.deadline, self.memory_bytes)) == Decision::NoOrder
    }

    fn ended_early(&self, items: Vec<Item>) -> Vec<Item> {
        let took_effect = items.iter().filter(|item| item.step.must);
        let mut ends: Vec<i64> = took_effect.map(|item| item.step.complete_ns).collect();
        ends.sort_unstable();
        ends.dedup();
        // At the last of these it has none: that is the whole history, but for what came after.
        let (mut low, mut high, mut shortest) = (0, ends.len(), items);
        while low < high {
            let middle = low + (high - low) / 2;
            let shorter = until(&shortest, ends[middle]);
            if self.has_no_order(&shorter) {
                (high, shortest) = (middle, shorter);
            } else {
                low = middle + 1;
            }
        }
        shortest
    }

    fn reduced(&self, mut items: Vec<Item>) -> Vec<Item> {
        let mut size = items.len().div_ceil(2).max(1);
        loop {
            let mut changed = false;
            let mut start = 0;
            while start < items.len() {
                let end = items.len().min(start + size);
                match weakened(&items, start..end).filter(|weaker| self.has_no_order(weaker)) {
                    Some(weaker) => {
                        // What is left of the piece stays; go on behind it.
                        start = end - (items.len() - weaker.len());
                        (items, changed) = (weaker, true);
                    }
                    None => start = end,
                }
            }
            if size == 1 && !changed || Instant::now() >= self.deadline {
                return items;
            }
            size = (size / 2).max(1);
        }
    }
}

/// What was seen of a history until a moment.
fn until(items: &[Item], end_ns: i64) -> Vec<Item> {
    let begun = items.iter().filter(|item| item.step.invoke_ns <= end_ns);
    let seen = begun.filter_map(|item| match item.step {
        step if step.must && step.complete_ns <= end_ns => Some(*item),
        step if step.is_read() => None,
        step => Some(Item { step: Step { must: false, complete_ns: NEVER_NS, ..step }, ..*item }),
    });
    seen.collect()
}

/// Asks as little of a piece as the rest allows: without its reads, with puts for its cas, and
/// without the writes that nobody observes then. `None` if that asks no less.
fn weakened(items: &[Item], piece: Range<usize>) -> Option<Vec<Item>> {
    let asks = |item: &Item| item.step.observes != NONE;
    let others = items[..piece.start].iter().chain(&items[piece.end..]);
    let observed: HashSet<u32> =
        others.filter(|item| asks(item)).map(|item| item.step.observes).collect();
    let mut changed = false;
    let mut weaker = Vec::with_capacity(items.len());
    weaker.extend_from_slice(&items[..piece.start]);
    for item in &items[piece.clone()] {
        let is_kept = !item.step.is_read() && observed.contains(&item.step.writes);
        changed |= !is_kept || asks(item);
        if is_kept {
            weaker.push(Item { step: Step { observes: NONE, ..item.step }, ..*item });
        }
    }
    weaker.extend_from_slice(&items[piece.end..]);
    changed.then_some(weaker)
}
