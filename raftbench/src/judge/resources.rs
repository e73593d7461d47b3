//! What each node used in the measured phase.

use std::collections::{BTreeMap, BTreeSet};

use super::histograms::counts_by_node;
use super::scope::Span;
use super::summary::Resources;
use crate::evidence::{MetricSample, ProcessSample};

/// By node, in order of names; nodes whose process is not ours are left out.
pub(super) fn resources(
    samples: &[MetricSample],
    measured: Span,
    wal_fsync: &str,
) -> Vec<Resources> {
    let syncs: BTreeMap<&str, u64> = counts_by_node(samples, &[measured], wal_fsync);
    let counted: BTreeSet<&str> = samples
        .iter()
        .filter(|sample| sample.histograms.contains_key(wal_fsync))
        .map(|sample| sample.node.as_str())
        .collect();
    let mut looks: BTreeMap<&str, Vec<(u32, ProcessSample)>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| measured.contains(sample.t_ns)) {
        if let Some(process) = sample.process {
            looks.entry(&sample.node).or_default().push((sample.start, process));
        }
    }
    let used = |(node, looks): (&str, Vec<(u32, ProcessSample)>)| Resources {
        node: node.to_owned(),
        cpu_seconds: grown(&looks, |process| process.cpu_seconds),
        rss_bytes: looks.iter().map(|(_, process)| process.rss_bytes).max().unwrap_or(0),
        written_bytes: grown(&looks, |process| process.written_bytes as f64) as u64,
        syncs: counted.contains(node).then(|| syncs.get(node).copied().unwrap_or(0)),
    };
    looks.into_iter().map(used).collect()
}

/// Since the first look; a process that started since counts from zero.
fn grown(looks: &[(u32, ProcessSample)], value: impl Fn(&ProcessSample) -> f64) -> f64 {
    let mut sum = 0.0;
    for pair in looks.windows(2) {
        let ((before_start, before), (start, now)) = (&pair[0], &pair[1]);
        let base = if before_start == start { value(before) } else { 0.0 };
        sum += (value(now) - base).max(0.0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{S, histogram, sample};

    #[test]
    fn a_restarted_node_used_what_both_its_lives_did() {
        let look = |second: i64, start: u32, cpu_seconds: f64, rss_bytes: u64, syncs: u64| {
            let mut sample = sample("n1", second * S);
            sample.start = start;
            let written_bytes = syncs * 4096;
            sample.process = Some(ProcessSample { pid: 1, cpu_seconds, rss_bytes, written_bytes });
            sample.histograms.insert("fsync".into(), histogram([syncs, 0, 0, 0]));
            sample
        };
        let samples = [look(0, 0, 5.0, 10, 100), look(4, 0, 6.5, 30, 150), look(8, 1, 0.5, 20, 7)];
        let measured = Span { start_ns: 0, end_ns: 10 * S };
        let used = resources(&samples, measured, "fsync");
        assert_eq!(
            used,
            [Resources {
                node: "n1".into(),
                cpu_seconds: 2.0,
                rss_bytes: 30,
                written_bytes: 57 * 4096,
                syncs: Some(57),
            }]
        );
        assert_eq!(resources(&samples, measured, "other")[0].syncs, None);
    }
}
