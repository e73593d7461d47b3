//! `etcdctl check perf` (Debian's etcd-client) against a real cluster: 50 clients, 150 puts a second,
//! for a minute. A test program of its own, so that nothing else runs beside it.
//!
//! What it says of speed (throughput, slowest request, deviation) is also about the machine, and a
//! machine that is busy with others may earn a FAIL of etcd's own. So what must hold is what does
//! not rest on speed: it runs to its end, no request errs, each of its three checks has a verdict,
//! and its last line and exit code agree with them. Where all pass, it must say PASS.

#[path = "node/cluster.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod cluster;

use api::etcdserverpb::RangeRequest;
use cluster::{Cluster, run_program};

/// What each check says when it passes, and when it does not (etcdctl 3.4 and 3.5).
const CHECKS: [[&str; 2]; 3] = [
    ["PASS: Throughput is ", "FAIL: Throughput too low: "],
    ["PASS: Slowest request took ", "Slowest request took too long: "],
    ["PASS: Stddev is ", "Stddev too high: "],
];

#[tokio::test]
async fn etcdctl_check_perf_comes_to_a_verdict_and_no_request_errs() {
    let cluster = Cluster::start(3, "");
    cluster.leader().await;
    let args = ["--endpoints", &cluster.endpoints(), "check", "perf"];
    let (text, success) = run_program("etcdctl", "etcd-client", &args);
    // Behind its progress bar, and on the bar's last line.
    let (_, text) = text.rsplit_once('%').unwrap_or(("", &text));
    let said = |words: &str| text.contains(words);

    assert!(!text.contains("ERROR") && !text.contains("too many errors"), "requests erred: {text}");
    for [pass, fail] in CHECKS {
        assert!(said(pass) != said(fail), "neither {pass:?} nor {fail:?}, or both: {text}");
    }
    let passed = CHECKS.iter().all(|[pass, _]| said(pass));
    assert_eq!(
        text.trim_end().lines().last(),
        Some(if passed { "PASS" } else { "FAIL" }),
        "{text}"
    );
    assert_eq!(success, passed, "{text}");
    println!("{text}");
    // What it wrote it has removed again: the last thing that must have worked.
    let (key, range_end) = ("/etcdctl-check-perf/".into(), "/etcdctl-check-perf0".into());
    let left = RangeRequest { key, range_end, count_only: true, ..Default::default() };
    let left = cluster.nodes[0].kv().range(left).await.expect("a read").into_inner();
    assert_eq!(left.count, 0);
    assert!(left.header.expect("one").revision > 5_000, "it wrote for a minute");
}
