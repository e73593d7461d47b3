//! The `bench-node-session` target: bench-node's session API, many operations over one stream.
//!
//! Invariant: an operation is sent once, on the stream that was up when it was handed over, as soon as
//! that takes it, and never after its timeout. What was on its way when that broke has an unknown outcome;
//! what was not even written down for it has failed.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::rc::{Rc, Weak};

use api::etcdserverpb::{PutRequest, RangeRequest};
use api::session::answer::Answer as Said;
use api::session::request::Request as Asking;
use api::session::{self, Answers, Requests};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use history::Outcome;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tonic::{Code, Status};

use super::grpc::{self, Frames};
use super::link::{self, Alarm, Endpoint, Line, Transport};
use super::{Answer, CallError, Connection, NotSent, Request, Target};
use crate::error::LoadError;

/// A frame is closed at so many requests, or once keys and values come to so many bytes: the server
/// takes four times as many, and frames of 2 MiB.
const FRAME_REQUESTS: usize = 2048;
const FRAME_BYTES: usize = 256 << 10;

/// Endpoints that serve sessions: bench-node's.
#[derive(Clone, Debug)]
pub struct Session {
    endpoints: Vec<String>,
}

impl Session {
    /// Endpoints are `host:port`; a leading `http://` is taken off.
    pub fn new(endpoints: &[String]) -> Result<Self, LoadError> {
        Ok(Self { endpoints: link::checked(endpoints)? })
    }
}

impl Target for Session {
    type Connection = SessionConnection;

    fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn connect(&self, endpoint: usize) -> Result<SessionConnection, LoadError> {
        Line::open(&self.endpoints, endpoint).map(SessionConnection)
    }
}

/// One connection, with one session on it.
pub struct SessionConnection(Line<Open>);

impl Connection for SessionConnection {
    fn endpoint(&self) -> usize {
        self.0.endpoint()
    }

    async fn ready(&self) -> Result<(), String> {
        self.0.ready().await
    }

    fn send(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = Answer> + 'static + use<>, NotSent> {
        self.0.hand_over(|Open { desk, .. }, _| Ok(desk.ask(request)))
    }
}

/// What is up: a session, with the tasks that write and read it.
struct Open {
    desk: Rc<Desk>,
    tasks: [AbortHandle; 2],
}

impl Transport for Open {
    const METHODS: &'static [&'static str] = &["/raftbench.session.Session/Open"];

    async fn open(
        endpoint: &Endpoint,
        mut connection: SendRequest<Bytes>,
        alarm: Alarm<Self>,
    ) -> io::Result<Self> {
        let refused = |NotSent(why)| io::Error::other(why);
        let (response, requests) =
            grpc::open(&mut connection, &endpoint.methods[0]).map_err(refused)?;
        let answers = grpc::opened(response).await.map_err(|status| {
            io::Error::other(match status.code() {
                Code::Unimplemented => "it has no session API: `--target etcd` has etcd's".into(),
                _ => status.message().to_owned(),
            })
        })?;
        let desk = Rc::new(Desk::default());
        let writing = tokio::task::spawn_local(write(Rc::downgrade(&desk), requests, connection));
        let reading = Rc::clone(&desk);
        let reading = tokio::task::spawn_local(async move {
            let why = read(&reading, answers).await;
            reading.give_up(&why);
            alarm.ring(why);
        });
        Ok(Self { desk, tasks: [writing.abort_handle(), reading.abort_handle()] })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.desk.give_up("the connection broke");
    }
}

/// The operations of one session.
#[derive(Default)]
struct Desk {
    next: Cell<u64>,
    /// Not written yet.
    queued: RefCell<VecDeque<session::Request>>,
    queue_filled: Notify,
    /// Written or queued, and not answered.
    waiting: RefCell<HashMap<u64, oneshot::Sender<Answer>>>,
}

