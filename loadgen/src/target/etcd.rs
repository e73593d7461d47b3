//! The `etcd` target: whatever speaks etcd's KV service over plain TCP, etcd and bench-node alike.
//!
//! Invariant: an operation is sent once, over the connection it was meant for. A connection starts
//! at its own endpoint; where that breaks, it goes to the next one that answers and stays there, as
//! the clients of a cluster do. While it is nowhere, its operations fail at once as never sent;
//! what was on its way has an unknown outcome; nothing is sent again.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use api::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::grpc::{self, MethodUri};
use super::{Answer, Connection, NotSent, Request, Target};
use crate::error::LoadError;

/// A wait between attempts to connect starts here and doubles up to [`MAX_REDIAL`].
const MIN_REDIAL: Duration = Duration::from_millis(5);
const MAX_REDIAL: Duration = Duration::from_millis(80);
/// How long one attempt to connect may take, the server's first HTTP/2 answer included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long [`Connection::ready`] waits.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive windows that no answer fills, and that a stalled reader cannot turn into the bottleneck.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Requests that wait in HTTP/2 until the server's settings come; the engine's own bound is lower.
const FIRST_STREAMS: usize = 1 << 20;
/// After a stall, answers come to operations that timed out and were cancelled long ago. So many
/// are recognised; what comes beyond is dropped too, and never ends the connection.
const REMEMBERED_RESETS: usize = 100_000;

/// Endpoints that speak etcd's KV service.
#[derive(Clone, Debug)]
pub struct Etcd {
    endpoints: Vec<String>,
}

impl Etcd {
    /// Endpoints are `host:port`; a leading `http://` is taken off.
    pub fn new(endpoints: &[String]) -> Result<Self, LoadError> {
        if endpoints.is_empty() {
            let problem = "no endpoint is given".to_owned();
            return Err(LoadError::Endpoint { endpoint: String::new(), problem });
        }
        let endpoints = endpoints.iter().map(|e| host_and_port(e)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints })
    }
}

impl Target for Etcd {
    type Connection = EtcdConnection;

    fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn connect(&self, endpoint: usize) -> Result<EtcdConnection, LoadError> {
        EtcdConnection::open(&self.endpoints, endpoint)
    }
}

/// `host:port` of an endpoint as users write it.
pub(super) fn host_and_port(endpoint: &str) -> Result<String, LoadError> {
    let wrong = |problem: &str| {
        Err(LoadError::Endpoint { endpoint: endpoint.to_owned(), problem: problem.to_owned() })
    };
    if endpoint.starts_with("https://") {
        return wrong("TLS is not supported yet");
    }
    let bare = endpoint.trim().strip_prefix("http://").unwrap_or(endpoint.trim());
    let bare = bare.trim_end_matches('/');
    match bare.rsplit_once(':') {
        None => wrong("there is no port"),
        Some(("", _)) => wrong("there is no host"),
        Some((_, port)) if port.parse::<u16>().map_or(true, |port| port == 0) => {
            wrong("the port is not a number from 1 to 65535")
        }
        Some(_) if MethodUri::new(bare, "/").is_err() => wrong("this is not an address"),
        Some(_) => Ok(bare.to_owned()),
    }
}

/// One connection, and the task that keeps it up.
pub struct EtcdConnection {
    link: Rc<Link>,
    keeper: AbortHandle,
}

impl EtcdConnection {
    fn open(endpoints: &[String], home: usize) -> Result<Self, LoadError> {
        let endpoints =
            endpoints.iter().map(|name| Endpoint::new(name)).collect::<Result<_, _>>()?;
        let link = Rc::new(Link {
            endpoints,
            at: Cell::new(home),
            state: RefCell::new(Err("not connected yet".to_owned())),
            changed: Notify::new(),
            redial: Notify::new(),
        });
        let keeper = tokio::task::spawn_local(keep_up(link.clone())).abort_handle();
        Ok(Self { link, keeper })
    }
}

impl Drop for EtcdConnection {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Connection for EtcdConnection {
    fn endpoint(&self) -> usize {
        self.link.at.get()
    }

    async fn ready(&self) -> Result<(), String> {
        let up = async {
            while self.link.state.borrow().is_err() {
                self.link.changed.notified().await;
            }
        };
        let in_time = tokio::time::timeout(READY_TIMEOUT, up).await.is_ok();
        if in_time {
            Ok(())
        } else {
            self.link.state.borrow().as_ref().map(drop).map_err(Clone::clone)
        }
    }

