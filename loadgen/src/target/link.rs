//! One connection's way to the cluster: dialled, watched, and dialled anew.
//!
//! Invariant: a connection starts at its own endpoint; where that breaks, it goes to the next one
//! that answers and stays there, as the clients of a cluster do. What is up is the transport's own:
//! operations are handed to it or refused, and never wait for a link that is down.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use super::NotSent;
use super::grpc::MethodUri;
use crate::error::LoadError;

/// A wait between attempts to connect starts here and doubles up to [`MAX_REDIAL`].
const MIN_REDIAL: Duration = Duration::from_millis(5);
const MAX_REDIAL: Duration = Duration::from_millis(80);
/// How long one attempt to connect may take, the server's first HTTP/2 answer included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long [`Line::ready`] waits.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive windows that no answer fills, and that a stalled reader cannot turn into the bottleneck.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Requests that wait in HTTP/2 until the server's settings come; the engine's own bound is lower.
const FIRST_STREAMS: usize = 1 << 20;
/// After a stall, answers come to operations that timed out and were cancelled long ago. So many
/// are recognised; what comes beyond is dropped too, and never ends the connection.
const REMEMBERED_RESETS: usize = 100_000;

/// What operations are handed to while the link is up.
pub(super) trait Transport: Sized + 'static {
    /// Methods that it calls, in an order of its own.
    const METHODS: &'static [&'static str];

    /// Over a connection that has just come up.
    fn open(
        endpoint: &Endpoint,
        connection: SendRequest<Bytes>,
        alarm: Alarm<Self>,
    ) -> impl Future<Output = io::Result<Self>>;
}

/// Endpoints as users write them, as `host:port`.
pub(super) fn checked(endpoints: &[String]) -> Result<Vec<String>, LoadError> {
    if endpoints.is_empty() {
        let problem = "no endpoint is given".to_owned();
        return Err(LoadError::Endpoint { endpoint: String::new(), problem });
    }
    endpoints.iter().map(|endpoint| host_and_port(endpoint)).collect()
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

/// A link, and the task that keeps it up until this is dropped.
pub(super) struct Line<T> {
    link: Rc<Link<T>>,
    keeper: AbortHandle,
}

impl<T: Transport> Line<T> {
    pub(super) fn open(endpoints: &[String], home: usize) -> Result<Self, LoadError> {
        let endpoints = endpoints
            .iter()
            .map(|name| Endpoint::new(name, T::METHODS))
            .collect::<Result<_, _>>()?;
        let link = Rc::new(Link {
            endpoints,
            at: Cell::new(home),
            state: RefCell::new(Err("not connected yet".to_owned())),
            changed: Notify::new(),
            redial: RefCell::default(),
        });
        let keeper = tokio::task::spawn_local(keep_up(link.clone())).abort_handle();
        Ok(Self { link, keeper })
    }

    /// Whom operations go to now.
    pub(super) fn endpoint(&self) -> usize {
        self.link.at.get()
    }

    /// Waits until it is up; says why not if that takes too long.
    pub(super) async fn ready(&self) -> Result<(), String> {
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

    /// Hands something to what is up now. An error says that nothing was sent; where `start` gives
    /// it, what was up is given up.
    pub(super) fn hand_over<A>(
        &self,
        start: impl FnOnce(&T, &Endpoint) -> Result<A, NotSent>,
    ) -> Result<A, NotSent> {
        let endpoint = self.link.endpoint();
        let started = match &*self.link.state.borrow() {
            Ok(up) => start(up, endpoint),
            Err(why) => return Err(NotSent(format!("{}: {why}", endpoint.name))),
        };
        started.map_err(|NotSent(why)| {
            let told = NotSent(format!("{}: {why}", endpoint.name));
            self.link.broke(why);
            told
        })
    }
}

impl<T> Drop for Line<T> {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// What the connection and its keeper share.
pub(super) struct Link<T> {
    endpoints: Vec<Endpoint>,
    /// Which of them operations go to, or would if it were up.
    at: Cell<usize>,
    /// Up, or why not.
    state: RefCell<Result<T, String>>,
    changed: Notify,
    /// That what is up broke; another for each connection.
    redial: RefCell<Rc<Notify>>,
}

/// For whoever finds that a connection broke.
pub(super) struct Alarm<T> {
    link: Weak<Link<T>>,
    redial: Rc<Notify>,
}

impl<T> Alarm<T> {
    /// It takes no more operations, if it is still the one that is up.
    pub(super) fn ring(&self, why: String) {
        let link = self.link.upgrade();
        if let Some(link) = link.filter(|link| Rc::ptr_eq(&link.redial.borrow(), &self.redial)) {
            link.broke(why);
        }
    }
}

/// One of the cluster's, and the methods that are called there.
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) methods: Vec<MethodUri>,
}

impl Endpoint {
    fn new(name: &str, methods: &[&'static str]) -> Result<Self, LoadError> {
        let method = |path: &&'static str| {
            MethodUri::new(name, path).map_err(|error| LoadError::Endpoint {
                endpoint: name.to_owned(),
                problem: error.to_string(),
            })
        };
        let methods = methods.iter().map(method).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), methods })
    }
}

