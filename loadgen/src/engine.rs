//! Runs a load: worker threads, their connections, and the merging of their records.
//!
//! Invariant: a worker is one thread with one single-threaded runtime, and a connection never
//! leaves its worker, so that from the timer to the socket a send crosses no thread. Every worker
//! walks the whole schedule and takes the operations of its own connections.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

use crate::clock::RunClock;
use crate::error::LoadError;
use crate::priority::first_while_it_needs_little;
use crate::progress::Progress;
use crate::record::{LoadResult, OpRecord};
use crate::recorder::{ErrorTexts, Recorder};
use crate::schedule::Schedule;
use crate::sender::{Sender, Share};
use crate::spec::{Arrivals, LoadSpec};
use crate::target::etcd::Etcd;
use crate::target::session::Session;
use crate::target::simulated::Simulated;
use crate::target::{Api, Connection, Target};
use crate::timeline::{RealTime, Timeline, VirtualTime};
use crate::workload::Values;
use crate::{closed_loop, open_loop};

/// Connects and runs; see [`Load`], which does it in two steps.
///
/// The clock must leave room for connecting before the first warm-up operation is due, or the
/// first operations are sent late, and recorded so.
pub async fn run<T: Target>(
    spec: &LoadSpec,
    target: Arc<T>,
    clock: RunClock,
    progress: Arc<Progress>,
) -> Result<LoadResult, LoadError> {
    Load::connect(spec, target).await?.run(clock, progress).await
}

/// A load whose connections are up, ready for its clock. Dropping it ends its threads.
#[derive(Debug)]
pub struct Load {
    workers: Vec<Worker>,
    endpoints: Vec<String>,
    first_due: Duration,
}

#[derive(Debug)]
struct Worker {
    start: oneshot::Sender<(RunClock, Arc<Progress>)>,
    done: oneshot::Receiver<WorkerResult>,
}

#[derive(Debug)]
struct WorkerResult {
    ops: Vec<OpRecord>,
    errors: Vec<String>,
    cpu_seconds: f64,
}

impl Load {
    /// The same for the endpoints of a cluster, spoken to by this interface.
    pub async fn connect_by(
        api: Api,
        spec: &LoadSpec,
        endpoints: &[String],
    ) -> Result<Self, LoadError> {
        match api {
            Api::Etcd => Self::connect(spec, Arc::new(Etcd::new(endpoints)?)).await,
            Api::Session => Self::connect(spec, Arc::new(Session::new(endpoints)?)).await,
        }
    }

    /// Starts the workers and brings every connection up.
    pub async fn connect<T: Target>(spec: &LoadSpec, target: Arc<T>) -> Result<Self, LoadError> {
        let endpoints = target.endpoints().to_vec();
        let count = workers(spec);
        let mut started = Vec::new();
        for number in 0..count {
            let (connected, connecting) = oneshot::channel();
            let (start, started_at) = oneshot::channel();
            let (finished, done) = oneshot::channel();
            let share = Share { number, of: count };
            let (spec, target) = (spec.clone(), target.clone());
            std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn(move || work(spec, share, &*target, connected, started_at, finished))
                .map_err(LoadError::system("start a worker thread"))?;
            started.push((connecting, Worker { start, done }));
        }
        let mut workers = Vec::new();
        for (connecting, worker) in started {
            connecting.await.map_err(|_| LoadError::Worker)??;
            workers.push(worker);
        }
        Ok(Self { workers, endpoints, first_due: spec.warmup })
    }

    /// Makes the load on this clock. If the returned future is dropped, the load stops.
    pub async fn run(
        self,
        clock: RunClock,
        progress: Arc<Progress>,
    ) -> Result<LoadResult, LoadError> {
        let mut broken_off = StopOnDrop(Some(progress.clone()));
        let mut results = Vec::new();
        let mut done = Vec::new();
        for worker in self.workers {
            worker.start.send((clock, progress.clone())).map_err(|_| LoadError::Worker)?;
            done.push(worker.done);
        }
        for worker in done {
            results.push(worker.await.map_err(|_| LoadError::Worker)?);
        }
        // Whoever watches this load may watch the next one with the same counters.
        broken_off.0 = None;
        let first_due = clock.instant_at(-(self.first_due.as_nanos() as i64));
        let wall = Instant::now().saturating_duration_since(first_due);
        Ok(merge(results, self.endpoints, wall))
    }
}

struct StopOnDrop(Option<Arc<Progress>>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(progress) = &self.0 {
            progress.stop();
        }
    }
}

/// The same engine against a simulated target on a virtual clock: the same run every time, in as
/// little real time as the processor needs. Waits end at whole milliseconds.
pub fn run_virtual(spec: &LoadSpec, target: &Simulated) -> Result<LoadResult, LoadError> {
    let runtime = runtime(true)?;
    let (wall, result) = runtime.block_on(async {
        let share = Share { number: 0, of: 1 };
        let lines = connect_lines(spec, share, target).await?;
        let start = tokio::time::Instant::now();
        let timeline = VirtualTime::starting_at(-(spec.warmup.as_nanos() as i64));
        let result = drive(spec.clone(), share, lines, timeline, Arc::default()).await;
        Ok((start.elapsed(), result))
    })?;
    Ok(merge(vec![result], target.endpoints().to_vec(), wall))
}

