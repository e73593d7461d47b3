//! The same random requests to a real etcd (Debian's etcd-server) and to bench-node: answers and
//! errors are compared field by field, only ids and terms left out.
//!
//! Not asked, because the answers differ by design: revisions between the last compaction and the
//! current one, which etcd keeps and bench-node does not.

pub(crate) mod etcd;
mod requests;

use crate::cluster::Cluster;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, range_request,
};
use etcd::Etcd;
use requests::{Ask, Requests};
use tonic::transport::Channel;
use tonic::{Code, Status};

const REQUESTS: usize = 1_500;

/// An answer without what names the member and its term.
#[derive(Debug, PartialEq)]
enum Answer {
    Error(Code, String),
    /// The response's debug text: every field of it.
    Response {
        revision: i64,
        text: String,
    },
}

async fn ask(client: &mut KvClient<Channel>, request: Ask) -> Answer {
    fn settle<T: std::fmt::Debug>(
        answer: Result<tonic::Response<T>, Status>,
        header: impl FnOnce(&mut T) -> &mut Option<ResponseHeader>,
    ) -> Answer {
        let mut response = match answer {
            Ok(response) => response.into_inner(),
            Err(status) => return Answer::Error(status.code(), status.message().to_owned()),
        };
        let mut revision = 0;
        if let Some(header) = header(&mut response) {
            revision = header.revision;
            *header = ResponseHeader { revision, ..Default::default() };
        }
        Answer::Response { revision, text: format!("{response:?}") }
    }
    match request {
        Ask::Range(request) => settle(client.range(request).await, |r| &mut r.header),
        Ask::Put(request) => settle(client.put(request).await, |r| &mut r.header),
        Ask::Delete(request) => settle(client.delete_range(request).await, |r| &mut r.header),
        Ask::Txn(request) => settle(client.txn(request).await, |r| &mut r.header),
        Ask::Compact(request) => settle(client.compact(request).await, |r| &mut r.header),
    }
}

async fn compare(seed: u64) {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut etcd = Etcd::start(cluster.path()).await;
    let mut node = cluster.nodes[0].kv();
    let mut requests = Requests::new(seed);
    let mut errors = 0;
    for number in 0..REQUESTS {
        let request = requests.next();
        let theirs = ask(&mut etcd.client, request.clone()).await;
        let ours = ask(&mut node, request.clone()).await;
        assert_eq!(
            theirs, ours,
            "\nrequest {number} of seed {seed} (left: etcd, right: bench-node): {request:?}\n\
             replay: ORACLE_SEED={seed} cargo test --release -p bench-node --test node oracle"
        );
        match ours {
            Answer::Response { revision, .. } => requests.learn(revision, &request),
            Answer::Error(..) => errors += 1,
        }
    }
    // A run that only ever erred, or never, compared too little.
    assert!((REQUESTS / 20..REQUESTS / 2).contains(&errors), "{errors} errors of seed {seed}");
}

#[tokio::test]
async fn random_requests_get_the_answers_of_etcd() {
    match std::env::var("ORACLE_SEED") {
        Ok(seed) => compare(seed.parse().expect("ORACLE_SEED is a number")).await,
        Err(_) => {
            for seed in [1, 2] {
                compare(seed).await;
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_as_by_etcd() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut etcd = Etcd::start(cluster.path()).await;
    let mut node = cluster.nodes[0].kv();
    // The last two are more than gRPC itself takes in one message.
    for bytes in [1_500_000, 1_600_000, 2_200_000, 5_000_000] {
        let put =
            PutRequest { key: "k".into(), value: vec![7; bytes].into(), ..Default::default() };
        let theirs = ask(&mut etcd.client, Ask::Put(put.clone())).await;
        let ours = ask(&mut node, Ask::Put(put)).await;
        assert_eq!(theirs, ours, "a put of {bytes} bytes");
    }
}

#[tokio::test]
async fn a_large_range_is_answered_as_by_etcd() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut etcd = Etcd::start(cluster.path()).await;
    let mut node = cluster.nodes[0].kv();
    for first in (0..3_000).step_by(100) {
        let put = |number: i32| {
            let (key, value) = (format!("k{number:05}"), format!("{}", number % 7).repeat(400));
            let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = (first..first + 100).map(put).collect();
        let fill = Ask::Txn(TxnRequest { success, ..Default::default() });
        assert_eq!(ask(&mut etcd.client, fill.clone()).await, ask(&mut node, fill).await);
    }
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let in_txn = RequestOp { request: Some(Request::RequestRange(all.clone())) };
    let descending = range_request::SortOrder::Descend.into();
    let asks = [
        Ask::Range(all.clone()),
        Ask::Range(RangeRequest { serializable: true, ..all.clone() }),
        Ask::Range(RangeRequest { keys_only: true, ..all.clone() }),
        Ask::Range(RangeRequest { count_only: true, ..all.clone() }),
        Ask::Range(RangeRequest { limit: 2_500, ..all.clone() }),
        Ask::Range(RangeRequest { limit: 10, ..all.clone() }),
        Ask::Range(RangeRequest { sort_order: descending, limit: 1_500, ..all.clone() }),
        Ask::Range(RangeRequest { min_mod_revision: 20, ..all.clone() }),
        Ask::Range(RangeRequest { revision: 99, ..all }),
        Ask::Txn(TxnRequest { success: vec![in_txn; 2], ..Default::default() }),
    ];
    for request in asks {
        let theirs = ask(&mut etcd.client, request.clone()).await;
        let ours = ask(&mut node, request.clone()).await;
        assert!(theirs == ours, "{request:?} is answered in another way than by etcd");
    }
}
