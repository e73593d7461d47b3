//! What is seen of a fault: figures, and whether they show all of it.
//!
//! Invariant: a figure counts as right only where half of the fault could not have made it.

use api::agent::{Figure, Observation};

/// A count within so many deviations is right: one in a thousand is not.
const DEVIATIONS: f64 = 3.3;

/// Collects what is seen.
#[derive(Default)]
pub(super) struct Seen {
    right: Vec<String>,
    wrong: Vec<String>,
    figures: Vec<Figure>,
}

impl Seen {
    /// A part of the fault, as it shows.
    pub(super) fn part(&mut self, right: bool, reads: String) {
        if right { self.right.push(reads) } else { self.wrong.push(reads) }
    }

    /// A figure, before the fault and now.
    pub(super) fn figure(
        &mut self,
        name: impl Into<String>,
        before: Option<f64>,
        now: Option<f64>,
    ) {
        self.figures.push(Figure { name: name.into(), before, now });
    }

    /// All of it together; what is wrong comes first.
    pub(super) fn told(self) -> Observation {
        let bit = self.wrong.is_empty() && !self.right.is_empty();
        let mut seen = self.wrong;
        seen.extend(self.right);
        Observation { bit, seen: seen.join("; "), figures: self.figures }
    }
}

/// The least count that half of a fault does not reach which makes `asked` of them on average.
pub(super) fn more_than_half(asked: f64) -> f64 {
    let half = 0.5 * asked;
    half + DEVIATIONS * half.sqrt() + 4.0
}

/// The one in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
