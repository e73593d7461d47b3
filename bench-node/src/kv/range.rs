//! Reads: which keys a request selects, and in which order it gets them.
//!
//! Invariant: changes nothing. Counts, limits, filters and sorting compose as in etcd: `count` is
//! of all keys in the range, before filters and limit.
//!
//! Source: etcd `server/etcdserver/txn/range.go` (3.4: `etcdserver/apply.go`).

use std::ops::Bound;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{RangeRequest, RangeResponse};
use api::mvccpb::KeyValue;
use bytes::Bytes;

use super::{Record, Store, revision_header};

impl Store {
    /// The keys of `[key, range_end)`; an empty end means the one key, `"\0"` all keys from `key`.
    pub(super) fn select(
        &self,
        key: &Bytes,
        range_end: &Bytes,
    ) -> impl Iterator<Item = (&Bytes, &Record)> {
        let open_end = range_end[..] == [0];
        let (one, end) = if range_end.is_empty() {
            (self.records.get_key_value(key), None)
        } else if open_end {
            (None, Some(Bound::Unbounded))
        } else if key < range_end {
            (None, Some(Bound::Excluded(&range_end[..])))
        } else {
            (None, None)
        };
        let many = end.map(|end| self.records.range::<_, [u8]>((Bound::Included(&key[..]), end)));
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Whether a read looks at more than so many keys, or answers with more than so many bytes.
    pub fn is_longer(&self, request: &RangeRequest, keys: usize, bytes: usize) -> bool {
        if request.range_end.is_empty() {
            return false;
        }
        let (mut seen, mut sum) = (0, 0);
        self.select(&request.key, &request.range_end).any(|(key, record)| {
            seen += 1;
            sum += key.len() + record.value.len();
            seen > keys || sum > bytes
        })
    }

    /// Answers a read whose revision was checked; `revision` is what its header says.
    pub(super) fn read_range(&self, request: &RangeRequest, revision: i64) -> RangeResponse {
        let header = Some(revision_header(revision));
        let selected = self.select(&request.key, &request.range_end);
        if request.count_only {
            let count = selected.count() as i64;
            return RangeResponse { header, count, ..Default::default() };
        }

        let (mut found, count) = if fetches_all(request) {
            let mut all: Vec<_> = selected.collect();
            let count = all.len();
            all.retain(|(_, record)| passes_filters(request, record));
            (all, count)
        } else {
            // One more than asked for tells whether there is more.
            let mut selected = selected;
            let first: Vec<_> = selected.by_ref().take(limit(request).saturating_add(1)).collect();
            let count = first.len() + selected.count();
            (first, count)
        };
        sort(request, &mut found);

        let more = found.len() > limit(request);
        found.truncate(limit(request));
        let kvs = found
            .into_iter()
            .map(|(key, record)| {
                let mut kv = record.to_kv(key);
                if request.keys_only {
                    kv.value = Bytes::new();
                }
                kv
            })
            .collect::<Vec<KeyValue>>();
        RangeResponse { header, kvs, more, count: count as i64 }
    }
}

fn limit(request: &RangeRequest) -> usize {
    usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX)
}

/// Whether filtering or sorting must see all keys before the limit cuts. A sort target without an
/// order does not count: etcd limits first and sorts what is left.
fn fetches_all(request: &RangeRequest) -> bool {
    request.sort_order() != SortOrder::None
        || request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filters(request: &RangeRequest, record: &Record) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(record.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(record.create_revision, request.min_create_revision, request.max_create_revision)
}

/// `found` comes in ascending order of keys; equal ones keep it.
fn sort(request: &RangeRequest, found: &mut [(&Bytes, &Record)]) {
    let target = request.sort_target();
    let descending = request.sort_order() == SortOrder::Descend;
    if target == SortTarget::Key && !descending {
        return;
    }
    found.sort_by(|(left_key, left), (right_key, right)| {
        let ascending = match target {
            SortTarget::Key => left_key.cmp(right_key),
            SortTarget::Version => left.version.cmp(&right.version),
            SortTarget::Create => left.create_revision.cmp(&right.create_revision),
            SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
            SortTarget::Value => left.value.cmp(&right.value),
        };
        if descending { ascending.reverse() } else { ascending }
    });
}
