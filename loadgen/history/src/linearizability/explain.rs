//! Says in a sentence what is wrong with operations that cannot be ordered, where they have a shape
//! that people know.
//!
//! Invariant: a sentence states facts of the recorded operations which alone admit no order. Where
//! no shape fits, it says only how many cannot be ordered.

use super::records::{ABSENT, Record, Texts};
use super::report::ViolationKind;
use crate::text::duration;
use crate::{Kind, Outcome, shorten};

/// A value's letters in a sentence.
const VALUE_LETTERS: usize = 24;

/// What is known of the key.
pub(super) struct Case<'a> {
    /// The operations that cannot be ordered, in the order of invocation.
    pub(super) part: &'a [Record],
    /// All operations of the key that were checked.
    pub(super) history: &'a [Record],
    /// Writes to it that never happened.
    pub(super) failed_writes: &'a [Record],
    pub(super) texts: &'a Texts<'a>,
}

/// What is wrong.
pub(super) struct Explanation {
    pub(super) kind: ViolationKind,
    pub(super) sentence: String,
    /// The operation whose answer could not be, as a place in the part.
    pub(super) culprit: usize,
    /// An operation that the sentence names and the part does not hold.
    pub(super) beside: Option<Record>,
}

/// A shape that fits.
struct Shape {
    kind: ViolationKind,
    sentence: String,
    beside: Option<Record>,
}

