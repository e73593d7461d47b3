//! Clusters of real nodes in one process: each on a thread of its own, over real sockets and real
//! directories, stopped when they go out of scope.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{PutRequest, RangeRequest, StatusRequest, StatusResponse};
use bench_node::disk::{Blocking, Disk};
use bench_node::{Config, Listeners, NodeError, NodeHandle};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    /// In the order n1, n2, ...
    pub nodes: Vec<Node>,
    dir: TempDir,
}

pub(crate) struct Node {
    pub config: Config,
    pub client: SocketAddr,
    pub handle: Option<NodeHandle>,
}

impl Cluster {
    /// Starts so many nodes; `settings` goes into each configuration.
    pub(crate) fn start(size: usize, settings: &str) -> Self {
        let mut cluster = Self::unstarted(size, settings);
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster
    }

    /// Makes the configurations, and starts nothing.
    pub(crate) fn unstarted(size: usize, settings: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let ports: Vec<_> = (0..size).map(|_| [free_port(), free_port(), free_port()]).collect();
        let members: String = ports
            .iter()
            .enumerate()
            .map(|(i, [client, peer, _])| {
                format!(
                    "[[members]]\nname = \"n{}\"\npeer = \"{peer}\"\nclient = \"{client}\"\n",
                    i + 1
                )
            })
            .collect();
        let node = |(i, [client, peer, metrics]): (usize, &[SocketAddr; 3])| {
            let name = format!("n{}", i + 1);
            let text = format!(
                "name = {name:?}\ncluster = \"test\"\ndata_dir = {:?}\nclient_listen = \"{client}\"\n\
                 peer_listen = \"{peer}\"\nmetrics_listen = \"{metrics}\"\nheartbeat_ms = 50\n\
                 election_timeout_ms = 500\n{members}[settings]\n{settings}\n",
                dir.path().join(&name),
            );
            let config =
                Config::parse(&text, Path::new("test.toml")).expect("a good configuration");
            Node { config, client: *client, handle: None }
        };
        let nodes = ports.iter().enumerate().map(node).collect();
        Self { nodes, dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All client addresses, as `etcdctl --endpoints` wants them.
    pub(crate) fn endpoints(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(|node| node.client.to_string()).collect();
        all.join(",")
    }

    /// Waits until the running nodes agree on a leader that runs; its position.
    pub(crate) async fn leader(&self) -> usize {
        let running = || self.nodes.iter().filter(|node| node.handle.is_some());
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut leaders = Vec::new();
            for node in running() {
                leaders.push(node.status().await.map_or(0, |status| status.leader));
            }
            let agreed = leaders.windows(2).all(|pair| pair[0] == pair[1]);
            let leads = |node: &Node| node.config.id() == leaders[0] && node.handle.is_some();
            if let (true, Some(leader)) = (agreed, self.nodes.iter().position(leads)) {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader in time: {leaders:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Node {
    pub(crate) fn start(&mut self) {
        self.handle = Some(self.try_start(Blocking).expect("the node starts"));
    }

    pub(crate) fn try_start<D: Disk>(&self, disk: D) -> Result<NodeHandle, NodeError> {
        let listeners = Listeners::bind(&self.config)?;
        bench_node::start(self.config.clone(), listeners, disk)
    }

    pub(crate) fn stop(&mut self) {
        self.handle.take().expect("it runs").stop().expect("it ends well");
    }

    /// Ends it as if it were killed: it says nothing to anyone, and does not hand over.
    pub(crate) fn abort(&mut self) {
        self.handle.take().expect("it runs").abort();
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.client)).expect("an address").connect_lazy()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
    }

    pub(crate) async fn status(&self) -> Option<StatusResponse> {
        let status = MaintenanceClient::new(self.channel()).status(StatusRequest {}).await;
        status.ok().map(tonic::Response::into_inner)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<i64, tonic::Status> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = PutRequest { key, value, ..Default::default() };
        let response = self.kv().put(request).await?.into_inner();
        Ok(response.header.expect("a header").revision)
    }

    pub(crate) async fn get(
        &self,
        key: &str,
        serializable: bool,
    ) -> Result<Option<String>, tonic::Status> {
        let key = key.to_owned().into();
        let request = RangeRequest { key, serializable, ..Default::default() };
        let response = self.kv().range(request).await?.into_inner();
        let value = response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        Ok(value)
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a program of a Debian package to its end; what it printed and whether it succeeded.
pub(crate) fn run_program(program: &str, package: &str, args: &[&str]) -> (String, bool) {
    let output = Command::new(program).env("ETCDCTL_API", "3").args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {program}: {error}; install the Debian package {package}")
    });
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("it is bound")
}
