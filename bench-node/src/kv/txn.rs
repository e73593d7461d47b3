//! Transactions: compares, then one of two lists of operations, as one step.
//!
//! Invariant: all compares, nested ones too, look at the store as it was before the transaction;
//! all checks are done before the first write, so a transaction that fails changed nothing; all
//! writes of one transaction share a revision.
//!
//! Source: etcd `server/etcdserver/txn/txn.go` (3.4: `etcdserver/apply.go`).

use std::cmp::Ordering;

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{Compare, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse};

use super::write::WriteBatch;
use super::{KvError, Record, Store, check_lease, revision_header};

/// Whether a transaction only reads, so that it needs no log entry. A nested one counts as a
/// write, as in etcd.
pub fn is_read_only(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether a read-only transaction may be answered from local state.
pub fn is_serializable(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

impl Store {
    /// Answers a transaction for which [`is_read_only`] holds.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, KvError> {
        let path = Path::choose(self, request);
        self.check_ranges(request, &path, &mut false)?;
        let responses = branch(request, &path)
            .iter()
            .filter_map(|op| match &op.request {
                Some(Request::RequestRange(range)) => {
                    Some(Response::ResponseRange(self.read_range(range, self.revision)))
                }
                _ => None,
            })
            .map(|response| ResponseOp { response: Some(response) })
            .collect();
        let header = Some(revision_header(self.revision));
        Ok(TxnResponse { header, succeeded: path.succeeded, responses })
    }

    /// Whether a transaction for which [`is_read_only`] holds looks at more than so many keys, or
    /// answers with more than so many bytes: judged by an equal share for each of its parts.
    pub fn is_longer_txn(&self, request: &TxnRequest, keys: usize, bytes: usize) -> bool {
        let parts = request.compare.len() + request.success.len().max(request.failure.len());
        let (keys, bytes) = (keys / parts.max(1), bytes / parts.max(1));
        let is_long = |op: &RequestOp| match &op.request {
            Some(Request::RequestRange(range)) => self.is_longer(range, keys, bytes),
            _ => false,
        };
        let is_long_compare = |compare: &Compare| {
            !compare.range_end.is_empty()
                && self.select(&compare.key, &compare.range_end).nth(keys).is_some()
        };
        request.success.iter().chain(&request.failure).any(is_long)
            || request.compare.iter().any(is_long_compare)
    }

    pub(super) fn apply_txn(&mut self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        let path = Path::choose(self, &request);
        self.check_puts(&request, &path)?;
        self.check_ranges(&request, &path, &mut false)?;
        let mut batch = WriteBatch::new(self);
        let mut response = execute(&mut batch, request, &path);
        response.header = Some(revision_header(batch.finish()));
        Ok(response)
    }

    fn check_puts(&self, request: &TxnRequest, path: &Path) -> Result<(), KvError> {
        let mut nested = path.nested.iter();
        for op in branch(request, path) {
            match &op.request {
                Some(Request::RequestPut(put)) => {
                    let needs_key = put.ignore_value || put.ignore_lease;
                    if needs_key && !self.records.contains_key(&put.key) {
                        return Err(KvError::KeyNotFound);
                    }
                    check_lease(put)?;
                }
                Some(Request::RequestTxn(txn)) => self.check_puts(txn, next(&mut nested))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `written` tells whether a write comes before: then the state that a revision names is gone.
    fn check_ranges(
        &self,
        request: &TxnRequest,
        path: &Path,
        written: &mut bool,
    ) -> Result<(), KvError> {
        let mut nested = path.nested.iter();
        for op in branch(request, path) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    self.check_revision(range.revision)?;
                    // Below 0 means the current revision, but etcd compares it all the same.
                    let names_the_past = range.revision > 0 && *written;
                    if names_the_past || range.revision.min(0) < self.compacted_revision.min(0) {
                        return Err(KvError::Compacted);
                    }
                }
                Some(Request::RequestTxn(txn)) => {
                    self.check_ranges(txn, next(&mut nested), written)?;
                }
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => *written = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Which branch a transaction takes, and the nested ones of that branch, in their order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn choose(store: &Store, request: &TxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(store, compare));
        let ops = if succeeded { &request.success } else { &request.failure };
        let nested = ops.iter().filter_map(|op| match &op.request {
            Some(Request::RequestTxn(txn)) => Some(Self::choose(store, txn)),
            _ => None,
        });
        Self { succeeded, nested: nested.collect() }
    }
}

fn branch<'a>(request: &'a TxnRequest, path: &Path) -> &'a [RequestOp] {
    if path.succeeded { &request.success } else { &request.failure }
}

fn next<'a>(nested: &mut std::slice::Iter<'a, Path>) -> &'a Path {
    nested.next().expect("the path has one step for each nested transaction")
}

fn execute(batch: &mut WriteBatch<'_>, request: TxnRequest, path: &Path) -> TxnResponse {
    let ops = if path.succeeded { request.success } else { request.failure };
    let mut nested = path.nested.iter();
    let responses = ops
        .into_iter()
        .map(|op| {
            let response = op.request.map(|request| match request {
                Request::RequestRange(range) => Response::ResponseRange(batch.range(&range)),
                Request::RequestPut(put) => Response::ResponsePut(batch.put(put)),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(batch.delete_range(&delete))
                }
                Request::RequestTxn(txn) => {
                    Response::ResponseTxn(execute(batch, txn, next(&mut nested)))
                }
            });
            ResponseOp { response }
        })
        .collect();
    // Only the outermost header carries a revision.
    let header = Some(ResponseHeader::default());
    TxnResponse { header, succeeded: path.succeeded, responses }
}

/// Whether a compare holds for every key it selects. Where it selects none: a value never
/// matches, and the numbers are 0.
fn holds(store: &Store, compare: &Compare) -> bool {
    let mut selected = store.select(&compare.key, &compare.range_end).peekable();
    if selected.peek().is_none() {
        return compare.target() != CompareTarget::Value && holds_for(compare, &Record::default());
    }
    selected.all(|(_, record)| holds_for(compare, record))
}

fn holds_for(compare: &Compare, record: &Record) -> bool {
    let ordering = match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => record.value.cmp(value),
        (Ok(CompareTarget::Value), _) => record.value[..].cmp(&[]),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(given))) => {
            record.create_revision.cmp(given)
        }
        (Ok(CompareTarget::Create), _) => record.create_revision.cmp(&0),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(given))) => {
            record.mod_revision.cmp(given)
        }
        (Ok(CompareTarget::Mod), _) => record.mod_revision.cmp(&0),
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(given))) => {
            record.version.cmp(given)
        }
        (Ok(CompareTarget::Version), _) => record.version.cmp(&0),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(given))) => 0.cmp(given),
        (Ok(CompareTarget::Lease), _) | (Err(_), _) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