impl Case<'_> {
    pub(super) fn explain(&self) -> Explanation {
        // The one that answered last is looked at first.
        let mut observers: Vec<usize> = (0..self.part.len())
            .filter(|at| {
                self.part[*at].outcome == Outcome::Ok && observed(&self.part[*at]).is_some()
            })
            .collect();
        observers.sort_by_key(|at| std::cmp::Reverse(self.part[*at].complete_ns));
        let shapes =
            [Self::never_written, Self::before_its_write, Self::replaced_twice, Self::stale];
        let known = shapes.iter().find_map(|shape| {
            observers.iter().find_map(|at| {
                let Shape { kind, sentence, beside } = shape(self, &self.part[*at])?;
                Some(Explanation { kind, sentence, culprit: *at, beside })
            })
        });
        known.unwrap_or_else(|| Explanation {
            kind: ViolationKind::Unordered,
            sentence: format!(
                "no order of these {} operations agrees with what they answered",
                self.part.len()
            ),
            culprit: observers.first().copied().unwrap_or(self.part.len().saturating_sub(1)),
            beside: None,
        })
    }

    fn never_written(&self, read: &Record) -> Option<Shape> {
        let value = observed(read).filter(|value| *value != ABSENT)?;
        let writes = |record: &&Record| written(record) == Some(value);
        if self.history.iter().filter(writes).any(|record| record.line() != read.line()) {
            return None;
        }
        let found = self.found(read);
        Some(match self.failed_writes.iter().find(writes) {
            Some(failed) => Shape {
                kind: ViolationKind::FailedWriteRead,
                sentence: format!(
                    "{found}, but its only write, {}, had failed",
                    self.short(failed)
                ),
                beside: Some(*failed),
            },
            None => Shape {
                kind: ViolationKind::ValueNeverWritten,
                sentence: format!("{found}, which nobody ever wrote to this key"),
                beside: None,
            },
        })
    }

    fn before_its_write(&self, read: &Record) -> Option<Shape> {
        let value = observed(read).filter(|value| *value != ABSENT)?;
        let writes = self.history.iter().filter(|record| written(record) == Some(value));
        let first = writes.min_by_key(|record| record.invoke_ns)?;
        let early_ns = gap_ns(read, first)?;
        let sentence = format!(
            "{} and completed {} before its write, {}, was sent",
            self.found(read),
            duration(early_ns),
            self.short(first)
        );
        let missing = self.part.iter().all(|record| record.line() != first.line());
        let beside = missing.then_some(*first);
        Some(Shape { kind: ViolationKind::ReadBeforeWrite, sentence, beside })
    }

    fn replaced_twice(&self, cas: &Record) -> Option<Shape> {
        let value = observed(cas).filter(|_| cas.op == Kind::Cas)?;
        let is_other = |record: &&Record| {
            record.op == Kind::Cas
                && record.outcome == Outcome::Ok
                && record.expected == value
                && record.line() != cas.line()
        };
        let other = self.part.iter().find(is_other)?;
        let writes = self.part.iter().filter(|record| written(record) == Some(value)).count();
        // Absent it was once, before any write.
        if writes + usize::from(value == ABSENT) != 1 {
            return None;
        }
        let once = if value == ABSENT { "absent only once" } else { "written only once" };
        let sentence = format!(
            "{} and {} both replaced {}, which was {once}: one of the two updates is lost",
            self.short(other),
            self.short(cas),
            self.text(value)
        );
        Some(Shape { kind: ViolationKind::LostUpdate, sentence, beside: None })
    }

    /// A value was read that had been replaced before: something newer had been there already.
    fn stale(&self, read: &Record) -> Option<Shape> {
        let old = observed(read)?;
        let writes_old = |record: &&Record| written(record) == Some(old);
        let writers = self.part.iter().filter(writes_old).count();
        if writers + usize::from(old == ABSENT) != 1 {
            return None;
        }
        self.stale_after_write(read, old).or_else(|| self.stale_after_read(read, old))
    }

    /// The replacing write itself had completed, and had begun after the old value was there.
    fn stale_after_write(&self, read: &Record, old: u32) -> Option<Shape> {
        let replacing = |write: &&Record| written(write).is_some_and(|new| new != old);
        self.part.iter().filter(replacing).find_map(|write| {
            let late_ns = gap_ns(write, read)?;
            let since = self.was_there_before(old, write)?;
            let new = written(write)?;
            let seen = self.history.iter().any(|record| observed(record) == Some(new));
            let (kind, unseen) = match seen || new == ABSENT {
                true => (ViolationKind::StaleRead, String::new()),
                false => {
                    (ViolationKind::LostWrite, format!("; nobody ever read {}", self.text(new)))
                }
            };
            let sentence = format!(
                "{}, although it was sent {} after {} had completed; {since}{unseen}",
                self.found(read),
                duration(late_ns),
                self.short(write)
            );
            Some(Shape { kind, sentence, beside: None })
        })
    }

    /// Somebody had seen the new value already, and it is known to be newer.
    fn stale_after_read(&self, read: &Record, old: u32) -> Option<Shape> {
        let newer = |record: &&Record| {
            observed(record).is_some_and(|new| {
                let writers = self.part.iter().filter(|other| written(other) == Some(new));
                new != old && new != ABSENT && writers.count() == 1
            })
        };
        self.part.iter().filter(newer).find_map(|witness| {
            let late_ns = gap_ns(witness, read)?;
            let new = observed(witness)?;
            let about = |record: &&Record| [observed(record), written(record)].contains(&Some(new));
            let since = self
                .part
                .iter()
                .filter(about)
                .find_map(|later| self.was_there_before(old, later))?;
            let sentence = format!(
                "{}, although it was sent {} after {}; {since}",
                self.found(read),
                duration(late_ns),
                self.had_found(witness)
            );
            Some(Shape { kind: ViolationKind::StaleRead, sentence, beside: None })
        })
    }

    /// How it is known that a value was there before an operation was sent.
    fn was_there_before(&self, old: u32, later: &Record) -> Option<String> {
        if old == ABSENT {
            return Some("nobody had deleted it".to_owned());
        }
        let about = |record: &&Record| [observed(record), written(record)].contains(&Some(old));
        let earlier = self.part.iter().filter(about).find(|record| gap_ns(record, later).is_some());
        earlier.map(|earlier| {
            format!(
                "{} is older: {} had completed before {} was sent",
                self.text(old),
                brief(earlier),
                brief(later)
            )
        })
    }

    fn found(&self, read: &Record) -> String {
        match (read.op, read.value) {
            (Kind::Get, ABSENT) => format!("{} found no value", self.short(read)),
            (Kind::Get, value) => format!("{} returned {}", self.short(read), self.text(value)),
            _ => format!("{} found {}", self.short(read), self.text(read.expected)),
        }
    }

    fn had_found(&self, read: &Record) -> String {
        match read.op {
            Kind::Get => format!("{} had returned {}", self.short(read), self.text(read.value)),
            _ => format!("{} had found {}", self.short(read), self.text(read.expected)),
        }
    }

    /// As in "put `a` (line 7)".
    fn short(&self, record: &Record) -> String {
        let line = record.line();
        match record.op {
            Kind::Get => format!("get (line {line})"),
            Kind::Put => format!("put {} (line {line})", self.text(record.value)),
            Kind::Cas => format!(
                "cas {} -> {} (line {line})",
                self.text(record.expected),
                self.text(record.value)
            ),
            Kind::Delete => format!("delete (line {line})"),
        }
    }

    fn text(&self, value: u32) -> String {
        self.texts
            .value(value)
            .map_or("absent".to_owned(), |text| format!("`{}`", shorten(text, VALUE_LETTERS)))
    }
}

/// As in "put (line 7)".
fn brief(record: &Record) -> String {
    let op = match record.op {
        Kind::Put => "put",
        Kind::Get => "get",
        Kind::Cas => "cas",
        Kind::Delete => "delete",
    };
    format!("{op} (line {})", record.line())
}

fn observed(record: &Record) -> Option<u32> {
    match record.op {
        Kind::Get => Some(record.value),
        Kind::Cas => Some(record.expected),
        Kind::Put | Kind::Delete => None,
    }
}

fn written(record: &Record) -> Option<u32> {
    (record.op != Kind::Get).then_some(record.value)
}

/// From an operation's completion to another's invocation; `None` if the one does not precede the
/// other.
fn gap_ns(earlier: &Record, later: &Record) -> Option<i64> {
    (earlier.complete_ns < later.invoke_ns)
        .then(|| later.invoke_ns.saturating_sub(earlier.complete_ns))
}
