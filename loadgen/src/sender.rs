//! Hands single operations to their connections; what the open and the closed loop share.
//!
//! Invariant: an operation is handed over now or recorded as never sent, now.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use history::Kind;

use crate::progress::Progress;
use crate::recorder::{Due, Entry, Recorder};
use crate::spec::{Consistency, LoadSpec};
use crate::target::{Answer, Connection, NotSent, Request};
use crate::timeline::Timeline;

/// One worker's connections and all that is needed to send over them.
pub(crate) struct Sender<C, T> {
    pub(crate) spec: LoadSpec,
    pub(crate) share: Share,
    pub(crate) lines: Vec<C>,
    pub(crate) timeline: T,
    pub(crate) recorder: Rc<Recorder>,
    pub(crate) progress: Arc<Progress>,
}

/// Which of the workers this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) number: usize,
    pub(crate) of: usize,
}

impl Share {
    /// Whether a connection is this worker's.
    pub(crate) fn holds(self, connection: usize) -> bool {
        connection % self.of == self.number
    }
}

const TOO_LATE: &str = "not sent before its timeout: the generator was held up";
const TOO_MANY: &str = "not sent: max_outstanding operations were waiting for answers";

impl<C: Connection, T: Timeline> Sender<C, T> {
    /// A connection of this worker, by its number in the run.
    pub(crate) fn line(&self, connection: usize) -> &C {
        &self.lines[connection / self.share.of]
    }

    /// Hands an operation to a connection of this worker, or records why it was not sent.
    pub(crate) fn hand_over(
        &self,
        connection: usize,
        due: Due,
        now_ns: i64,
    ) -> Option<(Entry, impl Future<Output = Answer> + 'static + use<C, T>)> {
        let Self { recorder, progress, .. } = self;
        let line = self.line(connection);
        // Known only now: a connection moves on when its endpoint breaks.
        let node = line.endpoint() as u16;
        if now_ns >= recorder.deadline_ns(due.intended_ns) {
            recorder.unsent(due, node, now_ns, TOO_LATE);
            return None;
        }
        if !progress.claim(self.spec.max_outstanding) {
            recorder.unsent(due, node, now_ns, TOO_MANY);
            return None;
        }
        match line.send(self.request(due)) {
            Ok(answer) => Some((recorder.open(due, node, Some(now_ns)), answer)),
            Err(NotSent(why)) => {
                progress.release();
                recorder.unsent(due, node, self.timeline.now_ns(), &why);
                None
            }
        }
    }

    fn request(&self, due: Due) -> Request {
        let key = Bytes::from(self.spec.keys.name(due.key));
        if due.kind == Kind::Put {
            Request::Put { key, value: self.recorder.values().value(due.sequence) }
        } else {
            Request::Get { key, linearizable: self.spec.reads == Consistency::Linearizable }
        }
    }
}
