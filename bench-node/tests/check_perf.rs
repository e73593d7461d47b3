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

use cluster::{Cluster, run_program};

/// How each check begins when it passes, and when it does not (etcdctl 3.4 and 3.5).
const CHECKS: [[&str; 2]; 3] = [
    ["PASS: Throughput is ", "FAIL: Throughput too low: "],
    ["PASS: Slowest request took ", "Slowest request took too long: "],
    ["PASS: Stddev is ", "Stddev too high: "],
];

#[tokio::test]
async fn etcdctl_check_perf_passes() {
    let cluster = Cluster::start(3, "");
    cluster.leader().await;
    let args = ["--endpoints", &cluster.endpoints(), "check", "perf"];
    let (text, success) = run_program("etcdctl", "etcd-client", &args);
    // The progress bar ends each of its states with a carriage return.
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).collect();
    let said = |start: &str| lines.iter().any(|line| line.starts_with(start));

    assert!(!text.contains("ERROR") && !text.contains("too many errors"), "requests erred: {text}");
    for [pass, fail] in CHECKS {
        assert!(said(pass) != said(fail), "neither {pass:?} nor {fail:?}, or both: {text}");
    }
    let passed = CHECKS.iter().all(|[pass, _]| said(pass));
    let verdict = lines.iter().rev().find(|line| !line.is_empty());
    assert_eq!(verdict, Some(&if passed { "PASS" } else { "FAIL" }), "{text}");
    assert_eq!(success, passed, "{text}");
    // For whoever reads the test's output.
    println!("{}", lines.iter().filter(|l| l.contains("PASS") || l.contains("too ")).fold(
        String::new(),
        |text, line| text + line + "\n",
    ));
    // What it wrote it has removed again, and all members know it.
    for node in &cluster.nodes {
        let left = node.get("/etcdctl-check-perf/", false).await.expect("a read");
        assert_eq!(left, None);
    }
}
