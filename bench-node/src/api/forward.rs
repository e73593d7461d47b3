//! Passing a request on to the leader: a request of one key with others over a session with its peer
//! port, any other one by a call of its KV service there.
//!
//! Invariant: it is passed on once, no retry. Only what provably did not reach a leader is reported
//! as not taken, and a read that was lost on its way: it changes nothing, whoever leads may answer it.

use std::sync::Arc;

use api::etcdserverpb::kv_client::KvClient;
use api::session::Failure;
use api::session::answer::Answer as Said;
use api::session::request::Request as Asking;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

use super::kv::{Answer, Asked, mismatch};
use super::{Admitted, connection_lost};
use crate::kv::{self, Command, MAX_REQUEST_BYTES};
use crate::peers::{Fate, Route};

/// The answer of a member that was asked as if it led. It says: not proposed.
pub(super) const NOT_LEADER: &str = "etcdserver: not leader";

pub(super) enum Forwarded {
    Answered(Result<Answer, Status>),
    NotTaken,
}

/// Brings a request to the member at the end of the route, and its answer back. Where nobody waits for
/// that any more, the request keeps its place until it is answered.
pub(super) async fn forward(route: Route, asked: Asked, place: Arc<Admitted>) -> Forwarded {
    let reads = asked.only_reads();
    let asking = match asked {
        Asked::Command(Command::Put(request)) if fits(&request) => Asking::Put(request),
        Asked::Range(request) if request.range_end.is_empty() && fits(&request) => {
            Asking::Range(request)
        }
        asked => return by_call(route.channel, asked).await,
    };
    let (reply, fate) = oneshot::channel();
    let tell = move |fate| {
        // Whoever waits may have given up.
        let _ = reply.send(fate);
        drop(place);
    };
    route.passage.send(asking, Box::new(tell));
    // A sender that is dropped says that this member stops, with the request anywhere.
    match fate.await.unwrap_or(Fate::Lost) {
        Fate::Lost if reads => Forwarded::NotTaken,
        fate => fate.into(),
    }
}

/// Whether a frame has room for it. What is too large is the leader's to refuse.
fn fits(request: &impl prost::Message) -> bool {
    request.encoded_len() <= MAX_REQUEST_BYTES
}

async fn by_call(channel: Channel, asked: Asked) -> Forwarded {
    let reads = asked.only_reads();
    match call(channel, asked).await {
        Err(status) if is_not_taken(&status) => Forwarded::NotTaken,
        // A status that did not come from the leader but from the connection to it: the request
        // may have arrived.
        Err(status) if std::error::Error::source(&status).is_some() => match reads {
            true => Forwarded::NotTaken,
            false => Forwarded::Answered(Err(connection_lost())),
        },
        answer => Forwarded::Answered(answer),
    }
}

impl From<Fate> for Forwarded {
    fn from(fate: Fate) -> Self {
        let answer = match fate {
            Fate::NotSent => return Self::NotTaken,
            Fate::Lost => Err(connection_lost()),
            Fate::Answered(Some(Said::Put(response))) => {
                Ok(Answer::Command(kv::Response::Put(response)))
            }
            Fate::Answered(Some(Said::Range(response))) => Ok(Answer::Range(response)),
            Fate::Answered(Some(Said::Failure(Failure { code, message }))) => {
                Err(Status::new(Code::from(code), message))
            }
            Fate::Answered(None) => Err(mismatch()),
        };
        match answer {
            Err(status) if is_not_taken(&status) => Self::NotTaken,
            answer => Self::Answered(answer),
        }
    }
}

async fn call(channel: Channel, asked: Asked) -> Result<Answer, Status> {
    let mut client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    match asked {
        Asked::Range(request) => {
            client.range(request).await.map(Response::into_inner).map(Answer::Range)
        }
        Asked::ReadTxn(request) | Asked::Command(Command::Txn(request)) => {
            let response = client.txn(request).await?.into_inner();
            Ok(Answer::Command(kv::Response::Txn(response)))
        }
        Asked::Command(Command::Put(request)) => {
            let response = client.put(request).await?.into_inner();
            Ok(Answer::Command(kv::Response::Put(response)))
        }
        Asked::Command(Command::DeleteRange(request)) => {
            let response = client.delete_range(request).await?.into_inner();
            Ok(Answer::Command(kv::Response::DeleteRange(response)))
        }
        Asked::Command(Command::Compact(request)) => {
            let response = client.compact(request).await?.into_inner();
            Ok(Answer::Command(kv::Response::Compact(response)))
        }
    }
}

/// Whether it proves that the request never reached a leader.
pub(super) fn is_not_taken(status: &Status) -> bool {
    if status.code() == Code::FailedPrecondition && status.message() == NOT_LEADER {
        return true;
    }
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
