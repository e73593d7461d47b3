//! The writes of one command.
//!
//! Invariant: they share one revision, the next one, which exists only if something changed.

use api::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use bytes::Bytes;

use super::{Record, Store, revision_header};

pub(super) struct WriteBatch<'a> {
    store: &'a mut Store,
    changed: bool,
}

impl<'a> WriteBatch<'a> {
    pub(super) fn new(store: &'a mut Store) -> Self {
        Self { store, changed: false }
    }

    /// The revision as seen from inside.
    fn revision(&self) -> i64 {
        self.store.revision + i64::from(self.changed)
    }

    /// Ends the command; the store's revision from now on.
    pub(super) fn finish(self) -> i64 {
        self.store.revision = self.revision();
        self.store.revision
    }

    pub(super) fn range(&self, request: &RangeRequest) -> RangeResponse {
        self.store.read_range(request, self.revision())
    }

    /// Sets a key whose request was checked: `ignore_value` finds a record.
    pub(super) fn put(&mut self, request: PutRequest) -> PutResponse {
        self.changed = true;
        let revision = self.revision();
        let header = Some(revision_header(revision));
        let held = self.store.records.get_key_value(&request.key);
        let previous = held.map(|(_, old)| old);
        let prev_kv = previous.filter(|_| request.prev_kv).map(|old| old.to_kv(&request.key));
        // The request's are slices of all that came with it, which they would keep in memory.
        let key = held.map_or_else(|| Bytes::copy_from_slice(&request.key), |(key, _)| key.clone());
        let value = match previous {
            Some(old) if request.ignore_value => old.value.clone(),
            _ => Bytes::copy_from_slice(&request.value),
        };
        let record = Record {
            create_revision: previous.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: previous.map_or(0, |old| old.version) + 1,
            value,
        };
        #[cfg(feature = "seeded-bugs")]
        if self.store.loses_this_write() {
            return PutResponse { header, prev_kv };
        }
        self.store.insert(key, record);
        PutResponse { header, prev_kv }
    }

    pub(super) fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let selected = self.store.select(&request.key, &request.range_end);
        let mut prev_kvs = Vec::new();
        let mut keys: Vec<Bytes> = Vec::new();
        for (key, record) in selected {
            if request.prev_kv {
                prev_kvs.push(record.to_kv(key));
            }
            keys.push(key.clone());
        }
        self.changed |= !keys.is_empty();
        for key in &keys {
            self.store.remove(key);
        }
        let header = Some(revision_header(self.revision()));
        DeleteRangeResponse { header, deleted: keys.len() as i64, prev_kvs }
    }
}
