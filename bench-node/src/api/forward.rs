//! Passing a request on to the leader, over the KV service of its peer port.
//!
//! Invariant: one call, no retry. Only what provably did not reach a leader is reported as not
//! taken.

use api::etcdserverpb::kv_client::KvClient;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

use super::connection_lost;
use super::kv::{Answer, Asked};
use crate::kv::{self, Command};

/// The answer of a member that was asked as if it led. It says: not proposed.
pub(super) const NOT_LEADER: &str = "etcdserver: not leader";

pub(super) enum Forwarded {
    Answered(Result<Answer, Status>),
    NotTaken,
}

pub(super) async fn forward(channel: Channel, asked: Asked) -> Forwarded {
    match call(channel, asked).await {
        Err(status) if is_not_taken(&status) => Forwarded::NotTaken,
        // A status that did not come from the leader but from the connection to it: the request
        // may have arrived.
        Err(status) if std::error::Error::source(&status).is_some() => {
            Forwarded::Answered(Err(connection_lost()))
        }
        answer => Forwarded::Answered(answer),
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
