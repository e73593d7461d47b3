//! Reads the Prometheus text format, as far as the run keeps it.
//!
//! Invariant: a family that is not on the list costs no more than a look at its name, and what is
//! kept stands under the server's own names.

use std::collections::{BTreeMap, HashSet};

use crate::evidence::HistogramSample;

/// etcd's families that reports use or that explain an outage.
const ETCD: [&str; 18] = [
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_wal_write_bytes_total",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_network_disconnected_peers_total",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_failures_total",
    "etcd_server_has_leader",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
];

/// Of any other server all is kept, but for these: the runtime's and the library's own.
const NOISE: [&str; 6] = ["go_", "grpc_", "os_", "process_", "promhttp_", "etcd_"];

/// One scrape.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scrape {
    pub(super) values: BTreeMap<String, f64>,
    pub(super) histograms: BTreeMap<String, HistogramSample>,
}

/// Reads one answer of `/metrics`. Lines that are not understood are left out.
pub(super) fn parse(text: &str) -> Scrape {
    let mut scrape = Scrape::default();
    let mut histograms = HashSet::new();
    for line in text.lines() {
        if let Some(family) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" histogram"))
        {
            histograms.insert(family);
        } else if !line.starts_with('#') {
            read_sample(line, &histograms, &mut scrape);
        }
    }
    scrape
}

fn is_kept(family: &str) -> bool {
    ETCD.contains(&family) || !NOISE.iter().any(|prefix| family.starts_with(prefix))
}

fn read_sample(line: &str, histograms: &HashSet<&str>, scrape: &mut Scrape) -> Option<()> {
    let name = line.split(['{', ' ']).next().filter(|name| !name.is_empty())?;
    let part = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| {
        let family = name.strip_suffix(part)?;
        histograms.contains(family).then_some((family, part))
    });
    if !is_kept(part.map_or(name, |(family, _)| family)) {
        return None;
    }
    let rest = &line[name.len()..];
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest),
    };
    let value = number(value.split_ascii_whitespace().next()?)?;
    let Some((family, part)) = part else {
        scrape.values.insert(with_labels(name, labels), value);
        return Some(());
    };
    let (labels, bound) = without_bound(labels);
    let histogram = scrape.histograms.entry(with_labels(family, &labels)).or_default();
    match part {
        "_sum" => histogram.sum = value,
        "_count" => histogram.count = value as u64,
        _ => histogram.buckets.push((number(bound?)?.min(f64::MAX), value as u64)),
    }
    Some(())
}

fn with_labels(name: &str, labels: &str) -> String {
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") }
}

/// Takes `le` out of a bucket's labels. It is the last in what servers write, or the only one.
fn without_bound(labels: &str) -> (String, Option<&str>) {
    let Some(start) = labels.find("le=\"").filter(|at| *at == 0 || labels[..*at].ends_with(','))
    else {
        return (labels.to_owned(), None);
    };
    let bound_on = &labels[start + 4..];
    let Some((bound, after)) = bound_on.split_once('"') else { return (labels.to_owned(), None) };
    let before = labels[..start].trim_end_matches(',');
    let after = after.trim_start_matches(',');
    let comma = if before.is_empty() || after.is_empty() { "" } else { "," };
    (format!("{before}{comma}{after}"), Some(bound))
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        // JSON has no NaN; an unknown value is no value.
        _ => text.parse().ok().filter(|number: &f64| !number.is_nan()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_gauges_and_histograms_are_read_and_noise_is_left_out() {
        let scrape = parse(concat!(
            "# HELP etcd_disk_wal_fsync_duration_seconds Latencies.\n",
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram\n",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 5\n",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 7\n",
            "etcd_disk_wal_fsync_duration_seconds_sum 0.25\n",
            "etcd_disk_wal_fsync_duration_seconds_count 7\n",
            "# TYPE etcd_network_peer_round_trip_time_seconds histogram\n",
            "etcd_network_peer_round_trip_time_seconds_bucket{To=\"61f9\",le=\"0.5\"} 2\n",
            "etcd_network_peer_round_trip_time_seconds_count{To=\"61f9\"} 2\n",
            "# TYPE raft_term gauge\n",
            "raft_term 4\n",
            "follower_lag_entries{peer=\"n2\"} 1e3 1395066363000\n",
            "go_goroutines 100\n",
            "etcd_debugging_mvcc_put_total 3\n",
            "broken{ 1\n",
            "\n",
        ));
        let fsync = &scrape.histograms["etcd_disk_wal_fsync_duration_seconds"];
        assert_eq!(fsync.buckets, [(0.001, 5), (f64::MAX, 7)]);
        assert_eq!((fsync.sum, fsync.count), (0.25, 7));
        let rtt = &scrape.histograms["etcd_network_peer_round_trip_time_seconds{To=\"61f9\"}"];
        assert_eq!((&rtt.buckets[..], rtt.count), (&[(0.5, 2)][..], 2));
        let values: Vec<_> = scrape.values.iter().map(|(name, v)| (name.as_str(), *v)).collect();
        assert_eq!(values, [("follower_lag_entries{peer=\"n2\"}", 1000.0), ("raft_term", 4.0)]);
    }
}