impl Desk {
    fn ask(self: &Rc<Self>, request: Request) -> impl Future<Output = Answer> + 'static + use<> {
        let id = self.next.replace(self.next.get() + 1);
        let request = match request {
            Request::Put { key, value } => {
                Asking::Put(PutRequest { key, value, ..Default::default() })
            }
            Request::Get { key, linearizable } => {
                let serializable = !linearizable;
                Asking::Range(RangeRequest { key, serializable, ..Default::default() })
            }
        };
        let (sender, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(id, sender);
        self.queued.borrow_mut().push_back(session::Request { id, request: Some(request) });
        self.queue_filled.notify_one();
        let place = Place { desk: Rc::downgrade(self), id };
        async move {
            let _place = place;
            answer.await.unwrap_or_else(|_| Answer::Error(CallError::unknown("the session ended")))
        }
    }

    /// The next requests. One that timed out while it was queued is not sent: after a stall, what
    /// nobody waits for would hold up what is.
    fn next_frame(&self) -> Vec<session::Request> {
        let (mut queued, waiting) = (self.queued.borrow_mut(), self.waiting.borrow());
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while bytes < FRAME_BYTES
            && requests.len() < FRAME_REQUESTS
            && let Some(request) = queued.pop_front()
        {
            if waiting.contains_key(&request.id) {
                bytes += request_bytes(&request);
                requests.push(request);
            }
        }
        requests
    }

    fn settle(&self, answer: session::Answer) {
        // Nobody waits for what timed out.
        let Some(waiting) = self.waiting.borrow_mut().remove(&answer.id) else { return };
        let _ = waiting.send(match answer.answer {
            Some(Said::Put(put)) => put.into(),
            Some(Said::Range(range)) => range.into(),
            Some(Said::Failure(failure)) => {
                let status = Status::new(Code::from_i32(failure.code), failure.message);
                Answer::Error(grpc::call_error(&status))
            }
            None => Answer::Error(CallError::unknown("the answer says nothing")),
        });
    }

    /// Nothing more is written or read.
    fn give_up(&self, why: &str) {
        let mut waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for request in self.queued.borrow_mut().drain(..) {
            if let Some(waiting) = waiting.remove(&request.id) {
                let text = format!("never sent: {why}");
                let _ = waiting.send(Answer::Error(CallError { outcome: Outcome::Fail, text }));
            }
        }
        for (_, waiting) in waiting {
            let _ = waiting.send(Answer::Error(CallError::unknown(why)));
        }
    }
}

/// Of an operation that somebody waits for.
struct Place {
    desk: Weak<Desk>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.upgrade() {
            desk.waiting.borrow_mut().remove(&self.id);
        }
    }
}

/// Writes what is queued, as fast as the other side takes it, until the session is gone or the stream
/// broke; the reader tells.
async fn write(desk: Weak<Desk>, mut stream: SendStream<Bytes>, _up: SendRequest<Bytes>) {
    loop {
        let Some(desk) = desk.upgrade() else { return };
        desk.queue_filled.notified().await;
        while !desk.queued.borrow().is_empty() {
            if !has_room(&mut stream).await {
                return;
            }
            let requests = desk.next_frame();
            if !requests.is_empty()
                && stream.send_data(grpc::frame(&Requests { requests }), false).is_err()
            {
                return;
            }
        }
    }
}

/// Waits until all before was taken, and more would be; false: the stream is over.
async fn has_room(stream: &mut SendStream<Bytes>) -> bool {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        if !matches!(poll_fn(|context| stream.poll_capacity(context)).await, Some(Ok(_))) {
            return false;
        }
    }
    true
}

fn request_bytes(request: &session::Request) -> usize {
    match &request.request {
        Some(Asking::Put(put)) => put.key.len() + put.value.len(),
        Some(Asking::Range(range)) => range.key.len(),
        None => 0,
    }
}

/// Reads answers until the stream ends; why it did.
async fn read(desk: &Desk, stream: RecvStream) -> String {
    let mut frames = Frames::of(stream);
    loop {
        match frames.next::<Answers>().await {
            Ok(Some(frame)) => frame.answers.into_iter().for_each(|answer| desk.settle(answer)),
            Ok(None) => return "the server ended the session".to_owned(),
            Err(error) => return error.text,
        }
    }
}
