//! Runs seeds on all cores, until one fails.
//!
//! The simulation of whole nodes has this file, too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) why: String,
}

/// Runs `work` for each seed, which panics where a property does not hold; what each thread
/// collected, or the lowest seed that failed.
pub(crate) fn run<T: Default + Send>(
    seeds: Range<u64>,
    work: impl Fn(u64, &mut T) + Sync,
) -> Result<Vec<T>, Failure> {
    // A failure is reported once, by the caller: the runs' own threads, which are unnamed, are quiet.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some() {
                report(panic);
            }
        }));
    });
    let next = AtomicU64::new(seeds.start);
    let run = || {
        let mut collected = T::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(collected);
            }
            if let Err(cause) = catch_unwind(AssertUnwindSafe(|| work(seed, &mut collected))) {
                next.store(seeds.end, Ordering::Relaxed);
                let text = cause.downcast_ref::<String>().cloned();
                let text = text.or_else(|| cause.downcast_ref().map(|text: &&str| (*text).into()));
                return Err(Failure { seed, why: text.unwrap_or_default() });
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        workers.into_iter().map(|worker| worker.join().expect("caught above")).collect::<Vec<_>>()
    });
    let (mut collected, mut failures) = (Vec::new(), BTreeMap::new());
    for result in results {
        match result {
            Ok(more) => collected.push(more),
            Err(failure) => _ = failures.insert(failure.seed, failure),
        }
    }
    failures.pop_first().map_or(Ok(collected), |(_, failure)| Err(failure))
}

/// A number in the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}
