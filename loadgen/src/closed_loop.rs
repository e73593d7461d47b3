//! The closed loop, for comparison: each client sends when its last answer came.
//!
//! Invariant: labelled wherever it is shown. A stall stops the clients, so hardly any operation
//! meets it, and the quantiles hide it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::recorder::Due;
use crate::sender::Sender;
use crate::target::Connection;
use crate::timeline::Timeline;
use crate::workload::Workload;

/// How long a client pauses whose operation could not be sent; it would only count failures.
const PAUSE_NS: i64 = 10_000_000;

/// Runs this worker's clients until the measured phase is over, and waits for the last answers.
pub(crate) async fn drive<C: Connection, T: Timeline>(sender: Rc<Sender<C, T>>, clients: usize) {
    let Sender { spec, share, timeline, .. } = &*sender;
    timeline.sleep_coarsely_until(-(spec.warmup.as_nanos() as i64)).await;
    let seed = spec.seed ^ (share.number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let source = Rc::new(Source {
        workload: RefCell::new(Workload::new(spec, seed)),
        next_sequence: Cell::new(share.number as u64),
    });
    let running: Vec<_> = (0..clients)
        .filter(|client| share.holds(client % spec.connections))
        .map(|client| tokio::task::spawn_local(run_client(sender.clone(), client, source.clone())))
        .collect();
    let end_ns = (spec.measure + spec.drain).as_nanos() as i64;
    for client in running {
        let abort = client.abort_handle();
        tokio::select! {
            _ = client => {}
            () = timeline.sleep_coarsely_until(end_ns) => abort.abort(),
        }
    }
}

/// What this worker's clients draw operations from. Sequence numbers are the worker's own.
struct Source {
    workload: RefCell<Workload>,
    next_sequence: Cell<u64>,
}

async fn run_client<C: Connection, T: Timeline>(
    sender: Rc<Sender<C, T>>,
    client: usize,
    source: Rc<Source>,
) {
    let Sender { spec, share, timeline, recorder, progress, .. } = &*sender;
    let connection = client % spec.connections;
    let end_ns = spec.measure.as_nanos() as i64;
    while !progress.stopped() {
        let now_ns = timeline.now_ns();
        if now_ns >= end_ns {
            break;
        }
        let (kind, key) = source.workload.borrow_mut().draw();
        let sequence = source.next_sequence.get();
        source.next_sequence.set(sequence + share.of as u64);
        let due = Due { sequence, process: client as u32, kind, key, intended_ns: now_ns };
        match sender.hand_over(connection, due, now_ns) {
            None => timeline.sleep_coarsely_until(now_ns + PAUSE_NS).await,
            Some((entry, answer)) => match tokio::time::timeout(spec.timeout, answer).await {
                Ok(answer) => recorder.answered(entry, timeline.now_ns(), answer),
                Err(_) => recorder.timed_out(entry),
            },
        }
    }
}
