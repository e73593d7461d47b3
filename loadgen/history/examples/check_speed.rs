//! How fast a history is read and checked, and in how much memory.
//!
//! ```sh
//! cargo run --release -p history --example check_speed -- --operations 1000000 --keys 1000
//! ```
//!
//! Makes a linearizable history in a file, without keeping it, and checks that file as
//! `raftbench check` does. `--clients`, `--unknown SHARE`, `--values N` (drawn from so many; absent:
//! each write has its own), `--mix PUT,GET,CAS,DELETE`, `--seed`, `--out FILE` (kept, plain or
//! `.zst`).

#[path = "../tests/generate/mod.rs"]
mod generate;

use std::path::PathBuf;
use std::time::Instant;

use generate::Shape;
use history::linearizability::{CheckProgress, Checker, Limits};
use history::{Operation, Reader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut shape = Shape::of(1_000_000, 1_000, 16);
    let (mut seed, mut out) = (1, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--operations" => shape.operations = value.parse()?,
            "--keys" => shape.keys = value.parse()?,
            "--clients" => shape.clients = value.parse()?,
            "--unknown" => shape.unknown = value.parse()?,
            "--values" => shape.values = Some(value.parse()?),
            "--mix" => {
                let shares: Vec<f64> =
                    value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                shape.mix = shares.try_into().map_err(|_| "--mix needs four shares")?;
            }
            "--seed" => seed = value.parse()?,
            "--out" => out = Some(PathBuf::from(value)),
            _ => return Err(format!("{name} is not known; see the head of this file").into()),
        }
    }
    let folder = tempfile::tempdir()?;
    let path = out.unwrap_or_else(|| folder.path().join("history.jsonl"));
    write(&shape, seed, &path)?;
    let before = memory("VmHWM");

    let begun = Instant::now();
    let mut checker = Checker::default();
    for read in Reader::open(&path)? {
        let (line, operation) = read?;
        checker.add(line, &operation);
    }
    let read_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let report = checker.check(&Limits::default(), &CheckProgress::default());
    println!(
        "{:?}: {} operations ({} unknown writes) on {} keys, {} clients, {} bytes: read in {read_s:.2} s, \
         checked in {:.2} s; most memory {} (before reading: {before}); undecided keys: {}",
        report.verdict,
        report.operations,
        report.unknown_writes,
        report.keys,
        shape.clients,
        path.metadata()?.len(),
        begun.elapsed().as_secs_f64(),
        memory("VmHWM"),
        report.undecided.len(),
    );
    for violation in report.violations {
        println!("{}: {}", violation.key, violation.sentence);
    }
    Ok(())
}

/// From a thread of its own, as a generator keeps nothing.
fn write(
    shape: &Shape,
    seed: u64,
    path: &std::path::Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Operation>(1024);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            shape.generate(seed, |operation| {
                sender.send(operation).expect("the writer reads to the end");
            });
        });
        history::write(path, receiver)
    })?;
    Ok(())
}

/// A line of `/proc/self/status`.
fn memory(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or("unknown".into(), |(_, kb)| kb.trim().into())
}
