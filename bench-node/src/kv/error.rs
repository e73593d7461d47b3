//! What the key-value API refuses, in etcd's words.
//!
//! Invariant: code and text are etcd's, letter for letter, so that its clients know them.
//!
//! Source: etcd `api/v3rpc/rpctypes/error.go`.

use tonic::{Code, Status};

/// A request that etcd would refuse too. None of them changes the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A request or a compare without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` of a key that is absent; an operation that is empty.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A sort order or target that does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// More compares or operations than [`super::MAX_TXN_OPS`], nested ones counted.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction that writes one key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A revision that is no longer kept.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// A revision that is yet to come.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// A lease other than 0: there are none here.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A command above [`super::MAX_REQUEST_BYTES`].
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
}

impl KvError {
    /// The gRPC code that goes with it.
    pub fn code(self) -> Code {
        match self {
            Self::Compacted | Self::FutureRevision => Code::OutOfRange,
            Self::LeaseNotFound => Code::NotFound,
            _ => Code::InvalidArgument,
        }
    }
}

impl From<KvError> for Status {
    fn from(error: KvError) -> Self {
        Status::new(error.code(), error.to_string())
    }
}
