//! What the log carries for the state machine, and its encoding.
//!
//! Invariant: decoding what was encoded gives the same command on every member and in every later
//! version: a kind byte, then the request as protobuf.

use api::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, TxnRequest};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// A replicated change of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Sets one key.
    Put(PutRequest),
    /// Removes a key or a range.
    DeleteRange(DeleteRangeRequest),
    /// Compares, then one of two lists of operations, as one step.
    Txn(TxnRequest),
    /// Forgets old revisions.
    Compact(CompactionRequest),
}

/// An entry of the log that is no command; the member must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing at all.
    #[error("the entry is empty")]
    Empty,
    /// From a newer version.
    #[error("unknown command kind {0}")]
    UnknownKind(u8),
    /// Not the protobuf that its kind promises.
    #[error("command of kind {kind}: {source}")]
    Malformed {
        /// The kind byte.
        kind: u8,
        /// What prost said.
        source: prost::DecodeError,
    },
}

const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;

impl Command {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Put(request) => encode(PUT, request),
            Self::DeleteRange(request) => encode(DELETE_RANGE, request),
            Self::Txn(request) => encode(TXN, request),
            Self::Compact(request) => encode(COMPACT, request),
        }
    }

    /// Reads it back; keys and values are slices of `data`.
    pub fn decode(mut data: Bytes) -> Result<Self, CommandError> {
        if data.is_empty() {
            return Err(CommandError::Empty);
        }
        let kind = data.split_to(1)[0];
        let malformed = |source| CommandError::Malformed { kind, source };
        match kind {
            PUT => PutRequest::decode(data).map(Self::Put).map_err(malformed),
            DELETE_RANGE => {
                DeleteRangeRequest::decode(data).map(Self::DeleteRange).map_err(malformed)
            }
            TXN => TxnRequest::decode(data).map(Self::Txn).map_err(malformed),
            COMPACT => CompactionRequest::decode(data).map(Self::Compact).map_err(malformed),
            kind => Err(CommandError::UnknownKind(kind)),
        }
    }
}

fn encode(kind: u8, request: &impl Message) -> Bytes {
    let mut data = BytesMut::with_capacity(1 + request.encoded_len());
    data.put_u8(kind);
    request.encode_raw(&mut data);
    data.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        for command in [
            Command::Put(put.clone()),
            Command::DeleteRange(DeleteRangeRequest { key: "k".into(), ..Default::default() }),
            Command::Txn(TxnRequest::default()),
            Command::Compact(CompactionRequest { revision: 7, physical: false }),
        ] {
            assert_eq!(Command::decode(command.encode()), Ok(command));
        }
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        assert_eq!(Command::decode(Bytes::new()), Err(CommandError::Empty));
        assert_eq!(Command::decode(Bytes::from_static(&[9])), Err(CommandError::UnknownKind(9)));
        assert!(matches!(
            Command::decode(Bytes::from_static(&[PUT, 0xff])),
            Err(CommandError::Malformed { kind: PUT, .. })
        ));
    }
}
