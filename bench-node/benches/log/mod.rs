//! Writers that each wait for their own append, on a log of any disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bench_node::DEFAULT_GROUP;
use bench_node::disk::{Host, LogDisk};
use bench_node::wal::{self, GroupWrite, Options, Writer};
use bytes::Bytes;
use raft::{Entry, Payload, Write};

/// Bytes of each append.
pub(crate) const VALUE_BYTES: usize = 256;
/// How many write at once.
pub(crate) const WRITERS: [u64; 3] = [1, 8, 64];

/// The time that `writers` threads, each waiting for its own append, take for `appends` together.
pub(crate) fn timed(writers: u64, appends: u64, append: impl Fn() + Sync) -> Duration {
    let taken = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..writers.min(appends) {
            scope.spawn(|| {
                while taken.fetch_add(1, Ordering::Relaxed) < appends {
                    append();
                }
            });
        }
    });
    started.elapsed()
}

/// A log in a directory of its own, which goes with it.
pub(crate) struct Log {
    next: Mutex<Next>,
    _dir: tempfile::TempDir,
}

struct Next {
    writer: Writer,
    id: u64,
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
}

struct Waiting {
    id: u64,
    thread: Thread,
    done: Arc<AtomicBool>,
}

impl Log {
    /// An empty one.
    pub(crate) fn start(log_disk: LogDisk, options: Options) -> Self {
        let dir = directory();
        let (log, _) = wal::open(Host::new(log_disk), &dir.path().join("wal"), options)
            .expect("an empty directory is a fine log");
        let waiting = Arc::new(Mutex::new(VecDeque::<Waiting>::new()));
        let reported = Arc::clone(&waiting);
        let writer = Writer::start(
            log,
            move |groups| {
                let mut waiting = reported.lock().expect("no writer panics");
                while let Some(Waiting { thread, done, .. }) =
                    waiting.pop_front_if(|first| first.id <= groups[0].1)
                {
                    done.store(true, Ordering::Release);
                    thread.unpark();
                }
            },
            |error| panic!("{error}"),
            |_| {},
        );
        let writer = writer.expect("threads can be started");
        Self { next: Mutex::new(Next { writer, id: 0, waiting }), _dir: dir }
    }

    /// Appends, and waits until that is durable.
    pub(crate) fn append_and_wait(&self) {
        let done = Arc::new(AtomicBool::new(false));
        {
            let mut next = self.next.lock().expect("no writer panics");
            next.id += 1;
            let id = next.id;
            let payload = Payload::Data(Bytes::from_static(&[7; VALUE_BYTES]));
            let entries = vec![Entry { term: 1, index: id, payload }];
            let write = Write { id, hard_state: None, base: None, entries };
            let waiting = Waiting { id, thread: std::thread::current(), done: Arc::clone(&done) };
            next.waiting.lock().expect("no writer panics").push_back(waiting);
            let write = GroupWrite { group: DEFAULT_GROUP, write };
            next.writer.submit(vec![write]).expect("the log works");
        }
        while !done.load(Ordering::Acquire) {
            std::thread::park();
        }
    }
}

/// A directory on the disk to measure: `RAFTBENCH_BENCH_DIR`, or else the temporary one.
pub(crate) fn directory() -> tempfile::TempDir {
    let disk = std::env::var_os("RAFTBENCH_BENCH_DIR").map(PathBuf::from);
    let disk = disk.unwrap_or_else(std::env::temp_dir);
    tempfile::tempdir_in(disk).expect("the directory can be written to")
}
