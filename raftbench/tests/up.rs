//! `raftbench up` gives a cluster that the real `etcdctl` (Debian's etcd-client) works on, through any
//! of its members, until Ctrl-C. (What each request answers in detail is tested in bench-node.)

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Bench, Running, profile, wait_for};
use nix::sys::signal::Signal;

/// What it printed; it must succeed.
#[track_caller]
fn etcdctl(endpoints: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]).args(args);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("this test needs `etcdctl` on the PATH ({error}): apt-get install etcd-client")
    });
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("etcdctl reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "etcdctl {args:?} on {endpoints}: {text}");
    text
}

#[test]
fn etcdctl_does_each_listed_thing_on_it_and_ctrl_c_ends_it() {
    let bench = Bench::with(&profile(""));
    let mut up = bench.command("up", "bench-node");
    let mut up = Running::start(up.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let cluster: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let nodes = cluster["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3, "{line}");
    let clients: Vec<_> = nodes.iter().map(|n| n["client"].as_str().expect("text")).collect();

    for client in &clients {
        let on = |args: &[&str]| etcdctl(client, args, "");
        assert_eq!(on(&["put", "a", "1"]), "OK\n");
        assert_eq!(on(&["put", "--prev-kv", "a", "2"]), "OK\na\n1\n");
        on(&["put", "b", "3"]);
        assert_eq!(on(&["get", "a"]), "a\n2\n");
        // Its own state, which follows the leader's.
        let own = || (on(&["get", "a", "--consistency=s"]) == "a\n2\n").then_some(());
        wait_for("the put in the member's own state", Duration::from_secs(20), own);
        assert_eq!(on(&["get", "a", "c"]), "a\n2\nb\n3\n");
        assert_eq!(on(&["get", "--prefix", "", "--limit=1"]), "a\n2\n");
        assert_eq!(on(&["get", "--prefix", "", "--keys-only"]), "a\n\nb\n\n");
        let txn = "value(\"a\") = \"2\"\n\nput a 5\nget b\n\nput a 6\n\n";
        assert_eq!(etcdctl(client, &["txn"], txn), "SUCCESS\n\nOK\n\nb\n3\n");
        assert_eq!(on(&["del", "--prefix", ""]), "2\n");
    }
    let all = clients.join(",");
    let status = etcdctl(&all, &["endpoint", "status"], "");
    assert_eq!(
        status.lines().filter(|line| line.contains(", true, false, ")).count(),
        1,
        "{status}"
    );
    let health = etcdctl(&all, &["endpoint", "health"], "");
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");
    let members = etcdctl(clients[0], &["member", "list"], "");
    for node in nodes {
        let (name, peer) =
            (node["name"].as_str().expect("text"), node["peer"].as_str().expect("text"));
        assert!(members.contains(&format!("started, {name}, http://{peer}, ")), "{members}");
    }

    up.signal(Signal::SIGINT);
    let ended = || up.0.try_wait().expect("ours");
    let status = wait_for("its end", Duration::from_secs(30), ended);
    assert_eq!(status.code(), Some(0));
    assert_eq!(bench.nodes(up.pid()), [] as [i32; 0]);
}
