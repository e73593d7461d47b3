//! Passing a request on to the leader: a request of one key with others over a session with its peer
//! port, any other one by a call of its KV service there.
//!
//! Invariant: it is passed on once, no retry. Only what provably did not reach a leader is reported
//! as not taken.

use api::etcdserverpb::kv_client::KvClient;
use api::session::Failure;
use api::session::answer::Answer as Said;
use api::session::request::Request as Asking;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

use super::connection_lost;
use super::kv::{Answer, Asked, mismatch};
use crate::kv::{self, Command, MAX_REQUEST_BYTES};
use crate::peers::{Fate, Route, request_bytes};

/// The answer of a member that was asked as if it led. It says: not proposed.
pub(super) const NOT_LEADER: &str = "etcdserver: not leader";

pub(super) enum Forwarded {
    Answered(Result<Answer, Status>),
    NotTaken,
}

/// Brings a request to the member at the end of the route, and its answer back.
pub(super) async fn forward(route: Route, asked: Asked) -> Forwarded {
    match of_one_key(asked) {
        Ok(asking) => {
            let (reply, fate) = oneshot::channel();
            // Whoever waits may have given up.
            route.passage.send(asking, Box::new(|fate| drop(reply.send(fate))));
            // A sender that is dropped says that this member stops, with the request anywhere.
            fate.await.unwrap_or(Fate::Lost).into()
        }
        Err(asked) => match call(route.channel, asked).await {
            Err(status) if is_not_taken(&status) => Forwarded::NotTaken,
            // A status that did not come from the leader but from the connection to it: the request
            // may have arrived.
            Err(status) if std::error::Error::source(&status).is_some() => {
                Forwarded::Answered(Err(connection_lost()))
            }
            answer => Forwarded::Answered(answer),
        },
    }
}

/// As a session has it, if a session has it. One that is too large is the leader's to refuse.
fn of_one_key(asked: Asked) -> Result<Asking, Asked> {
    let asking = match asked {
        Asked::Command(Command::Put(request)) => Asking::Put(request),
        Asked::Range(request) if request.range_end.is_empty() => Asking::Range(request),
        other => return Err(other),
    };
    if request_bytes(&asking) <= MAX_REQUEST_BYTES {
        return Ok(asking);
    }
    Err(match asking {
        Asking::Put(request) => Asked::Command(Command::Put(request)),
        Asking::Range(request) => Asked::Range(request),
    })
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
