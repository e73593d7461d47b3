//! Durable appends per second on this disk: the log against one growing file that is synced after
//! each append. Compare only within one run.
//!
//! `cargo bench -p bench-node --bench wal`; `RAFTBENCH_BENCH_DIR` chooses the disk (default: the
//! build's target directory).

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bench_node::DEFAULT_GROUP;
use bench_node::disk::{Blocking, Disk, DiskFile};
use bench_node::wal::{self, GroupWrite, Options, Writer};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft::{Entry, Payload, Write};

const VALUE_BYTES: usize = 256;
const WRITERS: [u64; 3] = [1, 8, 64];

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable_appends");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    for writers in WRITERS {
        group.bench_with_input(BenchmarkId::new("log", writers), &writers, |bencher, &writers| {
            let log = Log::start();
            bencher.iter_custom(|appends| timed(writers, appends, |_| log.append_and_wait()));
        });
        group.bench_with_input(BenchmarkId::new("growing", writers), &writers, |bencher, &n| {
            let dir = directory();
            let file = Blocking.create(&dir.path().join("growing")).expect("the disk has room");
            let end = Mutex::new(0);
            bencher.iter_custom(|appends| {
                timed(n, appends, |_| {
                    let mut end = end.lock().expect("no writer panics");
                    file.write_at(*end, &[7; VALUE_BYTES]).expect("the disk works");
                    file.sync().expect("the disk works");
                    *end += VALUE_BYTES as u64;
                })
            });
        });
    }
    group.finish();
}

/// The time that `writers` threads, each waiting for its own append, take for all of them.
fn timed(writers: u64, appends: u64, append: impl Fn(u64) + Sync) -> Duration {
    let taken = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers.min(appends) {
            let (taken, append) = (&taken, &append);
            scope.spawn(move || {
                while taken.fetch_add(1, Ordering::Relaxed) < appends {
                    append(writer);
                }
            });
        }
    });
    started.elapsed()
}

struct Log {
    writer: Writer,
    next_id: Mutex<u64>,
    persisted: Arc<(Mutex<u64>, Condvar)>,
    _dir: tempfile::TempDir,
}

impl Log {
    fn start() -> Self {
        let dir = directory();
        let (log, _) = wal::open(Blocking, &dir.path().join("wal"), Options::default())
            .expect("an empty directory is a fine log");
        let persisted = Arc::new((Mutex::new(0), Condvar::new()));
        let reported = Arc::clone(&persisted);
        let writer = Writer::start(
            log,
            move |groups| {
                *reported.0.lock().expect("no writer panics") = groups[0].1;
                reported.1.notify_all();
            },
            |error| panic!("{error}"),
            |_| {},
        );
        let writer = writer.expect("threads can be started");
        Self { writer, next_id: Mutex::new(1), persisted, _dir: dir }
    }

    fn append_and_wait(&self) {
        let id = {
            let mut next_id = self.next_id.lock().expect("no writer panics");
            let id = *next_id;
            *next_id += 1;
            let payload = Payload::Data(Bytes::from_static(&[7; VALUE_BYTES]));
            let entries = vec![Entry { term: 1, index: id, payload }];
            let write = Write { id, hard_state: None, base: None, entries };
            self.writer
                .submit(vec![GroupWrite { group: DEFAULT_GROUP, write }])
                .expect("the log works");
            id
        };
        let (persisted, changed) = &*self.persisted;
        let reached = persisted.lock().expect("no writer panics");
        drop(changed.wait_while(reached, |reached| *reached < id));
    }
}

fn directory() -> tempfile::TempDir {
    let disk = std::env::var_os("RAFTBENCH_BENCH_DIR").map(PathBuf::from);
    let disk = disk.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    tempfile::tempdir_in(disk).expect("the directory can be written to")
}

criterion_group!(benches, appends);
criterion_main!(benches);
