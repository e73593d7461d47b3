//! The `null` target: a gRPC server on loopback, in this process but on a thread of its own, that
//! answers at once and keeps nothing. What is measured against it is the generator.
//!
//! Invariant: everything is accepted, also during a stall; a stall only holds answers back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::etcdserverpb::kv_server::{Kv, KvServer};
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::error::LoadError;

/// A running null server; it ends when this is dropped.
#[derive(Debug)]
pub struct NullServer {
    address: SocketAddr,
    stall: Arc<Mutex<Option<(Instant, Instant)>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NullServer {
    /// Starts one on a free port of the loopback address.
    pub fn start() -> Result<Self, LoadError> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts one on this address.
    pub fn start_on(address: SocketAddr) -> Result<Self, LoadError> {
        let listener = std::net::TcpListener::bind(address)
            .map_err(LoadError::system("listen on a loopback port"))?;
        let address = listener
            .local_addr()
            .and_then(|address| listener.set_nonblocking(true).map(|()| address))
            .map_err(LoadError::system("listen on a loopback port"))?;
        let stall = Arc::new(Mutex::new(None));
        let store = NullStore { stall: stall.clone(), revision: AtomicI64::new(1) };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("null-server".to_owned())
            .spawn(move || serve(listener, store, stopped))
            .map_err(LoadError::system("start the null server's thread"))?;
        Ok(Self { address, stall, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, as an endpoint.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// The same, as an address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing is answered from `from` on for `length`.
    pub fn stall_at(&self, from: Instant, length: Duration) {
        if let Ok(mut stall) = self.stall.lock() {
            *stall = Some((from, from + length));
        }
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: std::net::TcpListener, store: NullStore, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let service = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .max_concurrent_streams(u32::MAX)
            .http2_max_pending_accept_reset_streams(Some(1 << 20))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(64 << 20)
            .add_service(KvServer::new(store))
            .serve_with_incoming(TcpListenerStream::new(listener));
        // Not a graceful stop: nothing is owed to anyone.
        tokio::select! {
            _ = service => {}
            _ = stopped => {}
        }
    });
}

struct NullStore {
    stall: Arc<Mutex<Option<(Instant, Instant)>>>,
    revision: AtomicI64,
}

impl NullStore {
    async fn hold_back(&self) {
        let stall = self.stall.lock().map_or(None, |stall| *stall);
        if let Some((from, until)) = stall
            && (from..until).contains(&Instant::now())
        {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 1 })
    }
}

#[tonic::async_trait]
impl Kv for NullStore {
    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.hold_back().await;
        let header = Self::header(self.revision.load(Ordering::Relaxed));
        Ok(Response::new(RangeResponse { header, ..Default::default() }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.hold_back().await;
        let header = Self::header(self.revision.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Response::new(PutResponse { header, prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the null target keeps nothing"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("the null target keeps nothing"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the null target keeps nothing"))
    }
}
