//! The way of clients' requests to another member: many over one stream, a session with its peer
//! port.
//!
//! Invariant: each request is told once what came of it. "Not sent" is said only of what was never
//! put on the stream; where the stream breaks, what had been put on it may have happened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::session::answer::Answer as Said;
use api::session::request::Request as Asking;
use api::session::session_client::SessionClient;
use api::session::{Request, Requests};
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

/// A frame is closed once its requests come to so much, with what surrounds them: with the largest
/// request on top it is less than gRPC takes in one message.
const FRAME_BYTES: usize = 256 << 10;
/// Requests in a frame, at most.
const MAX_IN_FRAME: usize = 1024;
/// What surrounds a request in its frame, at most.
const AROUND_BYTES: usize = 32;

/// What came of a request.
pub(crate) enum Fate {
    /// The other member's answer.
    Answered(Option<Said>),
    /// It was not sent.
    NotSent,
    /// The stream broke with the request on it.
    Lost,
}

/// Told what came of a request, once.
pub(crate) type Tell = Box<dyn FnOnce(Fate) + Send>;

/// A way to another member, until its stream breaks.
pub(crate) struct Passage {
    /// What the next frame is made of; `None` once it has ended.
    waiting: Mutex<Option<Vec<(Asking, Tell)>>>,
    news: Notify,
}

impl Passage {
    /// A new one, over this connection.
    pub(super) fn open(channel: Channel) -> Arc<Self> {
        let passage = Arc::new(Self { waiting: Mutex::new(Some(Vec::new())), news: Notify::new() });
        tokio::spawn(Arc::clone(&passage).serve(channel));
        passage
    }

    /// Whether it takes nothing any more.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().is_none()
    }

    /// Takes a request, in no order.
    pub(crate) fn send(&self, request: Asking, tell: Tell) {
        let refused = match &mut *self.lock() {
            Some(waiting) => {
                waiting.push((request, tell));
                if waiting.len() == 1 {
                    self.news.notify_one();
                }
                None
            }
            None => Some(tell),
        };
        // Whoever is told may send again: not under the lock.
        if let Some(tell) = refused {
            tell(Fate::NotSent);
        }
    }

    /// Takes nothing any more, and ends once all that is on its way is answered.
    pub(super) fn close(&self) {
        let left = self.lock().take();
        self.news.notify_one();
        left.into_iter().flatten().for_each(|(_, tell)| tell(Fate::NotSent));
    }

    async fn serve(self: Arc<Self>, channel: Channel) {
        let mut on_their_way = HashMap::new();
        if let Err(status) = self.carry(channel, &mut on_their_way).await {
            tracing::debug!(reason = status.to_string(), "the way for requests to a peer ended");
        }
        self.close();
        on_their_way.into_values().for_each(|tell: Tell| tell(Fate::Lost));
    }

    async fn carry(
        &self,
        channel: Channel,
        on_their_way: &mut HashMap<u64, Tell>,
    ) -> Result<(), Status> {
        let mut client = SessionClient::new(channel).max_decoding_message_size(usize::MAX);
        let (frames, sent) = mpsc::channel(1);
        let mut answers = client.open(ReceiverStream::new(sent)).await?.into_inner();
        let mut frames = Some(frames);
        let mut numbers = 0..;
        loop {
            let (waits, ended) =
                self.lock().as_ref().map_or((false, true), |waiting| (!waiting.is_empty(), false));
            if ended {
                // The other side ends the stream once it has answered all.
                frames = None;
            }
            let place = async {
                match &frames {
                    Some(frames) => frames.reserve().await.ok(),
                    None => None,
                }
            };
            tokio::select! {
                // Never waits for a place alone: the other side reads on only while it is read from.
                frame = answers.message() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    for answer in frame.answers {
                        if let Some(tell) = on_their_way.remove(&answer.id) {
                            tell(Fate::Answered(answer.answer));
                        }
                    }
                }
                Some(place) = place, if waits => {
                    let taken = self.next_frame().into_iter().zip(&mut numbers);
                    let requests = taken.map(|((request, tell), id)| {
                        on_their_way.insert(id, tell);
                        Request { id, request: Some(request) }
                    });
                    place.send(Requests { requests: requests.collect() });
                }
                () = self.news.notified(), if !waits && !ended => {}
            }
        }
    }

    fn next_frame(&self) -> Vec<(Asking, Tell)> {
        let mut waiting = self.lock();
        let Some(waiting) = &mut *waiting else { return Vec::new() };
        let mut bytes = 0;
        let in_frame = waiting.iter().take(MAX_IN_FRAME).take_while(|(request, _)| {
            let before = bytes;
            bytes += request_bytes(request) + AROUND_BYTES;
            before < FRAME_BYTES
        });
        let count = in_frame.count();
        let rest = waiting.split_off(count);
        std::mem::replace(waiting, rest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<(Asking, Tell)>>> {
        self.waiting.lock().expect("never held across a panic")
    }
}

/// A request's own bytes.
pub(crate) fn request_bytes(request: &Asking) -> usize {
    match request {
        Asking::Put(request) => request.encoded_len(),
        Asking::Range(request) => request.encoded_len(),
    }
}
