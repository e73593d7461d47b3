//! The generator, the reading back and the audit against a real etcd.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use history::Outcome;
use loadgen::Load;
use loadgen::audit::{AuditVerdict, audit, read_final_state};
use loadgen::clock::RunClock;
use loadgen::record::ReadValue;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use loadgen::target::admin;
use loadgen::target::etcd::Etcd;

struct Node {
    child: Child,
    endpoint: String,
}

impl Node {
    /// One etcd with its data in `folder`, ready to answer.
    async fn start(folder: &Path, client: u16, peer: u16) -> Self {
        let (client, peer) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder)
            .args(["--name", "n1", "--initial-cluster", &format!("n1={peer}")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is not on the PATH; install the Debian package `etcd-server`");
        let node = Self { child, endpoint: client.trim_start_matches("http://").to_owned() };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = admin::status(&node.endpoint, Duration::from_secs(1)).await;
            if status.as_ref().is_ok_and(|status| status.leader != 0) {
                return node;
            }
            assert!(Instant::now() < deadline, "etcd does not start: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (a, b) = (bind(), bind());
    (a.local_addr().unwrap().port(), b.local_addr().unwrap().port())
}

fn spec(measure: Duration) -> LoadSpec {
    LoadSpec {
        arrivals: Arrivals::Poisson { rate_per_second: 300.0 },
        connections: 4,
        timeout: Duration::from_secs(5),
        max_outstanding: 20_000,
        reads: Consistency::Linearizable,
        put_share: 0.6,
        keys: Keys {
            prefix: "raftbench-test/".to_owned(),
            count: 2500,
            distribution: KeyDistribution::Zipfian { exponent: 0.99 },
        },
        value_bytes: 256,
        warmup: Duration::from_millis(500),
        measure,
        drain: Duration::from_secs(6),
        seed: 12,
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_loses_nothing_and_the_audit_sees_what_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let (client, peer) = free_ports();
    let mut node = Node::start(folder.path(), client, peer).await;
    let endpoints = [node.endpoint.clone()];
    let members = admin::member_list(&endpoints[0], Duration::from_secs(5)).await.unwrap();
    assert_eq!(members[0].name, "n1");

    let spec = spec(Duration::from_secs(6));
    let target = Arc::new(Etcd::new(&endpoints).unwrap());
    let load = Load::connect(&spec, target).await.unwrap();
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(50));
    let (result, node) = tokio::join!(load.run(clock, Arc::default()), async {
        tokio::time::sleep_until(clock.instant_at(2_000_000_000).into()).await;
        node.kill();
        tokio::time::sleep_until(clock.instant_at(2_500_000_000).into()).await;
        Node::start(folder.path(), client, peer).await
    });
    let result = result.unwrap();
    let count = |outcome| result.ops.iter().filter(|op| op.outcome == outcome).count();
    assert!(count(Outcome::Ok) > 1000, "{:?}", result.errors);
    assert!(count(Outcome::Fail) > 50, "{:?}", result.errors);
    assert!(result.ops.iter().any(|op| matches!(op.read, Some(ReadValue::Written(_)))));

    let state = read_final_state(&endpoints, &spec, Duration::from_secs(30)).await.unwrap();
    assert!(state.foreign.is_empty() && state.keys.len() > 100);
    let report = audit(&spec.keys, &result.ops, &state);
    assert_eq!(report.verdict, AuditVerdict::Pass, "{report:#?}");
    assert!(report.acked_writes > 500 && report.lost_writes == 0, "{report:?}");

    // The same run, and a key that is gone.
    let mut robbed = state.clone();
    let acked = result.ops.iter().find(|op| op.revision > 0 && op.read.is_none()).unwrap();
    robbed.keys.remove(&acked.key);
    assert_eq!(audit(&spec.keys, &result.ops, &robbed).verdict, AuditVerdict::Fail);
    drop(node);
}
