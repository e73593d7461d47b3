//! The real `etcdctl` (Debian's etcd-client) is a client of bench-node, through any member.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, run_program};

const PACKAGE: &str = "etcd-client";

/// Runs etcdctl against one member; it must succeed.
fn etcdctl(endpoint: &str, args: &[&str]) -> String {
    let (text, success) =
        run_program("etcdctl", PACKAGE, &[&["--endpoints", endpoint], args].concat());
    assert!(success, "etcdctl {args:?} through {endpoint}: {text}");
    text
}

/// Runs etcdctl against one member; it must fail.
fn etcdctl_fails(endpoint: &str, args: &[&str]) -> String {
    let (text, success) =
        run_program("etcdctl", PACKAGE, &[&["--endpoints", endpoint], args].concat());
    assert!(!success, "etcdctl {args:?} through {endpoint} must fail: {text}");
    text
}

fn etcdctl_txn(endpoint: &str, txn: &str) -> String {
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint, "txn"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run etcdctl: {error}; install {PACKAGE}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(txn.as_bytes()).expect("etcdctl reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "etcdctl txn through {endpoint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn keys_through_the_leader_and_through_a_follower() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    for (prefix, node) in [("x/", leader), ("y/", (leader + 1) % 3)] {
        let endpoint = &cluster.nodes[node].client.to_string();
        let key = |name: &str| format!("{prefix}{name}");
        let (a, b, c) = (&key("a"), &key("b"), &key("c"));

        assert_eq!(etcdctl(endpoint, &["put", a, "1"]), "OK\n");
        assert_eq!(etcdctl(endpoint, &["put", "--prev-kv", a, "2"]), format!("OK\n{a}\n1\n"));
        etcdctl(endpoint, &["put", b, "3"]);
        etcdctl(endpoint, &["put", c, "4"]);

        assert_eq!(etcdctl(endpoint, &["get", a]), format!("{a}\n2\n"));
        assert_eq!(etcdctl(endpoint, &["get", a, "--consistency=s"]), format!("{a}\n2\n"));
        assert_eq!(etcdctl(endpoint, &["get", a, c]), format!("{a}\n2\n{b}\n3\n"));
        let all = format!("{a}\n2\n{b}\n3\n{c}\n4\n");
        assert_eq!(etcdctl(endpoint, &["get", "--prefix", prefix]), all);
        assert_eq!(
            etcdctl(endpoint, &["get", "--prefix", prefix, "--limit=1"]),
            format!("{a}\n2\n")
        );
        let keys = etcdctl(endpoint, &["get", "--prefix", prefix, "--keys-only"]);
        assert_eq!(keys, format!("{a}\n\n{b}\n\n{c}\n\n"));
        let json = etcdctl(endpoint, &["get", a, "-w", "json"]);
        assert!(json.contains("\"version\":2"), "{json}");

        let won =
            etcdctl_txn(endpoint, &format!("value(\"{a}\") = \"2\"\n\nput {a} 5\n\nput {a} 6\n\n"));
        assert_eq!(won, "SUCCESS\n\nOK\n");
        let lost =
            etcdctl_txn(endpoint, &format!("mod(\"{a}\") = \"1\"\n\nput {a} 7\n\nget {a}\n\n"));
        assert_eq!(lost, format!("FAILURE\n\n{a}\n5\n"));

        assert_eq!(etcdctl(endpoint, &["del", "--prev-kv", b]), format!("1\n{b}\n3\n"));
        assert_eq!(etcdctl(endpoint, &["del", b]), "0\n");
        assert_eq!(etcdctl(endpoint, &["del", "--prefix", prefix]), "2\n");
        assert_eq!(etcdctl(endpoint, &["get", "--prefix", prefix]), "");
    }
}

#[tokio::test]
async fn status_health_and_members() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let endpoints = cluster.endpoints();

    let status = etcdctl(&endpoints, &["endpoint", "status"]);
    let leads = |line: &&str| line.contains(", true, false, ");
    assert_eq!(status.lines().count(), 3, "{status}");
    let leading: Vec<_> = status.lines().filter(leads).collect();
    assert_eq!(leading.len(), 1, "{status}");
    assert!(leading[0].starts_with(&cluster.nodes[leader].client.to_string()), "{status}");
    etcdctl(&endpoints, &["endpoint", "status", "-w", "table"]);

    let health = etcdctl(&endpoints, &["endpoint", "health"]);
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");

    let members = etcdctl(&endpoints, &["member", "list"]);
    for node in &cluster.nodes {
        let line = format!(
            "{:x}, started, {}, http://{}, http://{}, false",
            node.config.id(),
            node.config.name,
            node.config.peer_listen,
            node.config.client_listen
        );
        assert!(members.contains(&line), "{line} in {members}");
    }

    etcdctl(&endpoints, &["alarm", "list"]);
    let hashes = etcdctl(&endpoints, &["endpoint", "hashkv"]);
    let mut hashes: Vec<_> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "all members hold the same: {hashes:?}");
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let endpoint = &cluster.endpoints();
    let cases: [(&[&str], &str); 6] = [
        (&["lease", "grant", "60"], "bench-node does not serve etcdserverpb.Lease/LeaseGrant"),
        (&["user", "list"], "bench-node does not serve"),
        (&["put", "k", "v", "--lease=1234"], "requested lease not found"),
        (&["get", "k", "--rev=99"], "required revision is a future revision"),
        (&["compact", "99"], "required revision is a future revision"),
        (&["put", "", "v"], "key is not provided"),
    ];
    for (args, answer) in cases {
        let text = etcdctl_fails(endpoint, args);
        assert!(text.contains(answer), "etcdctl {args:?}: {text}");
    }
}
