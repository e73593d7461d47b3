//! Sessions: many requests over one stream, answers in any order.
//!
//! Invariant: every request that is taken is answered once, for as long as its stream is up, and what
//! its answer says of it is what the KV service would say: a put is proposed at most once, and goes to
//! another member only where it was provably not proposed. A session holds a bounded number of
//! requests; what comes beyond waits in the socket, also while the client takes no answers.
//!
//! On the leader, a put goes to the loop without a task or a channel of its own, and the gets of a
//! frame share one question of who leads. Another member passes what it takes on to the leader, in
//! such a session that it has with it; only what goes astray, as leaders change, goes the way of a call.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use api::etcdserverpb::{PutRequest, RangeRequest};
use api::session::answer::Answer as Kind;
use api::session::request::Request as Asking;
use api::session::session_server::Session;
use api::session::{Answer, Answers, Failure, Request, Requests};
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::forward::Forwarded;
use super::kv::{self, Asked, KvService};
use super::{Shared, stopped};
use crate::driver::{Input, Outcome, OutcomeSender, Proposer, Refusal, Ticket};
use crate::kv::{self as store, Command, KvError, MAX_REQUEST_BYTES, check};
use crate::peers::{Fate, request_bytes};

/// Requests of one session on their way at once, and in a frame, at most.
const MAX_IN_SESSION: usize = 8192;
/// A frame of answers is closed once their values come to so much.
const FRAME_BYTES: usize = 1 << 20;
/// After so many short reads others get a turn.
const READS_IN_A_ROW: usize = 256;
/// Frames of answers that wait for the connection.
const QUEUED_FRAMES: usize = 2;

/// Serves sessions.
pub(crate) struct SessionService {
    shared: Arc<Shared>,
    kv: fn(Arc<Shared>) -> KvService,
}

impl SessionService {
    pub(super) fn for_clients(shared: Arc<Shared>) -> Self {
        Self { shared, kv: KvService::for_clients }
    }

    /// Takes what a peer passes on, and passes nothing on itself.
    pub(super) fn for_peers(shared: Arc<Shared>) -> Self {
        Self { shared, kv: KvService::for_peers }
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<Answers, Status>> + Send>>;

#[tonic::async_trait]
impl Session for SessionService {
    type OpenStream = Frames;

    async fn open(
        &self,
        requests: tonic::Request<Streaming<Requests>>,
    ) -> Result<Response<Frames>, Status> {
        let desk = Arc::new(Desk {
            kv: (self.kv)(Arc::clone(&self.shared)),
            shared: Arc::clone(&self.shared),
            room: Semaphore::new(MAX_IN_SESSION),
            settled: Mutex::default(),
            news: Notify::new(),
            over: watch::Sender::new(false),
        });
        let (frames, sent) = mpsc::channel(QUEUED_FRAMES);
        tokio::spawn(desk.serve(requests.into_inner(), frames));
        Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
    }
}

/// One session.
struct Desk {
    kv: KvService,
    shared: Arc<Shared>,
    /// A place for each request on its way.
    room: Semaphore,
    settled: Mutex<Vec<Settled>>,
    /// Something was settled.
    news: Notify,
    /// Nobody listens any more: what is still asked for its requests is given up, as with a call.
    over: watch::Sender<bool>,
}

/// However a session ends.
struct Over<'a>(&'a Desk);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.send_replace(true);
    }
}

/// An answer that waits for its frame.
struct Settled {
    answer: Answer,
    /// Of a put: since when the store holds it.
    applied: Option<Instant>,
}

impl Desk {
    async fn serve(
        self: Arc<Self>,
        mut requests: Streaming<Requests>,
        frames: mpsc::Sender<Result<Answers, Status>>,
    ) {
        let _over = Over(&self);
        let mut taking = pin!(self.take_all(&mut requests));
        let mut ended = None;
        // While the client takes no answers, nothing more is taken from it either.
        while self.hand_over(&frames).await {
            if ended.is_some() && self.room.available_permits() == MAX_IN_SESSION {
                break;
            }
            tokio::select! {
                () = self.news.notified() => {}
                () = frames.closed() => return,
                result = &mut taking, if ended.is_none() => ended = Some(result),
            }
        }
        if let Some(Err(status)) = ended {
            let _ = frames.send(Err(status)).await;
        }
    }

