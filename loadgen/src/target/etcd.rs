//! The `etcd` target: whatever speaks etcd's KV service over plain TCP, etcd and bench-node alike.
//!
//! Invariant: an operation is a call of its own, sent once, over the connection it was meant for.
//! While that is nowhere, its operations fail at once as never sent; what was on its way when it
//! broke has an unknown outcome; nothing is sent again.

use std::cell::RefCell;
use std::future::Future;
use std::io;

use api::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use bytes::Bytes;
use h2::client::SendRequest;

use super::link::{self, Alarm, Endpoint, Line, Transport};
use super::{Answer, Connection, NotSent, Request, Target, grpc};
use crate::error::LoadError;

/// Endpoints that speak etcd's KV service.
#[derive(Clone, Debug)]
pub struct Etcd {
    endpoints: Vec<String>,
}

impl Etcd {
    /// Endpoints are `host:port`; a leading `http://` is taken off.
    pub fn new(endpoints: &[String]) -> Result<Self, LoadError> {
        Ok(Self { endpoints: link::checked(endpoints)? })
    }
}

impl Target for Etcd {
    type Connection = EtcdConnection;

    fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn connect(&self, endpoint: usize) -> Result<EtcdConnection, LoadError> {
        Line::open(&self.endpoints, endpoint).map(EtcdConnection)
    }
}

/// One connection, on which each operation is a call.
pub struct EtcdConnection(Line<Calls>);

/// What is up.
struct Calls(RefCell<SendRequest<Bytes>>);

const PUT: usize = 0;
const RANGE: usize = 1;

impl Transport for Calls {
    const METHODS: &'static [&'static str] = &["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"];

    async fn open(
        _: &Endpoint,
        connection: SendRequest<Bytes>,
        _: Alarm<Self>,
    ) -> io::Result<Self> {
        Ok(Self(RefCell::new(connection)))
    }
}

impl Connection for EtcdConnection {
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
        self.0.hand_over(|Calls(connection), endpoint| {
            // A fresh handle each time: a handle refuses to queue a second request while its first
            // waits for a free stream, and waiting is what open-loop requests must do.
            let mut handle = connection.borrow().clone();
            let (kind, response) = match request {
                Request::Put { key, value } => {
                    let message = PutRequest { key, value, ..Default::default() };
                    (Kind::Put, grpc::start(&mut handle, &endpoint.methods[PUT], &message)?)
                }
                Request::Get { key, linearizable } => {
                    let serializable = !linearizable;
                    let message = RangeRequest { key, serializable, ..Default::default() };
                    (Kind::Get, grpc::start(&mut handle, &endpoint.methods[RANGE], &message)?)
                }
            };
            Ok(answer(kind, response))
        })
    }
}

enum Kind {
    Put,
    Get,
}

async fn answer(kind: Kind, response: h2::client::ResponseFuture) -> Answer {
    let answer = match kind {
        Kind::Put => grpc::finish::<PutResponse>(response).await.map(Answer::from),
        Kind::Get => grpc::finish::<RangeResponse>(response).await.map(Answer::from),
    };
    answer.unwrap_or_else(Answer::Error)
}

impl From<PutResponse> for Answer {
    fn from(put: PutResponse) -> Self {
        Self::Put { revision: put.header.map_or(0, |header| header.revision) }
    }
}

impl From<RangeResponse> for Answer {
    fn from(mut range: RangeResponse) -> Self {
        match range.kvs.pop() {
            None => Self::Get { value: None, revision: 0 },
            Some(kv) => Self::Get { value: Some(kv.value), revision: kv.mod_revision },
        }
    }
}
