//! A node from start to end: puts the parts together, and takes them apart again.
//!
//! Invariant: what cannot work is refused before anything is served: addresses are bound first,
//! then the data directory is locked and the log recovered. A node that stops answers what it can
//! within [`GRACE`], writes what waits, and gives the lock back.
//!
//! Who founded the group is read from the configuration once, and kept in the data directory; so
//! whatever the configuration says later, the log goes on from the same beginning.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use raft::{EntryId, NodeId, Recovered};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::DEFAULT_GROUP;
use crate::api::{self, MembersDesk, Saves, Shared};
use crate::config::{Config, Member};
use crate::disk::{Disk, Host, LogDisk, QueueKind};
use crate::driver::{self, Input, View};
use crate::error::NodeError;
use crate::events::{self, EventLog};
use crate::identity::{self, DataDir, Fresh};
use crate::kv::Store;
use crate::members::{Roster, Rosters};
use crate::metrics::Metrics;
use crate::peers::{
    Acquaintance, Depot, Links, Outboxes, Own, PeerService, find_own_id, keep_alive,
};
use crate::recovery::{RecoveredGroup, recover};
use crate::snapshot::{self, Snapshots};
use crate::wal::{self, WalError};

/// How long a node that stops waits for what is on its way.
const GRACE: Duration = Duration::from_millis(500);
/// How long a request waits for its commit, besides two election timeouts; as etcd.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// HTTP/2 windows: one connection may carry a whole load.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Streams of one connection at once; the admission of requests is what limits.
const MAX_STREAMS: u32 = 1 << 20;

/// Runs a node until SIGTERM or SIGINT, or until it must not go on.
pub fn run(config_path: &Path) -> Result<(), NodeError> {
    let config = Config::load(config_path)?;
    events::log_to_stderr();
    raise_file_limit();
    let runtime = runtime(&config)?;
    let result = runtime.block_on(async {
        let listeners = Listeners::bind(&config)?;
        let stop = termination()?;
        let disk = host_disk(&config);
        serve(config, listeners, disk, stop).await
    });
    if let Err(error) = &result {
        tracing::error!(error = error.to_string(), "persistent failure");
    }
    // Whoever still waits for the disk must not hold up the end for long.
    runtime.shutdown_timeout(GRACE);
    result
}

fn host_disk(config: &Config) -> Host {
    let settings = &config.settings;
    // What only the page cache is to hold must go through the page cache.
    let log_disk = if settings.unsafe_no_fsync { LogDisk::Blocking } else { settings.log_disk };
    Host::new(log_disk)
}

/// Each client takes a file, and the soft limit that shells give is low for a whole load.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(error = error.to_string(), "cannot raise the limit of open files");
    }
}

/// Runs a node on a thread of its own, over any disk.
pub fn start<D: Disk>(
    config: Config,
    listeners: Listeners,
    disk: D,
) -> Result<NodeHandle, NodeError> {
    let runtime = runtime(&config)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (kill, killed) = oneshot::channel::<()>();
    let name = config.name.clone();
    let work = move || {
        let serving = serve(config, listeners, disk, async {
            // A handle that was dropped stops its node, too.
            let _ = stopped.await;
        });
        let result = runtime.block_on(async {
            tokio::select! {
                biased;
                Ok(()) = killed => Ok(()),
                result = serving => result,
            }
        });
        runtime.shutdown_timeout(GRACE);
        result
    };
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| NodeError::Runtime { what: "the node's thread", error: error.into() })?;
    Ok(NodeHandle { stop, kill, thread })
}

/// A node that [`start`] started. Dropping it stops the node, without waiting.
pub struct NodeHandle {
    stop: oneshot::Sender<()>,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), NodeError>>,
}

impl NodeHandle {
    /// Stops the node, as SIGTERM does, and waits for its end.
    pub fn stop(self) -> Result<(), NodeError> {
        // A node that ended by itself does not listen any more.
        let _ = self.stop.send(());
        self.thread.join().expect("the node does not panic")
    }