    /// Until the client has sent all, or this member stops.
    async fn take_all(self: &Arc<Self>, requests: &mut Streaming<Requests>) -> Result<(), Status> {
        loop {
            let frame = tokio::select! {
                frame = requests.message() => frame?,
                () = self.shared.inputs.closed() => return Err(stopped()),
            };
            let Some(frame) = frame else { return Ok(()) };
            let count = u32::try_from(frame.requests.len()).unwrap_or(u32::MAX);
            if count as usize > MAX_IN_SESSION {
                return Err(Status::invalid_argument(format!(
                    "{count} requests in a frame: it holds {MAX_IN_SESSION} at most"
                )));
            }
            let places = self.room.acquire_many(count).await;
            places.expect("nobody closes it").forget();
            self.take(frame.requests);
        }
    }

    fn take(self: &Arc<Self>, requests: Vec<Request>) {
        let arrived = Instant::now();
        let leads = self.shared.view.borrow().leader == Some(self.shared.id);
        let mut reads = Vec::new();
        for Request { id, request } in requests {
            let taken = match request {
                Some(Asking::Put(request)) => self.take_put(id, request, leads, arrived),
                Some(Asking::Range(request)) => check_range(&request).map(|()| {
                    reads.push((id, request));
                }),
                None => Err(Status::invalid_argument("the request asks for nothing")),
            };
            if let Err(refused) = taken {
                self.settle_with(id, Err(refused), None);
            }
        }
        let now =
            |(_, request): &(u64, RangeRequest)| request.serializable && self.shared.restored();
        let (here, asking): (Vec<_>, Vec<_>) = reads.into_iter().partition(now);
        if !leads {
            for (id, request) in asking {
                if let Err(refused) = self.pass_on(id, Asking::Range(request)) {
                    self.settle_with(id, Err(refused), None);
                }
            }
        } else if !asking.is_empty() {
            tokio::spawn(Arc::clone(self).read(asking, false));
        }
        if !here.is_empty() {
            tokio::spawn(Arc::clone(self).read(here, true));
        }
    }

    fn take_put(
        self: &Arc<Self>,
        id: u64,
        request: PutRequest,
        leads: bool,
        arrived: Instant,
    ) -> Result<(), Status> {
        check::put(&request)?;
        if !leads {
            return self.pass_on(id, Asking::Put(request));
        }
        let data = Command::Put(request).encode();
        if data.len() > MAX_REQUEST_BYTES {
            return Err(KvError::RequestTooLarge.into());
        }
        self.shared.admission.enter(data.len())?;
        let ticket = Ticket::new(Arc::clone(self) as Arc<dyn Proposer>, id, data.clone());
        let input = Input::Propose { data, arrived, reply: OutcomeSender::Session(ticket) };
        // Where the loop has ended, the ticket that is dropped says so.
        let _ = self.shared.inputs.send(input);
        Ok(())
    }

    /// Brings a request to the leader, in a frame with others if there is a way now.
    fn pass_on(self: &Arc<Self>, id: u64, request: Asking) -> Result<(), Status> {
        let bytes = request_bytes(&request);
        if bytes > MAX_REQUEST_BYTES {
            return Err(KvError::RequestTooLarge.into());
        }
        let Some(route) = self.kv.route_to_leader() else {
            tokio::spawn(Arc::clone(self).ask(id, asked(request)));
            return Ok(());
        };
        self.shared.admission.enter(bytes)?;
        let (desk, again) = (Arc::clone(self), request.clone());
        let tell = move |fate| {
            desk.shared.admission.leave(bytes);
            let fate = match (fate, &again) {
                // It changes nothing: whoever leads now may answer it.
                (Fate::Lost, Asking::Range(_)) => Fate::NotSent,
                (fate, _) => fate,
            };
            match Forwarded::from(fate) {
                Forwarded::Answered(answer) => {
                    desk.settle_with(id, answer.and_then(said), None);
                }
                Forwarded::NotTaken => drop(tokio::spawn(desk.ask(id, asked(again)))),
            }
        };
        route.passage.send(request, Box::new(tell));
        Ok(())
    }

    /// Hands over all answers that there are, in frames; false: nobody listens.
    async fn hand_over(&self, frames: &mpsc::Sender<Result<Answers, Status>>) -> bool {
        let mut settled = std::mem::take(&mut *self.lock_settled()).into_iter().peekable();
        while settled.peek().is_some() {
            let Ok(place) = frames.reserve().await else { return false };
            let (mut answers, mut bytes) = (Vec::with_capacity(settled.len()), 0);
            while bytes < FRAME_BYTES
                && let Some(Settled { answer, applied }) = settled.next()
            {
                bytes += value_bytes(&answer);
                answers.push(answer);
                if let Some(at) = applied {
                    self.shared.metrics.observe_answer(at.elapsed());
                }
            }
            self.room.add_permits(answers.len());
            place.send(Ok(Answers { answers }));
        }
        true
    }

