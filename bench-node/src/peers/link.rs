//! The stream to one peer: brought up, kept up, and brought up again.
//!
//! Invariant: a link is up only after its peer wrote us down and we wrote down the peer. Losing it
//! is normal; it comes back within tens of milliseconds of the peer, and at once when the peer
//! introduces itself here.
//!
//! A link knows where the membership says that its peer is reached, and where the peer itself says
//! so, which is newer where our log is behind: it tries them in turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::peer::peer_client::PeerClient;
use api::peer::{IntroduceRequest, PeerBatch};
use raft::NodeId;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{Acquaintance, Passage, WINDOW_BYTES, service};
use crate::driver::Input;
use crate::error::NodeError;
use crate::identity::IdentityError;
use crate::metrics::Metrics;

/// Batches that wait for the stream, at most. The protocol's own window is narrower.
const QUEUED_BATCHES: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_millis(160);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Towards one peer.
pub(crate) struct Link {
    id: NodeId,
    name: Mutex<String>,
    addresses: Mutex<Addresses>,
    /// Two heartbeats of HTTP/2 lost in this time mean that the connection is dead.
    keep_alive: Duration,
    up: Mutex<Option<Up>>,
    /// The peer was heard from: try now.
    retry_now: Notify,
    /// Nobody is to say more of it.
    ended: AtomicBool,
}

#[derive(Default)]
struct Addresses {
    /// As the membership has it.
    listed: Option<String>,
    /// As the peer itself has it, where that is another one.
    told: Option<String>,
    turn: usize,
}

impl Addresses {
    /// Where to try next.
    fn next(&mut self) -> Option<String> {
        let all: Vec<_> = self.listed.iter().chain(&self.told).collect();
        self.turn += 1;
        Some(all.get((self.turn - 1) % all.len().max(1))?.to_string())
    }
}

struct Up {
    batches: mpsc::Sender<PeerBatch>,
    channel: Channel,
    /// For clients' requests, once there was one.
    passage: Option<Arc<Passage>>,
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(passage) = &self.passage {
            passage.close();
        }
    }
}

/// The ways to a peer beside the protocol's own stream, on the same connection.
pub(crate) struct Route {
    /// For calls.
    pub(crate) channel: Channel,
    /// For requests of clients.
    pub(crate) passage: Arc<Passage>,
}

/// Why there is no connection.
pub(super) struct NoConnection(pub(super) String);

enum Lost {
    /// The peer knows that we are no member any more.
    Removed,
    /// The peer knows us by another data directory; it says so.
    RefusedBy(String),
    /// Who answers does not belong with us: it says what differs.
    Misplaced(String),
    /// The peer is not whom we met under its id.
    Stranger(IdentityError),
    /// What we must write down cannot be written.
    Identity(IdentityError),
    /// The usual: not there, or no longer.
    Down(String),
}