    /// Ends the node where it is, as `kill -9` does, and waits for its end. What its log's thread
    /// had been given may still be written.
    pub fn abort(self) {
        // A node that ended by itself does not listen any more.
        let _ = self.kill.send(());
        // However it ended: nobody asked it to end well.
        let _ = self.thread.join();
    }

    /// Whether the node ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The three sockets of a node.
pub struct Listeners {
    client: std::net::TcpListener,
    peer: std::net::TcpListener,
    metrics: std::net::TcpListener,
}

impl Listeners {
    /// The addresses of the configuration.
    pub fn bind(config: &Config) -> Result<Self, NodeError> {
        Ok(Self {
            client: bind("client_listen", &config.client_listen)?,
            peer: bind("peer_listen", &config.peer_listen)?,
            metrics: bind("metrics_listen", &config.metrics_listen)?,
        })
    }
}

fn bind(key: &'static str, address: &str) -> Result<std::net::TcpListener, NodeError> {
    // As the standard library does on Unix, so that a node can start again at once where its
    // predecessor's connections linger: with SO_REUSEADDR.
    std::net::TcpListener::bind(address).map_err(|error| NodeError::Listen {
        key,
        address: address.to_owned(),
        error,
    })
}

fn runtime(config: &Config) -> Result<tokio::runtime::Runtime, NodeError> {
    let threads = config.settings.worker_threads.get();
    // With one thread, the one that asks does the work: no hand-over between threads.
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder
        .worker_threads(threads)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|error| NodeError::Runtime { what: "the runtime", error: error.into() })
}

