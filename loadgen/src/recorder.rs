//! Turns what happens to operations into their records.
//!
//! Invariant: every operation that was due has exactly one record, and a record is settled once.
//! An answer after the timeout is no answer: its operation stays unknown.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use history::{Kind, Outcome};
use tokio::task::AbortHandle;

use crate::progress::Progress;
use crate::record::OpRecord;
use crate::spec::{Consistency, LoadSpec};
use crate::target::{Answer, CallError};
use crate::workload::Values;

/// One worker's records.
pub(crate) struct Recorder {
    book: RefCell<Book>,
    values: Values,
    timeout_ns: i64,
    linearizable_reads: bool,
    progress: Arc<Progress>,
}

struct Book {
    ops: Vec<OpRecord>,
    settled: Vec<bool>,
    errors: ErrorTexts,
    /// Sent operations by their place in `ops`, which is the order of their deadlines, from the
    /// first that is not settled. A settled one lets go of its task.
    waiting: VecDeque<(usize, Option<AbortHandle>)>,
}

/// An operation that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) sequence: u64,
    pub(crate) process: u32,
    pub(crate) kind: Kind,
    pub(crate) key: u32,
    pub(crate) intended_ns: i64,
}

/// Which record an operation has in its worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(usize);

const NO_ANSWER: &str = "no answer before the timeout";
const NO_ANSWER_IN_DRAIN: &str = "no answer before the end of the drain";

impl Recorder {
    /// Room for `expected` operations is made now: growing in the middle of a run would stall it.
    pub(crate) fn new(
        spec: &LoadSpec,
        values: Values,
        progress: Arc<Progress>,
        expected: usize,
    ) -> Self {
        Self {
            book: RefCell::new(Book {
                ops: Vec::with_capacity(expected),
                settled: Vec::with_capacity(expected),
                errors: ErrorTexts::default(),
                waiting: VecDeque::new(),
            }),
            values,
            timeout_ns: spec.timeout.as_nanos() as i64,
            linearizable_reads: spec.reads == Consistency::Linearizable,
            progress,
        }
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    pub(crate) fn deadline_ns(&self, intended_ns: i64) -> i64 {
        intended_ns + self.timeout_ns
    }

    /// Opens a record; `sent_ns` if it was handed to its connection.
    pub(crate) fn open(&self, due: Due, node: u16, sent_ns: Option<i64>) -> Entry {
        let mut book = self.book.borrow_mut();
        book.ops.push(OpRecord {
            sequence: due.sequence,
            process: due.process,
            kind: due.kind,
            linearizable: due.kind != Kind::Get || self.linearizable_reads,
            key: due.key,
            node,
            intended_ns: due.intended_ns,
            sent_ns,
            completed_ns: None,
            outcome: Outcome::Unknown,
            read: None,
            revision: 0,
            error: None,
        });
        book.settled.push(false);
        if sent_ns.is_some() {
            self.progress.count_sent();
        }
        Entry(book.ops.len() - 1)
    }

    /// Records that an operation was never sent.
    pub(crate) fn unsent(&self, due: Due, node: u16, now_ns: i64, why: &str) {
        let entry = self.open(due, node, None);
        self.settle(entry, Some(now_ns), Err((Outcome::Fail, why)));
    }

    /// Remembers how to cancel an operation when its time is up.
    pub(crate) fn watch(&self, entry: Entry, task: AbortHandle) {
        self.book.borrow_mut().waiting.push_back((entry.0, Some(task)));
    }

    /// An answer came at `now_ns`.
    pub(crate) fn answered(&self, entry: Entry, now_ns: i64, answer: Answer) {
        let intended_ns = self.book.borrow().ops[entry.0].intended_ns;
        if now_ns > self.deadline_ns(intended_ns) {
            return self.timed_out(entry);
        }
        match answer {
            Answer::Error(CallError { outcome, text }) => {
                self.settle(entry, Some(now_ns), Err((outcome, &text)));
            }
            answer => self.settle(entry, Some(now_ns), Ok(answer)),
        }
    }

    /// No answer came in time.
    pub(crate) fn timed_out(&self, entry: Entry) {
        self.settle(entry, None, Err((Outcome::Unknown, NO_ANSWER)));
    }

    /// Settles and cancels what was due longer ago than the timeout. Gives the next deadline.
    pub(crate) fn expire(&self, now_ns: i64) -> Option<i64> {
        loop {
            let mut book = self.book.borrow_mut();
            let first = book.waiting.front()?.0;
            let deadline_ns = self.deadline_ns(book.ops[first].intended_ns);
            let settled = book.settled[first];
            if !settled && now_ns < deadline_ns {
                return Some(deadline_ns);
            }
            let (_, task) = book.waiting.pop_front()?;
            drop(book);
            if !settled {
                self.timed_out(Entry(first));
            }
            if let Some(task) = task {
                task.abort();
            }
        }
    }

    /// The run is over: whatever still waits stays unknown.
    pub(crate) fn close(&self) -> (Vec<OpRecord>, Vec<String>) {
        let open: Vec<usize> = {
            let mut book = self.book.borrow_mut();
            book.waiting.drain(..).filter_map(|(_, task)| task).for_each(|task| task.abort());
            (0..book.ops.len()).filter(|op| !book.settled[*op]).collect()
        };
        for op in open {
            self.settle(Entry(op), None, Err((Outcome::Unknown, NO_ANSWER_IN_DRAIN)));
        }
        let mut book = self.book.borrow_mut();
        (std::mem::take(&mut book.ops), std::mem::take(&mut book.errors).texts)
    }

    fn settle(
        &self,
        Entry(at): Entry,
        completed_ns: Option<i64>,
        what: Result<Answer, (Outcome, &str)>,
    ) {
        let mut book = self.book.borrow_mut();
        let book = &mut *book;
        if std::mem::replace(&mut book.settled[at], true) {
            return;
        }
        if let Ok(place) = book.waiting.binary_search_by_key(&at, |(op, _)| *op) {
            book.waiting[place].1 = None;
        }
        let error = what.as_ref().err().map(|(_, text)| book.errors.number(text));
        let op = &mut book.ops[at];
        op.completed_ns = completed_ns;
        op.error = error;
        op.outcome = match &what {
            Ok(_) => Outcome::Ok,
            Err((outcome, _)) => *outcome,
        };
        match what {
            Ok(Answer::Put { revision }) => op.revision = revision,
            Ok(Answer::Get { value, revision }) => {
                op.revision = revision;
                op.read = Some(self.values.read_answer(value.as_deref()));
            }
            Ok(Answer::Error(_)) | Err(_) => {}
        }
        if op.sent_ns.is_some() {
            self.progress.release();
        }
        self.progress.count_settled(op.outcome, op.latency_ns(self.timeout_ns));
    }
}

/// Distinct error texts, numbered.
#[derive(Default)]
pub(crate) struct ErrorTexts {
    pub(crate) texts: Vec<String>,
    numbers: HashMap<String, u16>,
}

/// Beyond this many distinct texts they are no longer told apart.
const MAX_ERROR_TEXTS: usize = 1000;

impl ErrorTexts {
    pub(crate) fn number(&mut self, text: &str) -> u16 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let text = if self.texts.len() + 1 < MAX_ERROR_TEXTS { text } else { "other errors" };
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u16;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}
