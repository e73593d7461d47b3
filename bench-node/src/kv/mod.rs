//! The state machine: keys with version, create and mod revision, as etcd has them.
//!
//! Invariant: a pure function of the commands applied, in their order: no clock, no random source,
//! no iteration order of a hash. So members that applied the same commands hold the same store, and
//! [`Store::hash`] tells. A command that fails changed nothing.
//!
//! Records are in a persistent map: a clone of it is a pointer, and shares with its origin all that
//! neither of them changes. So the store can be frozen as it is now while writes go on
//! ([`Store::freeze`]), and a snapshot costs no stop.
//!
//! Left to others: old revisions are not kept (a read of one answers as etcd does of a compacted
//! one), and there are no leases.
//!
//! Source: etcd 3.4 `etcdserver/apply.go` and `mvcc/kvstore_txn.go`, for what is observable.

pub mod check;
mod command;
mod error;
mod freeze;
mod range;
#[cfg(test)]
mod tests;
mod txn;
mod write;

use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, ResponseHeader, TxnResponse,
};
use api::mvccpb::KeyValue;
use bytes::Bytes;
use imbl::OrdMap;

pub use command::{Command, CommandError};
pub use error::KvError;
pub use freeze::{Frozen, RestoreError, StoreHeader};
pub use txn::{is_read_only, is_serializable};
use write::WriteBatch;

/// The largest command, encoded; etcd's default.
pub const MAX_REQUEST_BYTES: usize = 1536 * 1024;
/// Compares, or operations of one branch, in a transaction; etcd's default.
pub const MAX_TXN_OPS: usize = 128;

/// What a command answers. Headers carry the revision only.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To [`Command::Put`].
    Put(PutResponse),
    /// To [`Command::DeleteRange`].
    DeleteRange(DeleteRangeResponse),
    /// To [`Command::Txn`].
    Txn(TxnResponse),
    /// To [`Command::Compact`].
    Compact(CompactionResponse),
}

/// A stored key's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The revision that made the key.
    pub create_revision: i64,
    /// The revision that changed it last.
    pub mod_revision: i64,
    /// Changes since it was made, that one included.
    pub version: i64,
    /// Its value.
    pub value: Bytes,
}

impl Record {
    fn to_kv(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value.clone(),
            lease: 0,
        }
    }
}

/// All keys.
#[derive(Clone, Debug)]
pub struct Store {
    records: OrdMap<Bytes, Record>,
    revision: i64,
    compacted_revision: i64,
    /// Of keys and values.
    bytes: u64,
    #[cfg(feature = "seeded-bugs")]
    lost_writes: Option<LostWrites>,
}

/// The planted bug "lose-acknowledged-write": every `one_in`th put is answered and not done.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Debug)]
struct LostWrites {
    one_in: u64,
    puts: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            records: OrdMap::new(),
            revision: 1,
            compacted_revision: -1,
            bytes: 0,
            #[cfg(feature = "seeded-bugs")]
            lost_writes: None,
        }
    }
}

impl Store {
    /// Plants the bug "lose-acknowledged-write".
    #[cfg(feature = "seeded-bugs")]
    pub fn lose_one_put_in(&mut self, one_in: u64) {
        self.lost_writes = Some(LostWrites { one_in, puts: 0 });
    }

    /// Goes on from another state. A planted bug stays planted.
    pub fn go_on_from(&mut self, restored: Self) {
        #[cfg(feature = "seeded-bugs")]
        let lost_writes = self.lost_writes.take();
        *self = restored;
        #[cfg(feature = "seeded-bugs")]
        {
            self.lost_writes = lost_writes;
        }
    }

    /// The revision of the last change; 1 in an empty store.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The revision of the last compaction; 0 before the first.
    pub fn compacted_revision(&self) -> i64 {
        self.compacted_revision.max(0)
    }

    /// CRC32C over the revision and all records in the order of keys: equal on members that applied
    /// the same commands. Of a large store, take [`Frozen::hash`], outside of any lock.
    pub fn hash(&self) -> u32 {
        self.freeze().hash()
    }

    /// Applies a committed command.
    pub fn apply(&mut self, command: Command) -> Result<Response, KvError> {
        match command {
            Command::Put(request) => {
                check_lease(&request)?;
                let needs_key = request.ignore_value || request.ignore_lease;
                if needs_key && !self.records.contains_key(&request.key) {
                    return Err(KvError::KeyNotFound);
                }
                let mut batch = WriteBatch::new(self);
                let response = batch.put(request);
                batch.finish();
                Ok(Response::Put(response))
            }
            Command::DeleteRange(request) => {
                let mut batch = WriteBatch::new(self);
                let response = batch.delete_range(&request);
                batch.finish();
                Ok(Response::DeleteRange(response))
            }
            Command::Txn(request) => self.apply_txn(request).map(Response::Txn),
            Command::Compact(request) => self.compact(&request).map(Response::Compact),
        }
    }

    /// Answers a read.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.check_revision(request.revision)?;
        Ok(self.read_range(request, self.revision))
    }

    /// Whether the state of a revision is here; 0 and below mean the current one.
    pub fn check_revision(&self, revision: i64) -> Result<(), KvError> {
        if revision > self.revision {
            Err(KvError::FutureRevision)
        } else if revision > 0 && revision < self.revision {
            Err(KvError::Compacted)
        } else {
            Ok(())
        }
    }

    /// Nothing older is kept anyway; what is left of a compaction is its revision, which etcd's
    /// clients expect to be refused the second time.
    fn compact(&mut self, request: &CompactionRequest) -> Result<CompactionResponse, KvError> {
        if request.revision <= self.compacted_revision {
            return Err(KvError::Compacted);
        }
        if request.revision > self.revision {
            return Err(KvError::FutureRevision);
        }
        self.compacted_revision = request.revision;
        Ok(CompactionResponse { header: Some(revision_header(self.revision)) })
    }

    fn insert(&mut self, key: Bytes, record: Record) {
        let (key_bytes, value_bytes) = (key.len() as u64, record.value.len() as u64);
        self.bytes += value_bytes;
        match self.records.insert(key, record) {
            Some(old) => self.bytes -= old.value.len() as u64,
            None => self.bytes += key_bytes,
        }
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(old) = self.records.remove(key) {
            self.bytes -= (key.len() + old.value.len()) as u64;
        }
    }

    #[cfg(feature = "seeded-bugs")]
    fn loses_this_write(&mut self) -> bool {
        self.lost_writes.as_mut().is_some_and(|lost| {
            lost.puts += 1;
            lost.puts % lost.one_in == 0
        })
    }
}

/// There are no leases, so every one but 0 is unknown.
fn check_lease(request: &PutRequest) -> Result<(), KvError> {
    if request.lease == 0 { Ok(()) } else { Err(KvError::LeaseNotFound) }
}

fn revision_header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..Default::default() }
}