fn termination() -> Result<impl Future<Output = ()>, NodeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| NodeError::Runtime {
        what: "the signal handlers",
        error: error.into(),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Everything from recovery to the end.
async fn serve<D: Disk>(
    config: Config,
    listeners: Listeners,
    disk: D,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let cluster_id = config.cluster_id();
    let mut stop = pin!(stop);
    let id = tokio::select! {
        id = own_id(&config, &disk) => id?,
        () = &mut stop => return Ok(()),
    };
    say_what_is_unsafe(&config);
    let metrics = Arc::new(Metrics::new());
    let founders = if config.join { &[] } else { &config.members[..] };
    let fresh = Fresh { incarnation: rand::random(), founders };
    let mut data_dir = DataDir::open_on(disk.clone(), &config.data_dir, cluster_id, id, fresh)?;
    // Directories from before this was kept have the configuration's.
    let founders = data_dir.founders().unwrap_or(founders).to_vec();
    let (inputs, inputs_taken) = mpsc::unbounded_channel();
    let log_failure = Arc::new(OnceLock::new());
    let snapshots =
        Snapshots::open(disk.clone(), &data_dir.snapshots_dir(), snapshot::Options::default())?;
    let opened =
        open_log(&config, disk, &data_dir, &founders, &snapshots, &inputs, &metrics, &log_failure)?;
    let Opened { log, queue, recovered, store } = opened;
    metrics.set_log_disk(queue.name);
    if founders.len() <= 1 {
        // Nobody else has to know a member that is alone, or that counts only once the log says so.
        // From here on its log must be there.
        data_dir.set_introduced()?;
    }
    let rosters = Rosters::at_start(&recovered)?;
    if rosters.committed.is_removed(id) {
        return Err(NodeError::Removed);
    }
    let (rosters, seen_rosters) = watch::channel(rosters);
    let events = EventLog::new(&config.name, seen_rosters.clone());
    let log = Arc::new(log);
    // A snapshot holds what is committed.
    let recent = recovered.snapshot.last.index > 0 || recovered.entries.is_empty();
    let restored = Arc::new(AtomicBool::new(recent));
    tracing::info!(
        node = config.name,
        term = recovered.hard_state.term,
        snapshot_index = recovered.snapshot.last.index,
        last_index = recovered.snapshot.last.index + recovered.entries.len() as u64,
        id = format!("{id:016x}"),
        unsafe_no_fsync = config.settings.unsafe_no_fsync,
        log_disk = queue.name,
        log_disk_because = queue.fallen_back,
        "started"
    );

    let (fatal, mut failures) = mpsc::unbounded_channel();
    let (view, seen_view) = watch::channel(View::default());
    let store = Arc::new(RwLock::new(with_bugs(&config, store)));
    let own = Own {
        id,
        cluster_id,
        address: config.own().peer.clone(),
        founders: founders.iter().map(|founder| founder.id).collect(),
    };
    let us = Arc::new(Acquaintance::new(
        own,
        seen_rosters.clone(),
        data_dir,
        inputs.clone(),
        fatal,
        Arc::clone(&metrics),
        events.clone(),
    ));
    let links = Arc::new(Links::new(id, config.election_timeout));
    links.adopt(&seen_rosters.borrow(), &us);
    let desk = MembersDesk::new(inputs.clone(), seen_rosters.clone());
    let shared = Arc::new(Shared {
        id,
        cluster_id,
        rosters: seen_rosters.clone(),
        desk: desk.clone(),
        store: Arc::clone(&store),
        restored: Arc::clone(&restored),
        inputs: inputs.clone(),
        view: seen_view,
        links: Arc::clone(&links),
        leader_patience: config.election_timeout * 3,
        admission: Arc::default(),
        saves: Saves::default(),
        permits_swap: config.settings.unsafe_configuration_swap,
        permits_local_write: config.settings.unsafe_local_write,
        metrics: Arc::clone(&metrics),
    });

    let depot = Depot::new(snapshots, Arc::clone(&links), id, inputs.clone(), Arc::clone(&metrics));

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&links).follow(seen_rosters, Arc::clone(&us)));
    let mut published =
        pin!(api::publish(Arc::clone(&shared), config.own().clone(), us.incarnation()));
    let (begin_end, end) = watch::channel(false);
    let clients = server()
        // For /metrics; gRPC has HTTP/2.
        .accept_http1(true)
        .add_routes(shared.client_routes())
        .serve_with_incoming_shutdown(incoming(listeners.client)?, ends(end.clone()));
    let alive = keep_alive(config.election_timeout);
    let peers = server()
        // A peer whose power went says nothing: its stream must not be held for dead hours.
        .http2_keepalive_interval(Some(alive))
        .http2_keepalive_timeout(Some(alive))
        .add_routes(shared.peer_routes())
        .add_service(PeerService::server(
            Arc::clone(&us),
            Arc::clone(&links),
            Arc::clone(&depot),
            desk,
        ))
        .serve_with_incoming(incoming(listeners.peer)?);
    let scraped = || crate::scrape::router(inputs.clone(), Arc::clone(&metrics));
    let scrapes = crate::scrape::serve(listeners.metrics, scraped())?;
    let clients = tokio::spawn(clients);
    tasks.spawn(async { drop(peers.await) });
    tasks.spawn(scrapes);

    let parts = driver::Parts {
        log: Arc::clone(&log),
        store,
        restored,
        outboxes: Outboxes::new(Arc::clone(&links), Arc::clone(&metrics)),
        inputs: inputs_taken,
        view,
        rosters,
        metrics,
        events,
        patience: REQUEST_PATIENCE + config.election_timeout * 2,
        snapshots: depot,
        settings: config.settings.clone(),
    };
    let mut driver = tokio::spawn(driver::run(raft_config(&config, id), recovered, parts));
    let result = tokio::select! {
        ended = &mut driver => ended.expect("the loop does not panic"),
        Some(failure) = failures.recv() => cancel(driver).await.and(Err(failure)),
        refused = &mut published => cancel(driver).await.and(Err(refused)),
        () = stop => {
            tracing::info!(node = config.name, "stopping");
            let _ = begin_end.send(true);
            let _ = inputs.send(Input::Stop);
            let ended = tokio::time::timeout(GRACE, &mut driver).await;
            // Clients that keep their connections open must not hide how the loop ended.
            let _ = tokio::time::timeout(GRACE, clients).await;
            match ended {
                Ok(ended) => ended.expect("the loop does not panic"),
                Err(_) => cancel(driver).await,
            }
        }
    };
    if matches!(result, Err(NodeError::Removed)) {
        // Who asked for it is to be answered, and the successor told to take over.
        let _ = begin_end.send(true);
        tokio::time::sleep(GRACE).await;
    }
    links.end_all();
    // Writes what waits: not here, for a disk that stalls would hold up the end; and not on one of
    // the runtime's own threads, which the same disk may hold. The data directory's lock stays with
    // it.
    let (closing, closed) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("wal-close".to_owned())
        .spawn(move || {
            drop(log);
            drop(us);
            drop(closing);
        })
        .map_err(|error| NodeError::Runtime { what: "the log's end", error: error.into() })?;
    if tokio::time::timeout(GRACE, closed).await.is_err() {
        tracing::warn!("the disk stalls: what waits for it was not acknowledged, and is left");
    }
    // It may have failed when the loop that listens had ended.
    result.and_then(|()| log_failure.get().map_or(Ok(()), |error| Err(error.clone().into())))
}