/// The cores belong to the cluster: half of them at most.
fn workers(spec: &LoadSpec) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, spec.connections.max(1))
}

/// How many tasks a worker's runtime polls before it looks at the timer and the sockets again:
/// few, for the sake of the send lag.
pub(crate) const TURNS: usize = 16;

fn runtime(paused: bool) -> Result<LocalRuntime, LoadError> {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(paused)
        .event_interval(TURNS as u32)
        .build_local(LocalOptions::default())
        .map_err(LoadError::system("start a runtime"))
}

/// The whole life of a worker thread.
fn work<T: Target>(
    spec: LoadSpec,
    share: Share,
    target: &T,
    connected: oneshot::Sender<Result<(), LoadError>>,
    start: oneshot::Receiver<(RunClock, Arc<Progress>)>,
    finished: oneshot::Sender<WorkerResult>,
) {
    let runtime = match runtime(false) {
        Ok(runtime) => runtime,
        Err(error) => return drop(connected.send(Err(error))),
    };
    runtime.block_on(async {
        tokio::task::spawn_local(first_while_it_needs_little(thread_cpu_seconds));
        let lines = match connect_lines(&spec, share, target).await {
            Ok(lines) => lines,
            Err(error) => return drop(connected.send(Err(error))),
        };
        if connected.send(Ok(())).is_err() {
            return;
        }
        // The sender is gone if the load was dropped before it ran.
        let Ok((clock, progress)) = start.await else { return };
        let Ok(timeline) = RealTime::new(clock) else { return };
        let _ = finished.send(drive(spec, share, lines, timeline, progress).await);
    });
}

async fn connect_lines<T: Target>(
    spec: &LoadSpec,
    share: Share,
    target: &T,
) -> Result<Vec<T::Connection>, LoadError> {
    let endpoints = target.endpoints();
    let lines = (0..spec.connections)
        .filter(|number| share.holds(*number))
        .map(|number| target.connect(number % endpoints.len()))
        .collect::<Result<Vec<_>, LoadError>>()?;
    for line in &lines {
        line.ready().await.map_err(|problem| LoadError::Unreachable {
            endpoint: endpoints[line.endpoint()].clone(),
            problem,
        })?;
    }
    Ok(lines)
}

async fn drive<C: Connection, T: Timeline>(
    spec: LoadSpec,
    share: Share,
    lines: Vec<C>,
    timeline: T,
    progress: Arc<Progress>,
) -> WorkerResult {
    let values = Values::new(spec.value_bytes, spec.seed);
    let recorder = Rc::new(Recorder::new(&spec, values, progress.clone(), expected(&spec, share)));
    let cpu_before = thread_cpu_seconds();
    let LoadSpec { arrivals, warmup, measure, seed, .. } = spec;
    let sender = Rc::new(Sender { spec, share, lines, timeline, recorder, progress });
    let open = |schedule| open_loop::drive(sender.clone(), schedule);
    match arrivals {
        Arrivals::Closed { clients } => closed_loop::drive(sender.clone(), clients).await,
        Arrivals::Constant { rate_per_second } => {
            open(Schedule::constant(rate_per_second, warmup, measure)).await;
        }
        Arrivals::Poisson { rate_per_second } => {
            open(Schedule::poisson(rate_per_second, warmup, measure, seed)).await;
        }
    }
    let cpu_seconds = thread_cpu_seconds() - cpu_before;
    let (ops, errors) = sender.recorder.close();
    WorkerResult { ops, errors, cpu_seconds }
}

/// How many operations a worker may expect; a closed loop tells only as it goes.
fn expected(spec: &LoadSpec, share: Share) -> usize {
    let seconds = (spec.warmup + spec.measure).as_secs_f64();
    match spec.arrivals {
        Arrivals::Closed { .. } => 0,
        Arrivals::Constant { rate_per_second } | Arrivals::Poisson { rate_per_second } => {
            ((rate_per_second * seconds * 1.1 / share.of as f64) as usize).min(MOST_EXPECTED)
        }
    }
}

/// Beyond it the memory is not asked for in advance.
const MOST_EXPECTED: usize = 20_000_000;

fn thread_cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0.0, |usage| {
        let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        us as f64 / 1e6
    })
}

/// One result from the workers': operations by intended send time, error texts renumbered.
fn merge(workers: Vec<WorkerResult>, endpoints: Vec<String>, wall: Duration) -> LoadResult {
    let mut errors = ErrorTexts::default();
    let mut result = LoadResult { endpoints, ..Default::default() };
    for worker in workers {
        let numbers: Vec<u16> = worker.errors.iter().map(|text| errors.number(text)).collect();
        result.cpu_seconds += worker.cpu_seconds;
        result.ops.extend(worker.ops.into_iter().map(|mut op| {
            op.error = op.error.map(|number| numbers[usize::from(number)]);
            op
        }));
    }
    result.ops.sort_by_key(|op| (op.intended_ns, op.sequence));
    result.errors = errors.texts;
    result.wall_seconds = wall.as_secs_f64();
    result
}
