//! Durable appends per second on this disk: the log with io_uring, with one write after the other,
//! and one growing file that is synced after each append. Compare only within one run.
//!
//! `cargo bench -p bench-node --bench wal`; `RAFTBENCH_BENCH_DIR` chooses the disk (default: that of
//! temporary files). `benches/beside-raft-engine` has raft-engine beside it.

mod log;

use std::sync::Mutex;
use std::time::Duration;

use bench_node::disk::{Blocking, Disk, DiskFile, LogDisk};
use bench_node::wal::Options;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use log::{Log, VALUE_BYTES, WRITERS, directory, timed};

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable_appends");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    for writers in WRITERS {
        for (name, log_disk) in [("io_uring", LogDisk::IoUring), ("blocking", LogDisk::Blocking)] {
            group.bench_with_input(BenchmarkId::new(name, writers), &writers, |bencher, &n| {
                let log = Log::start(log_disk, Options::default());
                bencher.iter_custom(|appends| timed(n, appends, || log.append_and_wait()));
            });
        }
        group.bench_with_input(BenchmarkId::new("growing", writers), &writers, |bencher, &n| {
            let dir = directory();
            let file = Blocking.create(&dir.path().join("growing")).expect("the disk has room");
            let end = Mutex::new(0);
            bencher.iter_custom(|appends| {
                timed(n, appends, || {
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

criterion_group!(benches, appends);
criterion_main!(benches);
