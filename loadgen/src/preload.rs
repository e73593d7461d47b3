//! Fills a cluster before the load begins: data that makes snapshots, start-up and catch-up as heavy
//! as they are in earnest.
//!
//! Invariant: these keys are not the load's. They are written once, are not measured, and belong to no
//! history; so a write that failed is simply written again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::etcdserverpb::PutRequest;
use api::etcdserverpb::kv_client::KvClient;
use tokio::time::Instant;

use crate::error::LoadError;
use crate::target::admin;
use crate::workload::Values;

/// Writes that are on their way at once.
const AT_ONCE: u32 = 32;
/// One write may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a write is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the cluster holds before the load begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preload {
    /// How many keys.
    pub keys: u32,
    /// Size of each value, in bytes.
    pub value_bytes: usize,
}

impl Preload {
    /// All values together.
    pub fn bytes(&self) -> u64 {
        u64::from(self.keys) * self.value_bytes as u64
    }
}

/// Writes every key under `prefix`; `written` counts them.
pub async fn fill(
    preload: &Preload,
    prefix: &str,
    endpoints: &[String],
    written: Arc<AtomicU32>,
) -> Result<(), LoadError> {
    let values = Values::new(preload.value_bytes, 0);
    let next = Arc::new(AtomicU32::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..AT_ONCE.min(preload.keys) {
        let (keys, prefix, endpoints) = (preload.keys, prefix.to_owned(), endpoints.to_vec());
        let (values, next, written) = (values.clone(), next.clone(), written.clone());
        writers.spawn(async move {
            let mut writer = Writer { endpoints, turn: number as usize, client: None };
            loop {
                let key = next.fetch_add(1, Ordering::Relaxed);
                if key >= keys {
                    return Ok(());
                }
                let value = values.value(u64::from(key));
                let key = format!("{prefix}{key:08}").into_bytes();
                writer.put(PutRequest { key: key.into(), value, ..Default::default() }).await?;
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.map_err(|_| LoadError::Worker)??;
    }
    Ok(())
}

struct Writer {
    endpoints: Vec<String>,
    turn: usize,
    client: Option<KvClient<tonic::transport::Channel>>,
}

impl Writer {
    /// Until it is written, at whichever endpoint.
    async fn put(&mut self, request: PutRequest) -> Result<(), LoadError> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.try_put(request.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(_) => {
                    (self.client, self.turn) = (None, self.turn + 1);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn try_put(&mut self, request: PutRequest) -> Result<(), LoadError> {
        let endpoint = &self.endpoints[self.turn % self.endpoints.len()];
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(KvClient::new(admin::channel(endpoint, CALL_TIMEOUT).await?)),
        };
        client.put(request).await.map(drop).map_err(admin::failed("put", endpoint))
    }
}
