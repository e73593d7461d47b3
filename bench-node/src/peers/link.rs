//! The stream to one peer: brought up, kept up, and brought up again.
//!
//! Invariant: a link is up only after its peer wrote us down and we wrote down the peer. Losing it
//! is normal; it comes back within tens of milliseconds of the peer, and at once when the peer
//! introduces itself here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::peer::peer_client::PeerClient;
use api::peer::{IntroduceRequest, PeerBatch};
use raft::NodeId;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{Acquaintance, WINDOW_BYTES, service};
use crate::driver::Input;
use crate::error::NodeError;
use crate::identity::IdentityError;

/// Batches that wait for the stream, at most. The protocol's own window is narrower.
const QUEUED_BATCHES: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_millis(160);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Towards one peer.
pub(crate) struct Link {
    id: NodeId,
    name: String,
    address: String,
    /// Two heartbeats of HTTP/2 lost in this time mean that the connection is dead.
    keep_alive: Duration,
    up: Mutex<Option<Up>>,
    /// The peer was heard from: try now.
    retry_now: Notify,
}

struct Up {
    batches: mpsc::Sender<PeerBatch>,
    channel: Channel,
}

/// Why there is no connection.
pub(super) struct NoConnection(pub(super) String);

enum Lost {
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
    /// A link that is down.
    pub(crate) fn new(
        id: NodeId,
        name: String,
        address: String,
        election_timeout: Duration,
    ) -> Self {
        let keep_alive = election_timeout.max(Duration::from_secs(1));
        let (up, retry_now) = (Mutex::default(), Notify::new());
        Self { id, name, address, keep_alive, up, retry_now }
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
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A connection beside the link's, for what is large.
    pub(super) async fn connect_apart(&self) -> Result<Channel, NoConnection> {
        let no_connection = |lost| match lost {
            Lost::Down(reason) => NoConnection(reason),
            _ => NoConnection("the address cannot be used".to_owned()),
        };
        let endpoint = self.endpoint().map_err(no_connection)?;
        endpoint.connect().await.map_err(|error| NoConnection(full(&error)))
    }

    /// The connection, for requests that are forwarded; `None` while it is down.
    pub(crate) fn channel(&self) -> Option<Channel> {
        let up = self.up.lock().expect("never held across a panic");
        up.as_ref().map(|up| up.channel.clone())
    }

    /// Do not wait for the next attempt.
    pub(super) fn retry_now(&self) {
        self.retry_now.notify_one();
    }

    /// Keeps the link up, for ever.
    pub(crate) async fn keep_up(self: Arc<Self>, us: Arc<Acquaintance>) {
        us.metrics.set_peer_connected(&self.name, false);
        let mut retry = FIRST_RETRY;
        let mut told = None;
        let mut met = false;
        loop {
            let lost = self.connect(&us, &mut told).await;
            let was_up = self.up.lock().expect("never held across a panic").take().is_some();
            us.metrics.set_peer_connected(&self.name, false);
            if was_up {
                // The loop that listens may be gone only if the node is.
                let _ = us.inputs.send(Input::ConnectionLost(self.id));
                retry = FIRST_RETRY;
                met = true;
            }
            match lost {
                // Once the configurations have agreed, the peer is gone and another cluster took
                // its port: no reason to end, too.
                Lost::Misplaced(reason) if met => {
                    self.tell_refused(reason, &mut told);
                    retry = LAST_RETRY;
                }
                Lost::RefusedBy(reason) | Lost::Misplaced(reason) => {
                    tracing::error!(peer = self.name, reason, "peer refused");
                    us.end_node(NodeError::Refused { peer: self.name.clone(), reason });
                    return;
                }
                Lost::Identity(error) => return us.end_node(NodeError::Identity(error)),
                Lost::Stranger(error) => {
                    self.tell_refused(error.to_string(), &mut told);
                    retry = LAST_RETRY;
                }
                Lost::Down(reason) if was_up => {
                    tracing::warn!(peer = self.name, reason, "peer lost");
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
            tracing::error!(peer = self.name, reason, "peer refused");
            *told = Some(reason);
        }
    }

    /// Brings the link up, and returns when it is lost.
    async fn connect(&self, us: &Acquaintance, told: &mut Option<String>) -> Lost {
        match self.try_connect(us, told).await {
            Ok(()) => Lost::Down("the peer closed the stream".to_owned()),
            Err(lost) => lost,
        }
    }

    async fn try_connect(&self, us: &Acquaintance, told: &mut Option<String>) -> Result<(), Lost> {
        let channel = self.endpoint()?.connect().await.map_err(|e| Lost::Down(full(&e)))?;
        let mut client = PeerClient::new(channel.clone());
        let introduction = client.introduce(IntroduceRequest {
            cluster_id: us.cluster_id,
            from: us.id,
            to: self.id,
            incarnation: us.incarnation,
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
        *self.up.lock().expect("never held across a panic") = Some(Up { batches, channel });
        *told = None;
        us.metrics.set_peer_connected(&self.name, true);
        tracing::info!(peer = self.name, address = self.address, "peer connected");
        let mut request = Request::new(ReceiverStream::new(queue));
        service::sign(request.metadata_mut(), us.id, us.incarnation);
        client.exchange(request).await.map_err(Lost::from)?;
        Ok(())
    }

    fn endpoint(&self) -> Result<Endpoint, Lost> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        Ok(endpoint
            .map_err(|error| Lost::Down(full(&error)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(true))
    }
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        match status.code() {
            service::LOST_DIRECTORY => Self::RefusedBy(status.message().to_owned()),
            Code::FailedPrecondition => Self::Misplaced(status.message().to_owned()),
            _ => Self::Down(full(&status)),
        }
    }
}

/// An error with its causes, which tonic does not print by itself.
fn full(error: &dyn std::error::Error) -> String {
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
        let link = Link::new(2, "n2".into(), "127.0.0.1:1".into(), Duration::from_secs(1));
        assert!(!link.try_send(|| panic!("there is no way to send it")), "the link is down");
        let channel = link.endpoint().unwrap_or_else(|_| panic!("an address")).connect_lazy();
        let (batches, mut queue) = mpsc::channel(QUEUED_BATCHES);
        *link.up.lock().expect("no panic") = Some(Up { batches, channel });
        for _ in 0..QUEUED_BATCHES {
            assert!(link.try_send(PeerBatch::default));
        }
        assert!(!link.try_send(|| panic!("it is full, so nothing is encoded")));
        queue.recv().await.expect("a batch");
        assert!(link.try_send(PeerBatch::default), "there is room again");
    }
}
