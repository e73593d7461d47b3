//! `raftbench members` against nodes that `raftbench node` runs.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Address {
    client: String,
    peer: String,
    metrics: String,
}

impl Address {
    fn free() -> Self {
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
            listener.local_addr().expect("it is bound").to_string()
        };
        Self { client: port(), peer: port(), metrics: port() }
    }

    fn member(&self, name: &str) -> String {
        let Self { client, peer, .. } = self;
        format!("[[members]]\nname = {name:?}\npeer = {peer:?}\nclient = {client:?}\n")
    }
}

fn raftbench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a node whose [[members]] are given.
fn node(dir: &Path, name: &str, own: &Address, more: &str, members: &str) -> Running {
    let config = dir.join(format!("{name}.toml"));
    let Address { client, peer, metrics } = own;
    let text = format!(
        "name = {name:?}\ncluster = \"test\"\n{more}data_dir = {:?}\nclient_listen = {client:?}\n\
         peer_listen = {peer:?}\nmetrics_listen = {metrics:?}\nheartbeat_ms = 50\n\
         election_timeout_ms = 500\n{members}",
        dir.join(name)
    );
    std::fs::write(&config, text).expect("written");
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).expect("a file");
    let mut command = raftbench(&["node", "--config"]);
    Running(command.arg(config).stdout(Stdio::null()).stderr(log).spawn().expect("started"))
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Lists the members until the list has what is wanted.
#[track_caller]
fn lists(endpoint: &str, wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let output = raftbench(&["members", "--endpoint", endpoint]).output().expect("started");
        let text = told(&output);
        if output.status.success() && wanted(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "not in time: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn several_members_change_in_one_call() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let [n1, n2, n3] = [Address::free(), Address::free(), Address::free()];
    let _n1 = node(dir.path(), "n1", &n1, "", &n1.member("n1"));
    lists(&n1.client, |list| list.contains("n1"));

    let adds = [format!("n2={}", n2.peer), format!("n3={}", n3.peer)];
    let change = raftbench(&["members", "--endpoint", &n1.client, "change"])
        .args(["--add", &adds[0], "--add", &adds[1], "--wait-s", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    lists(&n1.client, |list| list.matches("unstarted").count() == 2);
    let contact = n1.member("to ask");
    let join = "join = true\n";
    let _n2 = node(dir.path(), "n2", &n2, join, &[n2.member("n2"), contact.clone()].concat());
    let _n3 = node(dir.path(), "n3", &n3, join, &[n3.member("n3"), contact].concat());
    let output = change.wait_with_output().expect("it ends");
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("join = true"), "what is to be done is said: {text}");
    let list = lists(&n1.client, |list| list.matches(" voter ").count() == 3);
    assert!(["n1", "n2", "n3"].iter().all(|name| list.contains(name)), "{list}");

    let change = |arguments: &[&str]| {
        raftbench(&["members", "--endpoint", &n3.client, "change"])
            .args(arguments)
            .output()
            .expect("started")
    };
    let output = change(&["--remove", "n9"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("--remove n9: no member has this name or id"));
    let output = change(&["--remove", "n1", "--remove", "n2"]);
    assert!(output.status.success(), "{}", told(&output));
    lists(&n3.client, |list| list.matches(" voter ").count() == 1 && !list.contains("n1 "));
}
