//! A real etcd, alone in its cluster, as a child process.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use api::etcdserverpb::RangeRequest;
use api::etcdserverpb::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{eventually, free_port};

pub(crate) struct Etcd {
    pub(crate) client: KvClient<Channel>,
    pub(crate) channel: Channel,
    child: Child,
}

impl Etcd {
    /// Starts it below `dir`, and waits until it answers.
    pub(crate) async fn start(dir: &Path) -> Self {
        let client = format!("http://{}", free_port());
        let peer = format!("http://{}", free_port());
        let log = File::create(dir.join("etcd.log")).expect("a log file");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run etcd: {error}; install the Debian package etcd-server")
            });
        let channel = Endpoint::from_shared(client).expect("an address").connect_lazy();
        let etcd = Self { client: KvClient::new(channel.clone()), channel, child };
        eventually("etcd answers", async || {
            let request = RangeRequest { key: "k".into(), ..Default::default() };
            etcd.client.clone().range(request).await.is_ok()
        })
        .await;
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