impl Link {
    /// A link that is down, and has no address yet.
    pub(crate) fn new(id: NodeId, name: &str, election_timeout: Duration) -> Self {
        Self {
            id,
            name: Mutex::new(name.to_owned()),
            addresses: Mutex::default(),
            keep_alive: keep_alive(election_timeout),
            up: Mutex::default(),
            retry_now: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }

    /// Where the membership says that the peer is.
    pub(super) fn set_address(&self, address: &str) {
        let mut addresses = self.addresses.lock().expect("never held across a panic");
        if addresses.listed.as_deref() == Some(address) {
            return;
        }
        let moved = addresses.listed.replace(address.to_owned()).is_some();
        addresses.told.take_if(|told| moved || told == address);
        addresses.turn = 0;
        drop(addresses);
        if moved {
            // What is there is not the member any more, or will not be for long.
            self.take_down();
        }
        self.retry_now();
    }

    /// Where the peer itself says that it is.
    pub(super) fn also_at(&self, address: &str) {
        let mut addresses = self.addresses.lock().expect("never held across a panic");
        let known = [&addresses.listed, &addresses.told];
        if !known.iter().any(|known| known.as_deref() == Some(address)) && !address.is_empty() {
            addresses.told = Some(address.to_owned());
            addresses.turn = 1;
            drop(addresses);
            self.retry_now();
        }
    }

    /// The peer is called so from now on.
    pub(super) fn rename(&self, name: &str, metrics: &Metrics) {
        let mut own = self.name.lock().expect("never held across a panic");
        if *own != name {
            metrics.forget_peer(&own);
            name.clone_into(&mut own);
            let connected = self.up.lock().expect("never held across a panic").is_some();
            metrics.set_peer_connected(name, connected);
        }
    }

    /// The peer is a peer no more.
    pub(super) fn end(&self, metrics: &Metrics) {
        self.ended.store(true, Ordering::Relaxed);
        self.take_down();
        metrics.forget_peer(&self.name());
    }

    /// The peer's id.
    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// Puts a batch on its way; whether there was a way.
    pub(super) fn try_send(&self, batch: impl FnOnce() -> PeerBatch) -> bool {
        let up = self.up.lock().expect("never held across a panic");
        up.as_ref().is_some_and(|up| match up.batches.try_reserve() {
            Ok(permit) => {
                permit.send(batch());
                true
            }
            Err(_) => false,
        })
    }

    /// The peer's name.
    pub(super) fn name(&self) -> String {
        self.name.lock().expect("never held across a panic").clone()
    }

    fn set_connected(&self, us: &Acquaintance, connected: bool) {
        // Its task may be at this very place when it is ended.
        if !self.ended.load(Ordering::Relaxed) {
            us.metrics.set_peer_connected(&self.name(), connected);
        }
    }

    /// A connection beside the link's, for what is large.
    pub(super) async fn connect_apart(&self) -> Result<Channel, NoConnection> {
        let no_connection = |lost| match lost {
            Lost::Down(reason) => NoConnection(reason),
            _ => NoConnection("the address cannot be used".to_owned()),
        };
        let (endpoint, _) = self.endpoint().map_err(no_connection)?;
        endpoint.connect().await.map_err(|error| NoConnection(full(&error)))
    }

    /// What was up goes once nobody holds the lock: requests that wait for it are told then.
    fn take_down(&self) {
        let gone = self.up.lock().expect("never held across a panic").take();
        drop(gone);
    }

    /// For requests that are forwarded; `None` while the link is down.
    pub(crate) fn route(&self) -> Option<Route> {
        let mut up = self.up.lock().expect("never held across a panic");
        let up = up.as_mut()?;
        let channel = up.channel.clone();
        let passage = match &up.passage {
            Some(passage) if !passage.has_ended() => Arc::clone(passage),
            _ => {
                let passage = Passage::open(channel.clone());
                up.passage = Some(Arc::clone(&passage));
                passage
            }
        };
        Some(Route { channel, passage })
    }

    /// Do not wait for the next attempt.
    pub(super) fn retry_now(&self) {
        self.retry_now.notify_one();
    }

    /// Keeps the link up, for ever.
    pub(crate) async fn keep_up(self: Arc<Self>, us: Arc<Acquaintance>) {
        self.set_connected(&us, false);
        let mut retry = FIRST_RETRY;
        let mut told = None;
        loop {
            let (lost, was_up) = self.connect(&us, &mut told).await;
            self.take_down();
            self.set_connected(&us, false);
            if was_up {
                // The loop that listens may be gone only if the node is.
                let _ = us.inputs.send(Input::ConnectionLost(self.id));
                retry = FIRST_RETRY;
            }
            match lost {
                // Once this member has its place in the cluster, the peer is gone and another one
                // took its address: no reason to end, too.
                Lost::Misplaced(reason) if us.has_its_place() => {
                    self.tell_refused(reason, &mut told);
                    retry = LAST_RETRY;
                }
                Lost::RefusedBy(reason) | Lost::Misplaced(reason) => {
                    let peer = self.name();
                    tracing::error!(peer, reason, "peer refused");
                    us.end_node(NodeError::Refused { peer, reason });
                    return;
                }
                Lost::Removed => {
                    tracing::error!(by = self.name(), "removed from the cluster");
                    return us.end_node(NodeError::Removed);
                }
                Lost::Identity(error) => return us.end_node(NodeError::Identity(error)),
                Lost::Stranger(error) => {
                    self.tell_refused(error.to_string(), &mut told);
                    retry = LAST_RETRY;
                }
                Lost::Down(reason) if was_up => {
                    tracing::warn!(peer = self.name(), reason, "peer lost");
                }
                Lost::Down(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
                () = self.retry_now.notified() => retry = FIRST_RETRY,
            }
        }
    }

    /// Says it once, not at each attempt.
    fn tell_refused(&self, reason: String, told: &mut Option<String>) {
        if told.as_ref() != Some(&reason) {
            tracing::error!(peer = self.name(), reason, "peer refused");
            *told = Some(reason);
        }
    }

    /// Brings the link up, and returns when it is lost: why, and whether it was up.
    async fn connect(&self, us: &Acquaintance, told: &mut Option<String>) -> (Lost, bool) {
        let mut was_up = false;
        match self.try_connect(us, told, &mut was_up).await {
            Ok(()) => (Lost::Down("the peer closed the stream".to_owned()), was_up),
            Err(lost) => (lost, was_up),
        }
    }

    async fn try_connect(
        &self,
        us: &Acquaintance,
        told: &mut Option<String>,
        was_up: &mut bool,
    ) -> Result<(), Lost> {
        let (endpoint, address) = self.endpoint()?;
        let channel = endpoint.connect().await.map_err(|e| Lost::Down(full(&e)))?;
        let mut client = PeerClient::new(channel.clone());
        let introduction = client.introduce(IntroduceRequest {
            cluster_id: us.cluster_id,
            from: us.id,
            to: self.id,
            incarnation: us.incarnation,
            peer: us.address.clone(),
            founder: us.is_founder(),
        });
        let response = tokio::time::timeout(INTRODUCE_TIMEOUT, introduction)
            .await
            .map_err(|_| Lost::Down("no answer to the introduction".to_owned()))?
            .map_err(Lost::from)?;
        let incarnation = response.into_inner().incarnation;
        us.remember(self.id, incarnation).await.map_err(|error| match error {
            IdentityError::Stranger { .. } => Lost::Stranger(error),
            error => Lost::Identity(error),
        })?;
        us.note_known_by(self.id).await.map_err(Lost::Identity)?;

        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        *self.up.lock().expect("never held across a panic") =
            Some(Up { batches, channel, passage: None });
        *told = None;
        *was_up = true;
        self.set_connected(us, true);
        tracing::info!(peer = self.name(), address, "peer connected");
        let mut request = Request::new(ReceiverStream::new(queue));
        service::sign(request.metadata_mut(), us.id, us.incarnation);
        client.exchange(request).await.map_err(Lost::from)?;
        Ok(())
    }

    fn endpoint(&self) -> Result<(Endpoint, String), Lost> {
        let next = self.addresses.lock().expect("never held across a panic").next();
        let address = next.ok_or_else(|| Lost::Down("its address is not known".to_owned()))?;
        let endpoint = endpoint(&address, self.keep_alive);
        Ok((endpoint.map_err(|error| Lost::Down(full(&error)))?, address))
    }
}

/// Two heartbeats of HTTP/2 lost in this time mean that a connection between members is dead.
pub(crate) fn keep_alive(election_timeout: Duration) -> Duration {
    election_timeout.max(Duration::from_secs(1))
}

/// A member at an address.
pub(super) fn endpoint(
    address: &str,
    keep_alive: Duration,
) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        .keep_alive_while_idle(true))
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        match status.code() {
            service::REMOVED => Self::Removed,
            service::LOST_DIRECTORY => Self::RefusedBy(status.message().to_owned()),
            Code::FailedPrecondition => Self::Misplaced(status.message().to_owned()),
            _ => Self::Down(full(&status)),
        }
    }
}

