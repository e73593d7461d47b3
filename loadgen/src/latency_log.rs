//! `load.hlog`: the latencies as an HdrHistogram interval log (V2, compressed), which the usual
//! tools read. Values are ns; the maxima in its lines are ms, as those tools expect.
//!
//! Invariant: a histogram without a tag holds every operation due in its second, not-ok ones as at
//! least their timeout; the tags `put` and `get` split the same operations by kind.

use std::io::Write;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use history::Kind;

use crate::error::LoadError;
use crate::record::{LoadResult, OpRecord};
use crate::spec::LoadSpec;
use crate::summary::{Distribution, measured};

const SECOND_NS: i64 = 1_000_000_000;

/// Writes the measured phase, a histogram a second; its time zero is `zero_unix_ns` after the Unix
/// epoch.
pub fn write_latency_log(
    to: &mut impl Write,
    spec: &LoadSpec,
    result: &LoadResult,
    zero_unix_ns: i128,
) -> Result<(), LoadError> {
    let failed = |problem: &dyn std::fmt::Debug| LoadError::LatencyLog(format!("{problem:?}"));
    let zero_ns = u64::try_from(zero_unix_ns).unwrap_or(0);
    let zero = SystemTime::UNIX_EPOCH + Duration::from_nanos(zero_ns);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("raftbench: latency in ns from the intended send time; maxima in ms")
        .with_start_time(zero)
        .with_base_time(zero)
        .with_max_value_divisor(1e6)
        .begin_log_with(to, &mut serializer)
        .map_err(|error| failed(&error))?;
    let tags = [None, Some((Kind::Put, "put")), Some((Kind::Get, "get"))];
    let mut rest = measured(&result.ops);
    let mut start_ns = 0;
    while !rest.is_empty() {
        let count = rest.partition_point(|op| op.intended_ns < start_ns + SECOND_NS);
        let (due, later) = rest.split_at(count);
        rest = later;
        for tag in tags {
            let latency = latency_of(spec, due, tag.map(|(kind, _)| kind));
            if latency.histogram.is_empty() {
                continue;
            }
            log.write_histogram(
                &latency.histogram,
                Duration::from_nanos(start_ns as u64),
                Duration::from_nanos(SECOND_NS as u64),
                tag.and_then(|(_, name)| Tag::new(name)),
            )
            .map_err(|error| failed(&error))?;
        }
        start_ns += SECOND_NS;
    }
    Ok(())
}

fn latency_of(spec: &LoadSpec, ops: &[OpRecord], kind: Option<Kind>) -> Distribution {
    let timeout_ns = spec.timeout.as_nanos() as i64;
    let mut latency = Distribution::new();
    for op in ops.iter().filter(|op| kind.is_none_or(|kind| op.kind == kind)) {
        latency.record(op.latency_ns(timeout_ns));
    }
    latency
}