    fn send(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = Answer> + 'static + use<>, NotSent> {
        let endpoint = self.link.endpoint();
        let mut state = self.link.state.borrow_mut();
        let connection = match &mut *state {
            Ok(connection) => connection,
            Err(why) => return Err(NotSent(format!("{}: {why}", endpoint.name))),
        };
        // A fresh handle each time: a handle refuses to queue a second request while its first
        // waits for a free stream, and waiting is what open-loop requests must do.
        let mut handle = connection.clone();
        let (kind, started) = match request {
            Request::Put { key, value } => {
                let message = PutRequest { key, value, ..Default::default() };
                (Kind::Put, grpc::start(&mut handle, &endpoint.put, &message))
            }
            Request::Get { key, linearizable } => {
                let serializable = !linearizable;
                let message = RangeRequest { key, serializable, ..Default::default() };
                (Kind::Get, grpc::start(&mut handle, &endpoint.range, &message))
            }
        };
        match started {
            Ok(response) => Ok(answer(kind, response)),
            Err(NotSent(why)) => {
                *state = Err(why.clone());
                self.link.redial.notify_one();
                Err(NotSent(format!("{}: {why}", endpoint.name)))
            }
        }
    }
}

enum Kind {
    Put,
    Get,
}

async fn answer(kind: Kind, response: h2::client::ResponseFuture) -> Answer {
    let answer = match kind {
        Kind::Put => grpc::finish::<PutResponse>(response)
            .await
            .map(|put| Answer::Put { revision: put.header.map_or(0, |header| header.revision) }),
        Kind::Get => {
            grpc::finish::<RangeResponse>(response).await.map(|mut range| match range.kvs.pop() {
                None => Answer::Get { value: None, revision: 0 },
                Some(kv) => Answer::Get { value: Some(kv.value), revision: kv.mod_revision },
            })
        }
    };
    answer.unwrap_or_else(Answer::Error)
}

/// What the connection and its keeper share.
struct Link {
    endpoints: Vec<Endpoint>,
    /// Which of them operations go to, or would if it were up.
    at: Cell<usize>,
    /// Up, or why not.
    state: RefCell<Result<SendRequest<Bytes>, String>>,
    changed: Notify,
    redial: Notify,
}

struct Endpoint {
    name: String,
    put: MethodUri,
    range: MethodUri,
}

impl Endpoint {
    fn new(name: &str) -> Result<Self, LoadError> {
        let method = |path| {
            MethodUri::new(name, path).map_err(|error| LoadError::Endpoint {
                endpoint: name.to_owned(),
                problem: error.to_string(),
            })
        };
        Ok(Self {
            name: name.to_owned(),
            put: method("/etcdserverpb.KV/Put")?,
            range: method("/etcdserverpb.KV/Range")?,
        })
    }
}

impl Link {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.at.get()]
    }

    fn down(&self, why: String) {
        *self.state.borrow_mut() = Err(why);
        self.changed.notify_waiters();
    }
}

/// Dials, waits for the end of the connection, and dials the next endpoint, for as long as the run
/// lasts. Until it was up once it stays with its own: an endpoint that never answered is for the
/// user to know of, not to be worked around.
async fn keep_up(link: Rc<Link>) {
    let mut wait = MIN_REDIAL;
    let mut was_up = false;
    let mut refusals = 0;
    loop {
        match dial(&link.endpoint().name).await {
            Ok((sender, driver)) => {
                wait = MIN_REDIAL;
                was_up = true;
                refusals = 0;
                *link.state.borrow_mut() = Ok(sender);
                link.changed.notify_waiters();
                tokio::select! {
                    ended = driver => link.down(match ended {
                        Ok(Err(error)) => format!("the connection broke: {error}"),
                        _ => "the server closed the connection".to_owned(),
                    }),
                    // The server is about to close (GOAWAY): its driver goes on alone until the
                    // last answer came.
                    () = link.redial.notified() => {}
                }
            }
            Err(error) => {
                refusals += 1;
                link.down(error.to_string());
            }
        }
        if was_up {
            link.at.set((link.at.get() + 1) % link.endpoints.len());
        }
        // All have refused, or there is nobody else to go to.
        if !was_up || refusals >= link.endpoints.len() || link.endpoints.len() == 1 {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_REDIAL);
        }
    }
}

type Driver = tokio::task::JoinHandle<Result<(), h2::Error>>;

/// Up means that the server answered on HTTP/2: a connection that only the kernel's backlog
/// accepted would swallow operations.
async fn dial(endpoint: &str) -> io::Result<(SendRequest<Bytes>, Driver)> {
    let dialled = async {
        let stream = TcpStream::connect(endpoint).await?;
        stream.set_nodelay(true)?;
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(FIRST_STREAMS)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(io::Error::other)?;
        let ping = connection.ping_pong();
        let driver = AbortOnDrop(Some(tokio::task::spawn_local(connection)));
        if let Some(mut ping) = ping {
            ping.ping(h2::Ping::opaque()).await.map_err(io::Error::other)?;
        }
        Ok((sender, driver.keep()))
    };
    tokio::time::timeout(DIAL_TIMEOUT, dialled).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 answer in time"))
    })
}

/// A driver whose connection never came up must not live on.
struct AbortOnDrop(Option<Driver>);

impl AbortOnDrop {
    fn keep(mut self) -> Driver {
        self.0.take().expect("kept once")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(driver) = &self.0 {
            driver.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_anything_starts() {
        let read = |endpoint: &str| Etcd::new(&[endpoint.to_owned()]).map(|etcd| etcd.endpoints);
        assert_eq!(read("127.0.0.1:2379").unwrap(), ["127.0.0.1:2379"]);
        assert_eq!(read("http://[::1]:2379/").unwrap(), ["[::1]:2379"]);
        for bad in ["127.0.0.1", ":2379", "n1:0", "n1:99999", "https://n1:2379", "a b:1", ""] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("host:port"), "{bad}: {error}");
        }
        assert!(Etcd::new(&[]).is_err());
    }
}
