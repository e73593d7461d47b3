//! What is refused by looking at the request alone, before anything is proposed.
//!
//! Invariant: a request that passes here and commits can be applied; what depends on the store is
//! checked when it is applied. The order of the checks is etcd's, so that a request with two
//! faults gets the same error.
//!
//! Source: etcd `server/etcdserver/api/v3rpc/key.go`.

use std::collections::HashSet;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

use super::{KvError, MAX_TXN_OPS};

/// Checks a read.
pub fn range(request: &RangeRequest) -> Result<(), KvError> {
    if request.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(KvError::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &PutRequest) -> Result<(), KvError> {
    if request.key.is_empty() {
        Err(KvError::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(KvError::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(KvError::LeaseProvided)
    } else {
        Ok(())
    }
}

/// Checks a delete.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), KvError> {
    if request.key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction, its nested ones, and that no key is written twice.
pub fn txn(request: &TxnRequest) -> Result<(), KvError> {
    operations(request, MAX_TXN_OPS)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn operations(request: &TxnRequest, allowed: usize) -> Result<(), KvError> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = allowed.checked_sub(longest) else { return Err(KvError::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(KvError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => operations(request, left)?,
            None => return Err(KvError::KeyNotFound),
        }
    }
    Ok(())
}

/// What one list of operations writes.
#[derive(Default)]
struct Writes {
    puts: HashSet<Bytes>,
    /// Begin and end as given; compared as plain bytes, so that an open end (`"\0"`) overlaps
    /// nothing, which is how etcd takes it.
    deletes: Vec<(Bytes, Option<Bytes>)>,
}

impl Writes {
    fn deletes(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|(begin, end)| match end {
            None => key == begin,
            Some(end) => key >= begin && key < end,
        })
    }
}

/// A put may not meet another put or a delete of the same list, except that the two branches of a
/// nested transaction may both write a key.
fn writes(ops: &[RequestOp]) -> Result<Writes, KvError> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            let end = Some(request.range_end.clone()).filter(|end| !end.is_empty());
            all.deletes.push((request.key.clone(), end));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let then = writes(&nested.success)?;
        let other = writes(&nested.failure)?;
        for key in &then.puts {
            if all.puts.contains(key) || all.deletes(key) {
                return Err(KvError::DuplicateKey);
            }
        }
        for key in &other.puts {
            if all.puts.contains(key) || all.deletes(key) {
                return Err(KvError::DuplicateKey);
            }
        }
        all.puts.extend(then.puts);
        all.puts.extend(other.puts);
        all.deletes.extend(then.deletes);
        all.deletes.extend(other.deletes);
    }
    for op in ops {
        let Some(Request::RequestPut(request)) = &op.request else { continue };
        if all.deletes(&request.key) || !all.puts.insert(request.key.clone()) {
            return Err(KvError::DuplicateKey);
        }
    }
    Ok(all)
}
