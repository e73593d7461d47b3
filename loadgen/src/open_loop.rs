//! The open loop: sends what is due when it is due, whatever became of what was sent before.
//!
//! Invariant: nothing here waits for an answer. An operation that cannot be handed over when its
//! turn comes fails, unsent and counted.

use std::future::Future;
use std::rc::Rc;

use crate::engine::TURNS;
use crate::recorder::{Due, Entry, Recorder};
use crate::schedule::Schedule;
use crate::sender::{Sender, Share};
use crate::spec::LoadSpec;
use crate::target::{Answer, Connection};
use crate::timeline::Timeline;
use crate::workload::Workload;

/// Operations sent in a row before answers get a turn, while the generator is behind. Each needs
/// a few turns of the runtime to be written, read and settled: with many more sends than turns, an
/// overloaded generator would send everything and hear nothing.
const BURST: usize = TURNS / 4;
/// The longest wait, so that a stop is noticed.
const LONGEST_WAIT_NS: i64 = 50_000_000;
/// How often the drain looks whether all is answered.
const DRAIN_STEP_NS: i64 = 5_000_000;

/// Sends this worker's share of the schedule and waits for the answers until the drain is over.
pub(crate) async fn drive<C: Connection, T: Timeline>(
    sender: Rc<Sender<C, T>>,
    schedule: Schedule,
) {
    let Sender { spec, timeline, recorder, progress, .. } = &*sender;
    let mut operations = operations(spec, sender.share, schedule);
    let mut next = operations.next();
    let end_ns = (spec.measure + spec.drain).as_nanos() as i64;
    while !progress.stopped() {
        let mut now_ns = timeline.now_ns();
        for _ in 0..BURST {
            let Some(due) = next.filter(|due| due.intended_ns <= now_ns) else { break };
            if let Some((entry, answer)) = sender.hand_over(due.process as usize, due, now_ns) {
                let settling = settle(recorder.clone(), timeline.clone(), entry, answer);
                recorder.watch(entry, tokio::task::spawn_local(settling).abort_handle());
            }
            next = operations.next();
            now_ns = timeline.now_ns();
        }
        let deadline_ns = recorder.expire(now_ns);
        let wake_ns = match (next, deadline_ns) {
            (Some(due), _) if due.intended_ns <= now_ns => {
                tokio::task::yield_now().await;
                continue;
            }
            (Some(due), Some(deadline_ns)) => due.intended_ns.min(deadline_ns),
            (Some(due), None) => due.intended_ns,
            (None, Some(_)) if now_ns < end_ns => now_ns + DRAIN_STEP_NS,
            (None, _) => break,
        };
        timeline.sleep_until(wake_ns.min(now_ns + LONGEST_WAIT_NS)).await;
    }
}

async fn settle<T: Timeline>(
    recorder: Rc<Recorder>,
    timeline: T,
    entry: Entry,
    answer: impl Future<Output = Answer>,
) {
    let answer = answer.await;
    recorder.answered(entry, timeline.now_ns(), answer);
}

/// The schedule with what each operation does; only those of this worker's connections.
fn operations(spec: &LoadSpec, share: Share, schedule: Schedule) -> impl Iterator<Item = Due> {
    // A stream of its own: the arrivals do not change with the mix or the keys.
    let mut workload = Workload::new(spec, spec.seed ^ 0x6f70_6572_6174_696f);
    let connections = spec.connections;
    (0u64..).zip(schedule).filter_map(move |(sequence, intended_ns)| {
        let (kind, key) = workload.draw();
        let connection = (sequence % connections as u64) as usize;
        share.holds(connection).then_some(Due {
            sequence,
            process: connection as u32,
            kind,
            key,
            intended_ns,
        })
    })
}
