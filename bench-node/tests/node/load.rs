//! Clients that write and read all the while, each through one member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Node, eventually};

/// One client for each address, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Done>>,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Done {
    /// The last acknowledged value of each key, and what was written to it since without an answer.
    pub written: BTreeMap<String, (Option<String>, Vec<String>)>,
    /// Requests that failed.
    pub failures: Vec<String>,
    /// Those of them that were reads.
    pub failed_reads: usize,
}

impl Load {
    /// Each client has keys of its own.
    pub(crate) fn start(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let writer = |(number, address): (usize, SocketAddr)| {
            tokio::spawn(write(number, address, Arc::clone(&stop), Arc::clone(&written)))
        };
        let writers = addresses.into_iter().enumerate().map(writer).collect();
        Self { stop, written, writers }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn goes_on(&self, writes: usize) {
        let goal = self.written.load(Ordering::Relaxed) + writes;
        eventually("the load goes on", async || self.written.load(Ordering::Relaxed) >= goal).await;
    }

    pub(crate) async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Done::default();
        for writer in self.writers {
            let done = writer.await.expect("no panic");
            all.written.extend(done.written);
            all.failures.extend(done.failures);
            all.failed_reads += done.failed_reads;
        }
        assert!(!all.written.is_empty(), "nothing was written: {:?}", all.failures);
        all
    }
}

impl Done {
    /// Every acknowledged write is there, or a later one of the same key that got no answer.
    pub(crate) async fn assert_held_by(&self, node: &Node) {
        for (key, (acknowledged, unknown)) in &self.written {
            let read = node.get(key, false).await.expect("a read");
            let holds = read == *acknowledged || read.as_ref().is_some_and(|v| unknown.contains(v));
            assert!(holds, "{key}: read {read:?}, acknowledged {acknowledged:?}, {unknown:?}");
        }
    }
}

async fn write(
    number: usize,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
) -> Done {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = KvClient::new(endpoint.connect_lazy());
    let mut done = Done::default();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let (key, value) = (format!("{number}-{}", turn % 50), turn.to_string());
        let (acknowledged, unknown) = done.written.entry(key.clone()).or_default();
        let request = PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..Default::default()
        };
        match client.put(request).await {
            Ok(_) => {
                written.fetch_add(1, Ordering::Relaxed);
                (*acknowledged, *unknown) = (Some(value), Vec::new());
            }
            Err(error) => {
                unknown.push(value);
                done.failures.push(format!("put {key}: {error}"));
                continue;
            }
        }
        match read(&mut client, &key).await {
            Ok(value) if value == *acknowledged => {}
            Ok(value) => {
                done.failures.push(format!("get {key}: {value:?}, wrote {acknowledged:?}"));
                done.failed_reads += 1;
            }
            Err(error) => {
                done.failures.push(format!("get {key}: {error}"));
                done.failed_reads += 1;
            }
        }
    }
    done
}

async fn read(client: &mut KvClient<Channel>, key: &str) -> Result<Option<String>, tonic::Status> {
    let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let response = client.range(request).await?.into_inner();
    Ok(response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}
