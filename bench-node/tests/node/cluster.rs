//! Clusters of real nodes in one process: each on a thread of its own, over real sockets and real
//! directories, stopped when they go out of scope.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{
    Member, MemberListRequest, PutRequest, RangeRequest, StatusRequest, StatusResponse,
};
use bench_node::disk::{Disk, Host, LogDisk};
use bench_node::{Config, Listeners, NodeError, NodeHandle};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    /// In the order n1, n2, ...
    pub nodes: Vec<Node>,
    /// The founders' configurations.
    texts: Vec<String>,
    settings: String,
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
        let text = |(i, [client, peer, metrics]): (usize, &[SocketAddr; 3])| {
            let name = format!("n{}", i + 1);
            format!(
                "name = {name:?}\ncluster = \"test\"\ndata_dir = {:?}\nclient_listen = \"{client}\"\n\
                 peer_listen = \"{peer}\"\nmetrics_listen = \"{metrics}\"\nheartbeat_ms = 50\n\
                 election_timeout_ms = 500\n{members}[settings]\n{settings}\n",
                dir.path().join(&name),
            )
        };
        let texts: Vec<_> = ports.iter().enumerate().map(text).collect();
        let node = |(text, ports): (&String, &[SocketAddr; 3])| Node {
            config: parse(text),
            client: ports[0],
            handle: None,
        };
        let nodes = texts.iter().zip(&ports).map(node).collect();
        Self { nodes, texts, settings: settings.to_owned(), dir }
    }

    /// A founder's configuration as it would be in another cluster.
    pub(crate) fn config_in(&self, cluster: &str, founder: usize) -> Config {
        let text = &self.texts[founder];
        parse(&text.replace("cluster = \"test\"", &format!("cluster = {cluster:?}")))
    }

    /// The configuration of a node that joins, under this name, in a directory of its own; it may ask
    /// every node that there is.
    pub(crate) fn joiner(&self, name: &str) -> Node {
        let [client, peer, metrics] = [free_port(), free_port(), free_port()];
        let member = |name: &str, peer: &str, client: &str| {
            format!("[[members]]\nname = {name:?}\npeer = {peer:?}\nclient = {client:?}\n")
        };
        let contact = |node: &Node| {
            let own = node.config.own();
            member(&format!("{}, to ask", own.name), &own.peer, &own.client)
        };
        let others: String = self.nodes.iter().map(contact).collect();
        let (own, settings) =
            (member(name, &peer.to_string(), &client.to_string()), &self.settings);
        let dir = self.dir.path().join(format!("{name}-{}", peer.port()));
        let text = format!(
            "name = {name:?}\ncluster = \"test\"\njoin = true\ndata_dir = {dir:?}\n\
             client_listen = \"{client}\"\npeer_listen = \"{peer}\"\n\
             metrics_listen = \"{metrics}\"\nheartbeat_ms = 50\nelection_timeout_ms = 500\n\
             {own}{others}[settings]\n{settings}\n",
        );
        Node { config: parse(&text), client, handle: None }
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
                let status = node.status().await.unwrap_or_default();
                let own = status.header.map_or(0, |header| header.member_id);
                leaders.push((own, status.leader));
            }
            let agreed = leaders.windows(2).all(|pair| pair[0].1 == pair[1].1);
            let leads = leaders.iter().position(|(own, leader)| *own != 0 && own == leader);
            if let (true, Some(leads)) = (agreed, leads) {
                let name = &running().nth(leads).expect("it was asked").config.name;
                return self.nodes.iter().position(|node| node.config.name == *name).expect("it");
            }
            assert!(Instant::now() < deadline, "no leader in time: {leaders:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("test.toml")).expect("a good configuration")
}

impl Node {
    pub(crate) fn start(&mut self) {
        self.handle = Some(self.try_start(Host::new(LogDisk::Auto)).expect("the node starts"));
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

    /// Its id, once it has one.
    pub(crate) async fn id(&self) -> Option<u64> {
        self.status().await?.header.map(|header| header.member_id)
    }

    pub(crate) fn cluster_api(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel())
    }

    /// The members, as it lists them without asking anybody.
    pub(crate) async fn members(&self) -> Vec<Member> {
        let asked = self.cluster_api().member_list(MemberListRequest { linearizable: false }).await;
        asked.map(|list| list.into_inner().members).unwrap_or_default()
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

/// Runs etcdctl against one member, beside whatever else the test does.
pub(crate) async fn etcdctl(node: &Node, args: &[&str]) -> (String, bool) {
    let endpoint = node.client.to_string();
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let run = move || {
        let mut all = vec!["--endpoints", &endpoint];
        all.extend(args.iter().map(String::as_str));
        run_program("etcdctl", "etcd-client", &all)
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

/// The same; it must succeed.
pub(crate) async fn etcdctl_ok(node: &Node, args: &[&str]) -> String {
    let (text, success) = etcdctl(node, args).await;
    assert!(success, "etcdctl {args:?} through {}: {text}", node.config.name);
    text
}

/// A port that was free a moment ago, that no other call gave, and that the system gives to no
/// outgoing connection: a node that is started again must find its ports free.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Not where other processes, which do the same, begin.
    let first = std::process::id() * 127;
    for _ in 0..20_000 {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (number % 22_000) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().expect("it is bound");
        }
    }
    panic!("no free port between 10000 and 32000");
}