impl<T> Link<T> {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.at.get()]
    }

    /// What is up takes no more: another one is to be dialled.
    fn broke(&self, why: String) {
        self.set(Err(why));
        self.redial.borrow().notify_one();
    }

    fn down(&self, why: String) {
        self.set(Err(why));
        self.changed.notify_waiters();
    }

    fn set(&self, state: Result<T, String>) {
        // What was up is dropped when nothing is borrowed any more.
        drop(self.state.replace(state));
    }
}

/// Dials, waits for the end of the connection, and dials the next endpoint, for as long as the run
/// lasts. Until it was up once it stays with its own: an endpoint that never answered is for the
/// user to know of, not to be worked around.
async fn keep_up<T: Transport>(link: Rc<Link<T>>) {
    let mut wait = MIN_REDIAL;
    let mut was_up = false;
    let mut refusals = 0;
    loop {
        let redial = Rc::new(Notify::new());
        match dial(&link, &redial).await {
            Ok((up, driver)) => {
                wait = MIN_REDIAL;
                was_up = true;
                refusals = 0;
                link.set(Ok(up));
                link.redial.replace(redial.clone());
                link.changed.notify_waiters();
                tokio::select! {
                    ended = driver => link.down(match ended {
                        Ok(Err(error)) => format!("the connection broke: {error}"),
                        _ => "the server closed the connection".to_owned(),
                    }),
                    // The server is about to close (GOAWAY): its driver goes on alone until the
                    // last answer came.
                    () = redial.notified() => {}
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

type Driver = JoinHandle<Result<(), h2::Error>>;

/// Up means that the server answered on HTTP/2, and that the transport could be opened: a connection
/// that only the kernel's backlog accepted would swallow operations.
async fn dial<T: Transport>(link: &Rc<Link<T>>, redial: &Rc<Notify>) -> io::Result<(T, Driver)> {
    let endpoint = link.endpoint();
    let alarm = Alarm { link: Rc::downgrade(link), redial: redial.clone() };
    let dialled = async {
        let stream = TcpStream::connect(&endpoint.name).await?;
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
        let up = T::open(endpoint, sender, alarm).await?;
        Ok((up, driver.keep()))
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
        let read = |endpoint: &str| checked(&[endpoint.to_owned()]);
        assert_eq!(read("127.0.0.1:2379").unwrap(), ["127.0.0.1:2379"]);
        assert_eq!(read("http://[::1]:2379/").unwrap(), ["[::1]:2379"]);
        for bad in ["127.0.0.1", ":2379", "n1:0", "n1:99999", "https://n1:2379", "a b:1", ""] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("host:port"), "{bad}: {error}");
        }
        assert!(checked(&[]).is_err());
    }
}