/// That of the data directory; else, of a founder, what follows from its name; else what the cluster
/// knows this node as.
async fn own_id<D: Disk>(config: &Config, disk: &D) -> Result<NodeId, NodeError> {
    match identity::member_of(disk, &config.data_dir)? {
        Some(id) if config.join => Ok(id),
        None if config.join => find_own_id(config).await,
        // Where it is another one's, opening it says so.
        _ => Ok(config.id()),
    }
}

fn say_what_is_unsafe(config: &Config) {
    let settings = &config.settings;
    let unsafe_settings = [
        ("unsafe_no_fsync", settings.unsafe_no_fsync),
        ("unsafe_configuration_swap", settings.unsafe_configuration_swap),
        ("unsafe_local_write", settings.unsafe_local_write),
    ];
    for (setting, _) in unsafe_settings.into_iter().filter(|(_, on)| *on) {
        tracing::warn!(setting, "UNSAFE: this setting breaks what the protocol promises");
    }
}

/// Ends the loop where it is; a result that it has already counts.
async fn cancel(driver: tokio::task::JoinHandle<Result<(), NodeError>>) -> Result<(), NodeError> {
    driver.abort();
    match driver.await {
        Err(error) if error.is_cancelled() => Ok(()),
        ended => ended.expect("the loop does not panic"),
    }
}

/// What was found in the data directory.
struct Opened {
    log: wal::Writer,
    queue: QueueKind,
    recovered: Recovered<Bytes>,
    store: Store,
}

