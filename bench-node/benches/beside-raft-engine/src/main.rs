//! Durable appends per second, and how long one takes: the log with io_uring, with one write after
//! the other, and raft-engine, interleaved on the same disk, as a Markdown table of medians.
//!
//! `cargo run --release --manifest-path bench-node/benches/beside-raft-engine/Cargo.toml [ROUNDS]
//! [SECONDS] [IN_FLIGHT]`; `RAFTBENCH_BENCH_DIR` chooses the disk (default: that of temporary files).
//!
//! Each writer is a thread that waits for its own append of 256 bytes; in raft-engine each has a
//! region of its own, as raft-engine is used.

#[path = "../../log/mod.rs"]
mod log;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench_node::disk::LogDisk;
use bench_node::wal::Options;
use raft_engine::{Config, Engine, LogBatch};

use log::{Log, VALUE_BYTES, WRITERS, directory, timed};

const LOGS: [&str; 3] = ["io_uring", "blocking", "raft-engine"];
/// Appends before the clock starts: files are made, and memory is touched.
const WARM_UP: u64 = 3_000;

/// One run: appends per second, and what single ones took, in order.
struct Run {
    per_second: f64,
    took_us: Vec<u32>,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let rounds: u64 = arguments.next().unwrap_or(5);
    let seconds: u64 = arguments.next().unwrap_or(2);
    let in_flight: usize = arguments.next().unwrap_or(Options::default().max_in_flight as u64) as usize;
    let mut runs: BTreeMap<(u64, usize), Vec<Run>> = BTreeMap::new();
    for _ in 0..rounds {
        for writers in WRITERS {
            for (which, log) in LOGS.iter().enumerate() {
                runs.entry((writers, which)).or_default().push(run(log, writers, seconds, in_flight));
            }
        }
    }
    println!("{in_flight} in flight at most");
    println!("| writers | log | appends/s | over raft-engine | p50 us | p99 us |");
    println!("|---|---|---|---|---|---|");
    for writers in WRITERS {
        let rate = |which| median(runs[&(writers, which)].iter().map(|run| run.per_second));
        for (which, log) in LOGS.iter().enumerate() {
            let at = |share: f64| {
                median(runs[&(writers, which)].iter().map(|run| {
                    f64::from(run.took_us[((run.took_us.len() - 1) as f64 * share) as usize])
                }))
            };
            println!(
                "| {writers} | {log} | {:.0} | {:.2} | {:.0} | {:.0} |",
                rate(which),
                rate(which) / rate(LOGS.len() - 1),
                at(0.5),
                at(0.99)
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run(log: &str, writers: u64, seconds: u64, in_flight: usize) -> Run {
    let options = Options { max_in_flight: in_flight, ..Options::default() };
    match log {
        "io_uring" => of(&Log::start(LogDisk::IoUring, options), writers, seconds),
        "blocking" => of(&Log::start(LogDisk::Blocking, options), writers, seconds),
        _ => {
            let dir = directory();
            let path = dir.path().join("raft-engine").to_string_lossy().into_owned();
            let engine = Engine::open(Config { dir: path, ..Config::default() });
            let engine = engine.expect("an empty directory is a fine log");
            let next_region = AtomicU64::new(1);
            measure(writers, seconds, || write_to(&engine, &next_region))
        }
    }
}

fn of(log: &Log, writers: u64, seconds: u64) -> Run {
    measure(writers, seconds, || log.append_and_wait())
}

fn write_to(engine: &Engine, next_region: &AtomicU64) {
    thread_local! {
        static REGION: RefCell<(u64, u64)> = const { RefCell::new((0, 0)) };
    }
    REGION.with_borrow_mut(|(region, index)| {
        if *region == 0 {
            *region = next_region.fetch_add(1, Ordering::Relaxed);
        }
        *index += 1;
        let mut batch = LogBatch::with_capacity(1);
        batch.put(*region, index.to_be_bytes().to_vec(), vec![7; VALUE_BYTES]).expect("not too large");
        engine.write(&mut batch, true).expect("the disk works");
    });
}

fn measure(writers: u64, seconds: u64, append: impl Fn() + Sync) -> Run {
    timed(writers, WARM_UP, &append);
    let took_us = Mutex::new(Vec::new());
    let until = Instant::now() + Duration::from_secs(seconds);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                let mut own = Vec::new();
                loop {
                    let began = Instant::now();
                    append();
                    own.push(began.elapsed().as_micros() as u32);
                    if began > until {
                        break;
                    }
                }
                took_us.lock().expect("no writer panics").append(&mut own);
            });
        }
    });
    let elapsed = started.elapsed();
    let mut took_us = took_us.into_inner().expect("no writer panics");
    took_us.sort_unstable();
    Run { per_second: took_us.len() as f64 / elapsed.as_secs_f64(), took_us }
}