/// An error with its causes, which tonic does not print by itself.
pub(super) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_peer_costs_its_own_batches_and_no_memory() {
        let link = Link::new(2, "n2", Duration::from_secs(1));
        link.set_address("127.0.0.1:1");
        assert!(!link.try_send(|| panic!("there is no way to send it")), "the link is down");
        let channel = link.endpoint().unwrap_or_else(|_| panic!("an address")).0.connect_lazy();
        let (batches, mut queue) = mpsc::channel(QUEUED_BATCHES);
        *link.up.lock().expect("no panic") = Some(Up { batches, channel, passage: None });
        for _ in 0..QUEUED_BATCHES {
            assert!(link.try_send(PeerBatch::default));
        }
        assert!(!link.try_send(|| panic!("it is full, so nothing is encoded")));
        queue.recv().await.expect("a batch");
        assert!(link.try_send(PeerBatch::default), "there is room again");
    }
    #[test]
    fn a_link_tries_what_the_membership_says_and_what_the_peer_says() {
        let link = Link::new(2, "n2", Duration::from_secs(1));
        let next = || link.addresses.lock().expect("no panic").next();
        assert_eq!(next(), None);
        link.also_at("told:1");
        assert_eq!(next().as_deref(), Some("told:1"), "a log that is behind knows no better");
        link.set_address("listed:1");
        let both = [next(), next()].map(Option::unwrap_or_default);
        assert_eq!(both, ["listed:1", "told:1"]);
        link.set_address("listed:2");
        assert_eq!([next(), next()].map(Option::unwrap_or_default), ["listed:2", "listed:2"]);
    }
}