#[allow(clippy::too_many_arguments, reason = "the parts of a node meet here, once")]
fn open_log<D: Disk>(
    config: &Config,
    disk: D,
    data_dir: &DataDir<D>,
    founders: &[Member],
    snapshots: &Snapshots<D>,
    inputs: &mpsc::UnboundedSender<Input>,
    metrics: &Arc<Metrics>,
    failure: &Arc<OnceLock<WalError>>,
) -> Result<Opened, NodeError> {
    let options = wal::Options {
        segment_bytes: config.settings.segment_bytes.get(),
        max_in_flight: config.settings.max_inflight_log_batches.get(),
        unsafe_no_fsync: config.settings.unsafe_no_fsync,
        // The first batch is durable before peers can write a member down.
        must_exist: data_dir.introduced(),
        ..wal::Options::default()
    };
    let (log, mut groups) = wal::open(disk, &data_dir.wal_dir(), options)?;
    let group = groups.remove(&DEFAULT_GROUP).unwrap_or_default();
    let RecoveredGroup { mut recovered, kv: store, damaged } =
        recover(DEFAULT_GROUP, group, snapshots, founding(founders))?;
    let membership = &mut recovered.snapshot.membership;
    if membership.context.is_empty() {
        // Written before there were records: the members are the founders.
        membership.context = Roster::founding(founders).context();
    }
    for damaged in &damaged {
        tracing::error!(reason = damaged.to_string(), "snapshot not used");
    }
    if let Some(cut) = log.cut() {
        let path = cut.path.display().to_string();
        tracing::warn!(path, offset = cut.offset, "cut a torn tail that was never acknowledged");
    }
    let queue = log.queue();
    let (persisted, failed, metrics) = (inputs.clone(), inputs.clone(), Arc::clone(metrics));
    let (grew, segment_bytes) = (inputs.clone(), log.options().segment_bytes);
    let failure = Arc::clone(failure);
    let writer = wal::Writer::start(
        log,
        // The loop that listens ends before its log does, if at all.
        move |groups| {
            for (group, id) in groups {
                drop(persisted.send(Input::Persisted(*group, *id, Instant::now())));
            }
        },
        move |error| {
            // It fails once.
            let _ = failure.set(error.clone());
            drop(failed.send(Input::LogFailed(error)));
        },
        move |appended| {
            metrics.observe_append(appended);
            if !appended.oldest_needed_by.is_empty() {
                let bytes = appended.segments as u64 * segment_bytes;
                drop(grew.send(Input::LogGrew(bytes, appended.oldest_needed_by.clone())));
            }
        },
    )?;
    Ok(Opened { log: writer, queue, recovered, store })
}

/// The membership that the log begins with.
fn founding(founders: &[Member]) -> raft::Snapshot<Bytes> {
    let membership = Roster::founding(founders).membership();
    raft::Snapshot { last: EntryId::default(), membership }
}

fn raft_config(config: &Config, id: NodeId) -> raft::Config {
    let settings = &config.settings;
    raft::Config {
        election_timeout: config.election_timeout,
        heartbeat: config.heartbeat,
        pre_vote: settings.pre_vote,
        check_quorum: settings.check_quorum,
        lease_reads: settings.lease_reads,
        max_clock_drift_percent: settings.max_clock_drift_percent,
        failover_hint: settings.failover_hint,
        failover_step: Duration::from_millis(settings.failover_step_ms),
        conflict_hints: settings.conflict_hints,
        max_append_entries: settings.max_append_entries.get(),
        max_append_bytes: settings.max_append_bytes.get(),
        max_inflight_appends: settings.max_inflight_appends.get(),
        commit_notice: Duration::from_millis(settings.commit_notice_ms),
        #[cfg(feature = "seeded-bugs")]
        bug: settings.seeded_bug.and_then(crate::config::SeededBug::of_raft),
        ..raft::Config::new(id, rand::random())
    }
}

#[cfg(not(feature = "seeded-bugs"))]
fn with_bugs(_: &Config, store: Store) -> Store {
    store
}

#[cfg(feature = "seeded-bugs")]
fn with_bugs(config: &Config, mut store: Store) -> Store {
    if config.settings.seeded_bug == Some(crate::config::SeededBug::LoseAcknowledgedWrite) {
        store.lose_one_put_in(100);
    }
    store
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        // After a pause, a client may have given up thousands of requests at once: that is no
        // attack, and ending its connection would fail all others on it.
        .http2_max_pending_accept_reset_streams(Some(MAX_STREAMS as usize))
        .http2_max_local_error_reset_streams(None)
}

fn incoming(listener: std::net::TcpListener) -> Result<TcpIncoming, NodeError> {
    let failed =
        |error: std::io::Error| NodeError::Runtime { what: "a listener", error: error.into() };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    Ok(TcpIncoming::from(listener).with_nodelay(Some(true)))
}

async fn ends(mut end: watch::Receiver<bool>) {
    // An error means that the node is gone: an end, too.
    let _ = end.wait_for(|end| *end).await;
}
