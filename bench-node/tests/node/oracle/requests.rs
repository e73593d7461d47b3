//! Random requests over few keys, so that they meet.

use api::etcdserverpb::compare::TargetUnion;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// At most 8: beyond 12, etcd's sort is not stable, and the order of equals is anyone's guess.
const KEYS: [&[u8]; 8] = [b"a", b"aa", b"ab", b"b", b"b\0", b"c", b"\0", b"\xff\xff"];
const RANGE_ENDS: [&[u8]; 7] = [b"\0", b"a", b"ab", b"b", b"d", b"\xff", b"\xff\xff\xff"];

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
}

/// Where an operation stands: what revisions it may name differs.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Alone,
    /// A write may come before it, and then the current revision is an old one.
    InTxn,
}

pub(crate) struct Requests {
    random: StdRng,
    revision: i64,
    compacted: i64,
    values: u32,
}

impl Requests {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), revision: 1, compacted: 0, values: 0 }
    }

    /// What the servers answered.
    pub(crate) fn learn(&mut self, revision: i64, request: &Ask) {
        self.revision = self.revision.max(revision);
        if let Ask::Compact(compaction) = request {
            self.compacted = compaction.revision;
        }
    }

    pub(crate) fn next(&mut self) -> Ask {
        match self.random.random_range(0..100) {
            0..30 => Ask::Range(self.range(Place::Alone)),
            30..60 => Ask::Put(self.put()),
            60..70 => Ask::Delete(self.delete()),
            70..98 => Ask::Txn(self.txn(2)),
            _ => Ask::Compact(self.compaction()),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn one_of(&mut self, from: &[&'static [u8]]) -> Bytes {
        Bytes::from_static(from[self.random.random_range(0..from.len())])
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) { Bytes::new() } else { self.one_of(&KEYS) }
    }

    fn range_end(&mut self, percent: u32) -> Bytes {
        if self.chance(percent) { self.one_of(&RANGE_ENDS) } else { Bytes::new() }
    }

    /// Of things that did not happen yet, or happen now.
    fn near(&mut self) -> i64 {
        self.revision + self.random.random_range(-6..=2)
    }

    fn range(&mut self, place: Place) -> RangeRequest {
        let revision = match self.random.random_range(0..20) {
            0 => self.revision + self.random.random_range(1..=3),
            1 if self.compacted > 1 => self.random.random_range(1..self.compacted),
            2 if place == Place::Alone => self.revision,
            3 => -self.random.random_range(1..=3),
            _ => 0,
        };
        let filter = |this: &mut Self| if this.chance(10) { this.near() } else { 0 };
        let filters = [0; 4].map(|_: i64| filter(self));
        RangeRequest {
            key: self.key(),
            range_end: self.range_end(70),
            limit: if self.chance(40) { self.random.random_range(-1..=4) } else { 0 },
            revision,
            sort_order: if self.chance(50) { self.random.random_range(0..=2) } else { 0 },
            sort_target: if self.chance(50) { self.random.random_range(0..=4) } else { 0 },
            serializable: self.chance(30),
            keys_only: self.chance(20),
            count_only: self.chance(15),
            min_mod_revision: filters[0],
            max_mod_revision: filters[1],
            min_create_revision: filters[2],
            max_create_revision: filters[3],
        }
    }

    fn put(&mut self) -> PutRequest {
        self.values += 1;
        let ignore_value = self.chance(10);
        let value = if ignore_value && !self.chance(10) {
            Bytes::new()
        } else {
            format!("v{}", self.values % 20).into()
        };
        PutRequest {
            key: self.key(),
            value,
            lease: if self.chance(3) { 7 } else { 0 },
            prev_kv: self.chance(50),
            ignore_value,
            ignore_lease: self.chance(5),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: self.range_end(30),
            prev_kv: self.chance(50),
        }
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        if self.chance(2) {
            let put = self.put();
            let op = RequestOp { request: Some(Request::RequestPut(put)) };
            return TxnRequest { success: vec![op; 129], ..Default::default() };
        }
        let reads = self.chance(20);
        let compares = self.random.random_range(0..=2);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth, reads),
            failure: self.ops(depth, reads),
        }
    }

    fn ops(&mut self, depth: u32, reads: bool) -> Vec<RequestOp> {
        let count = self.random.random_range(0..=3);
        (0..count).map(|_| self.op(depth, reads)).collect()
    }

    fn op(&mut self, depth: u32, reads: bool) -> RequestOp {
        let request = match self.random.random_range(0..100) {
            _ if reads => Some(Request::RequestRange(self.range(Place::InTxn))),
            0..25 => Some(Request::RequestRange(self.range(Place::InTxn))),
            25..60 => Some(Request::RequestPut(self.put())),
            60..80 => Some(Request::RequestDeleteRange(self.delete())),
            80..98 if depth > 0 => Some(Request::RequestTxn(self.txn(depth - 1))),
            80..98 => Some(Request::RequestPut(self.put())),
            _ => None,
        };
        RequestOp { request }
    }

    fn compare(&mut self) -> Compare {
        let number = if self.chance(50) { self.near() } else { self.random.random_range(0..=3) };
        let target_union = match self.random.random_range(0..21) {
            0..4 => Some(TargetUnion::Version(self.random.random_range(0..=3))),
            4..8 => Some(TargetUnion::CreateRevision(number)),
            8..12 => Some(TargetUnion::ModRevision(number)),
            12..16 => {
                Some(TargetUnion::Value(format!("v{}", self.random.random_range(0..20)).into()))
            }
            16..20 => Some(TargetUnion::Lease(self.random.random_range(0..=1))),
            _ => None,
        };
        let fitting = match target_union {
            Some(TargetUnion::Version(_)) | None => 0,
            Some(TargetUnion::CreateRevision(_)) => 1,
            Some(TargetUnion::ModRevision(_)) => 2,
            Some(TargetUnion::Value(_)) => 3,
            Some(TargetUnion::Lease(_)) => 4,
        };
        let target = if self.chance(5) { self.random.random_range(0..=4) } else { fitting };
        Compare {
            result: self.random.random_range(0..=3),
            target,
            key: self.key(),
            range_end: self.range_end(20),
            target_union,
        }
    }

    fn compaction(&mut self) -> CompactionRequest {
        CompactionRequest {
            revision: self.revision + self.random.random_range(-2..=1),
            physical: true,
        }
    }
}
