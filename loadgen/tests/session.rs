//! The `bench-node-session` target against a server that does as it is told.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::etcdserverpb::{PutResponse, ResponseHeader};
use api::session::answer::Answer as Said;
use api::session::session_server::{Session as Service, SessionServer};
use api::session::{Answer, Answers, Requests};
use history::Outcome;
use loadgen::clock::RunClock;
use loadgen::record::LoadResult;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use loadgen::target::session::Session;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Answers puts, but reads nothing while it is told to be deaf.
#[derive(Clone)]
struct Server {
    deaf: watch::Receiver<bool>,
    heard: Arc<Mutex<Vec<u64>>>,
    /// Ends a session after so many requests.
    ends_after: usize,
}

#[tonic::async_trait]
impl Service for Server {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<Answers, Status>> + Send>>;

    async fn open(
        &self,
        requests: Request<Streaming<Requests>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let mut requests = requests.into_inner();
        let (answers, sent) = tokio::sync::mpsc::channel(16);
        let mut server = self.clone();
        tokio::spawn(async move {
            let mut taken = 0;
            while server.deaf.wait_for(|deaf| !deaf).await.is_ok()
                && let Some(Ok(frame)) = requests.next().await
            {
                taken += frame.requests.len();
                if taken > server.ends_after {
                    return;
                }
                let ids = frame.requests.iter().map(|request| request.id);
                server.heard.lock().expect("no panic").extend(ids.clone());
                let header = Some(ResponseHeader { revision: 1, ..Default::default() });
                let said = PutResponse { header, prev_kv: None };
                let answer = |id| Answer { id, answer: Some(Said::Put(said.clone())) };
                let _ = answers.send(Ok(Answers { answers: ids.map(answer).collect() })).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
    }
}

fn spec() -> LoadSpec {
    LoadSpec {
        arrivals: Arrivals::Constant { rate_per_second: 2000.0 },
        connections: 1,
        timeout: Duration::from_millis(200),
        max_outstanding: 100_000,
        reads: Consistency::Linearizable,
        put_share: 1.0,
        keys: Keys { prefix: "k/".to_owned(), count: 100, distribution: KeyDistribution::Uniform },
        value_bytes: 4096,
        warmup: Duration::ZERO,
        measure: Duration::from_secs(3),
        drain: Duration::from_millis(500),
        seed: 1,
    }
}

/// A load on such a server, which is deaf from the first second to the second.
async fn load(ends_after: usize, deaf_for: Duration) -> (LoadResult, Vec<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    let (deafen, deaf) = watch::channel(false);
    let server = Server { deaf, heard: Arc::default(), ends_after };
    let heard = server.heard.clone();
    let serving = tonic::transport::Server::builder()
        .add_service(SessionServer::new(server))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    let clock = RunClock::starting_in(Duration::from_millis(50));
    let deafening = tokio::spawn(async move {
        tokio::time::sleep_until(clock.instant_at(1_000_000_000).into()).await;
        deafen.send_replace(true);
        tokio::time::sleep(deaf_for).await;
        deafen.send_replace(false);
        std::future::pending::<()>().await;
    });
    let target = Arc::new(Session::new(&[endpoint]).expect("an endpoint"));
    let result = loadgen::run(&spec(), target, clock, Arc::default()).await.expect("it runs");
    deafening.abort();
    serving.abort();
    let heard = heard.lock().expect("no panic").clone();
    (result, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_timed_out_during_a_stall_is_not_sent_after_it() {
    let (result, heard) = load(usize::MAX, Duration::from_secs(1)).await;
    assert_eq!(result.ops.len(), 6000);
    let distinct: BTreeSet<_> = heard.iter().collect();
    assert_eq!(distinct.len(), heard.len(), "nothing is sent twice");
    let unknown = result.ops.iter().filter(|op| op.outcome == Outcome::Unknown).count();
    // 0.8 s of the stall's second timed out: nearly all of it behind a full window.
    assert!(unknown > 1000, "{unknown} timed out");
    let never_heard = result.ops.len() - heard.len();
    assert!(never_heard > unknown / 2, "{never_heard} of {unknown} that timed out were not sent");
    let late = result.ops.iter().filter(|op| op.intended_ns > 2_400_000_000);
    let (mut ok, mut all) = (0, 0);
    for op in late {
        ok += usize::from(op.outcome == Outcome::Ok);
        all += 1;
    }
    assert!(ok * 10 > all * 9, "{ok} of {all} that were due after the stall are well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_leaves_unknowns_and_another_is_opened() {
    let (result, heard) = load(1000, Duration::ZERO).await;
    let of = |outcome| result.ops.iter().filter(|op| op.outcome == outcome).count();
    assert!(of(Outcome::Ok) > 3000, "{} are well", of(Outcome::Ok));
    // What was answered was heard; whatever was not may have been.
    assert!(of(Outcome::Ok) <= heard.len());
    assert!(of(Outcome::Unknown) > 0);
    // Only what was never sent has failed.
    assert!(of(Outcome::Fail) + heard.len() <= result.ops.len());
}