    /// Answers gets: at once where that is `current` enough, and else once a majority has said who leads.
    async fn read(self: Arc<Self>, reads: Vec<(u64, RangeRequest)>, current: bool) {
        let (mut admitted, mut let_in) = (Vec::new(), Vec::new());
        for read in reads {
            match self.shared.admission.admit(0) {
                Ok(place) => {
                    admitted.push(place);
                    let_in.push(read);
                }
                Err(status) => self.settle_with(read.0, Err(status), None),
            }
        }
        let reads = let_in;
        let caught_up = if current { Ok(()) } else { self.kv.catch_up().await };
        for (number, (id, request)) in reads.into_iter().enumerate() {
            match caught_up {
                Ok(()) => {
                    let answer = self.kv.range_here(request).await.map(Kind::Range);
                    self.settle_with(id, answer, None);
                }
                // A read changes nothing: whoever leads now may answer it.
                Err(Refusal::NotLeader | Refusal::LeaderChanged) => {
                    tokio::spawn(Arc::clone(&self).ask(id, Asked::Range(request)));
                }
                Err(refusal) => self.settle_with(id, Err(refusal.into()), None),
            }
            if number % READS_IN_A_ROW == READS_IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// As a call of its own.
    async fn ask(self: Arc<Self>, id: u64, asked: Asked) {
        let mut over = self.over.subscribe();
        let answer = tokio::select! {
            answer = self.kv.ask(asked) => answer,
            _ = over.wait_for(|over| *over) => return,
        };
        self.settle_with(id, answer.and_then(said), None);
    }

    fn settle_with(&self, id: u64, answer: Result<Kind, Status>, applied: Option<Instant>) {
        let answer = answer.unwrap_or_else(|status| {
            let (code, message) = (status.code() as i32, status.message().to_owned());
            Kind::Failure(Failure { code, message })
        });
        let answer = Answer { id, answer: Some(answer) };
        let mut settled = self.lock_settled();
        settled.push(Settled { answer, applied });
        if settled.len() == 1 {
            self.news.notify_one();
        }
    }
}

impl Desk {
    fn lock_settled(&self) -> MutexGuard<'_, Vec<Settled>> {
        self.settled.lock().expect("never held across a panic")
    }
}

impl Proposer for Desk {
    fn settle(self: Arc<Self>, id: u64, command: Bytes, outcome: Outcome) {
        // Its answer may wait for a client that does not read: that takes no place from others.
        self.shared.admission.leave(command.len());
        match outcome {
            Ok(applied) => {
                let answer = applied.result.map_err(Status::from).and_then(put_answer);
                self.settle_with(id, answer, Some(applied.at));
            }
            // It was not proposed: whoever leads takes it.
            Err(Refusal::NotLeader) => match Command::decode(command) {
                Ok(command) => {
                    tokio::spawn(Arc::clone(&self).ask(id, Asked::Command(command)));
                }
                Err(error) => {
                    let status = Status::internal(error.to_string());
                    self.settle_with(id, Err(status), None);
                }
            },
            Err(refusal) => self.settle_with(id, Err(refusal.into()), None),
        }
    }
}

/// A session reads single keys: an answer that takes long would hold up all others.
fn check_range(request: &RangeRequest) -> Result<(), Status> {
    check::range(request)?;
    if !request.range_end.is_empty() {
        let message = "a session reads single keys: use etcd's KV service for ranges";
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

fn asked(request: Asking) -> Asked {
    match request {
        Asking::Put(request) => Asked::Command(Command::Put(request)),
        Asking::Range(request) => Asked::Range(request),
    }
}

fn said(answer: kv::Answer) -> Result<Kind, Status> {
    match answer {
        kv::Answer::Range(response) => Ok(Kind::Range(response)),
        kv::Answer::Command(response) => put_answer(response),
    }
}

fn put_answer(response: store::Response) -> Result<Kind, Status> {
    match response {
        store::Response::Put(response) => Ok(Kind::Put(response)),
        _ => Err(kv::mismatch()),
    }
}

fn value_bytes(answer: &Answer) -> usize {
    let of = |kv: &api::mvccpb::KeyValue| kv.key.len() + kv.value.len();
    match &answer.answer {
        Some(Kind::Range(response)) => response.kvs.iter().map(of).sum(),
        Some(Kind::Put(response)) => response.prev_kv.as_ref().map_or(0, of),
        Some(Kind::Failure(_)) | None => 0,
    }
}
