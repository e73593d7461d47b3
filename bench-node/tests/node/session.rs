//! Sessions: many requests over one stream, answered in any order, each once.

use std::collections::{BTreeMap, BTreeSet};

use api::etcdserverpb::{PutRequest, RangeRequest};
use api::session::answer::Answer as Said;
use api::session::request::Request as Asking;
use api::session::session_client::SessionClient;
use api::session::{Answers, Request, Requests};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::cluster::{Cluster, Node, eventually};

/// A session as a client has it.
struct Session {
    requests: mpsc::UnboundedSender<Requests>,
    answers: Streaming<Answers>,
}

impl Session {
    async fn open(node: &Node) -> Self {
        let (requests, queued) = mpsc::unbounded_channel();
        let queued = UnboundedReceiverStream::new(queued);
        let answers = SessionClient::new(node.channel()).open(queued).await.expect("it opens");
        Self { requests, answers: answers.into_inner() }
    }

    fn ask(&self, requests: Vec<Request>) {
        self.requests.send(Requests { requests }).expect("the session is open");
    }

    /// So many answers, by their ids; each came once.
    async fn answers(&mut self, count: usize) -> BTreeMap<u64, Said> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            let frame = self.answers.message().await.expect("it goes on").expect("it goes on");
            for answer in frame.answers {
                let said = answer.answer.expect("it says something");
                assert!(all.insert(answer.id, said).is_none(), "{} twice", answer.id);
            }
        }
        assert_eq!(all.len(), count);
        all
    }
}

fn put(id: u64, key: &str, value: &str) -> Request {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Request { id, request: Some(Asking::Put(PutRequest { key, value, ..Default::default() })) }
}

fn get(id: u64, key: &str) -> Request {
    let key = key.to_owned().into();
    Request { id, request: Some(Asking::Range(RangeRequest { key, ..Default::default() })) }
}

fn revision(said: &Said) -> i64 {
    let Said::Put(put) = said else { panic!("not a put's: {said:?}") };
    put.header.as_ref().expect("a header").revision
}

fn value(said: &Said) -> &[u8] {
    let Said::Range(range) = said else { panic!("not a get's: {said:?}") };
    &range.kvs.first().expect("it is there").value
}

#[tokio::test]
async fn any_member_takes_a_session_and_answers_each_request_once() {
    let cluster = Cluster::start(3, "");
    cluster.leader().await;
    for (number, node) in cluster.nodes.iter().enumerate() {
        let mut session = Session::open(node).await;
        let name = |i: u64| format!("k{number}/{i}");
        session.ask((0..300).map(|i| put(i, &name(i), &format!("v{i}"))).collect());
        let puts = session.answers(300).await;
        let revisions: BTreeSet<_> = puts.values().map(revision).collect();
        assert_eq!(revisions.len(), 300, "each put has a revision of its own");
        session.ask((0..300).map(|i| get(1000 + i, &name(i))).collect());
        for (id, said) in session.answers(300).await {
            assert_eq!(value(&said), format!("v{}", id - 1000).as_bytes());
        }
        // What was asked is answered before the stream ends.
        session.ask((0..50).map(|i| put(i, &name(i), "last")).collect());
        let Session { requests, answers } = session;
        drop(requests);
        let mut rest = Session { requests: mpsc::unbounded_channel().0, answers };
        assert_eq!(rest.answers(50).await.len(), 50);
        assert!(rest.answers.message().await.expect("it ends well").is_none());
    }
    let followers_see = cluster.nodes[0].get("k2/7", false).await.expect("answered");
    assert_eq!(followers_see.as_deref(), Some("last"));
}

#[tokio::test]
async fn what_is_refused_is_refused_alone_and_in_etcds_words() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut session = Session::open(&cluster.nodes[0]).await;
    let mut range = get(2, "a");
    if let Some(Asking::Range(request)) = &mut range.request {
        request.range_end = "b".into();
    }
    let large = "x".repeat(1_600_000);
    session.ask(vec![put(0, "", "v"), get(1, ""), range, Request { id: 3, request: None }]);
    session.ask(vec![put(4, "large", &large), put(5, "k", "v")]);
    let answers = session.answers(6).await;
    let failure = |id: u64| match &answers[&id] {
        Said::Failure(failure) => (Code::from_i32(failure.code), failure.message.as_str()),
        other => panic!("{id} was not refused: {other:?}"),
    };
    assert_eq!(failure(0), (Code::InvalidArgument, "etcdserver: key is not provided"));
    assert_eq!(failure(1), (Code::InvalidArgument, "etcdserver: key is not provided"));
    assert_eq!(failure(2).0, Code::InvalidArgument);
    assert!(failure(2).1.contains("single keys"), "{}", failure(2).1);
    assert_eq!(failure(3).0, Code::InvalidArgument);
    assert_eq!(failure(4), (Code::InvalidArgument, "etcdserver: request is too large"));
    assert!(revision(&answers[&5]) > 0);

    session.ask((0..8193).map(|i| put(i, "k", "v")).collect());
    let status = session.answers.message().await.expect_err("a frame that is too long");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

/// The stream of one that stops says so, and what it took was answered, or handed on.
#[tokio::test]
async fn a_leader_that_stops_answers_what_it_took() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let mut session = Session::open(&cluster.nodes[leader]).await;
    session.ask(vec![put(0, "first", "v")]);
    session.answers(1).await;
    session.ask((1..=500).map(|i| put(i, &format!("k{i}"), "v")).collect());
    // Taken, as far as a client can know.
    let first = session.answers.message().await.expect("it goes on").expect("it goes on");
    let mut answered = first.answers.len();
    let node = &mut cluster.nodes[leader];
    let handle = node.handle.take().expect("it runs");
    let stopping = tokio::task::spawn_blocking(move || handle.stop());
    let status: Status = loop {
        match session.answers.message().await {
            Ok(Some(frame)) => {
                for answer in frame.answers {
                    revision(&answer.answer.expect("it says something"));
                    answered += 1;
                }
            }
            Ok(None) => panic!("it ended as if it had been told to"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    assert_eq!(answered, 500);
    stopping.await.expect("no panic").expect("it stops well");
    let successor = cluster.leader().await;
    for key in ["first", "k1", "k500"] {
        let value = cluster.nodes[successor].get(key, false).await.expect("answered");
        assert_eq!(value.as_deref(), Some("v"), "{key}");
    }
}

/// Others are served beside them, and in the end all that they asked is done.
#[tokio::test]
async fn clients_that_take_no_answers_hold_up_nobody_else() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut sessions = Vec::new();
    // Together they hold less than a member takes at once.
    for number in 0..3 {
        let session = Session::open(&cluster.nodes[0]).await;
        for frame in 0..6 {
            let ids = frame * 4000..(frame + 1) * 4000;
            session.ask(ids.map(|id| put(id, &format!("{number}/{id}"), "v")).collect());
        }
        sessions.push(session);
    }
    for attempt in 0..200 {
        let put = cluster.nodes[0].put("other", &attempt.to_string()).await;
        put.unwrap_or_else(|status| panic!("attempt {attempt}: {status}"));
    }
    for (number, mut session) in sessions.into_iter().enumerate() {
        let revisions: BTreeSet<_> = session.answers(24_000).await.values().map(revision).collect();
        assert_eq!(revisions.len(), 24_000, "session {number}");
    }
}

/// A member that does not lead passes on what it takes, over one stream. The leader goes while it
/// does: each request is answered once, and none is done twice.
#[tokio::test]
async fn what_a_follower_passes_on_is_done_once_though_the_leader_goes() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let mut session = Session::open(&cluster.nodes[follower]).await;
    session.ask(vec![put(0, "first", "v")]);
    session.answers(1).await;
    for frame in 0..10 {
        let ids = 1 + frame * 500..1 + (frame + 1) * 500;
        session.ask(ids.map(|id| put(id, &format!("k{id}"), "v")).collect());
    }
    // Calls of etcd's API go the same way.
    let called = tokio::task::JoinSet::from_iter((0..50).map(|number| {
        let mut kv = cluster.nodes[follower].kv();
        let (key, value) = (format!("called{number}").into(), "v".into());
        async move { kv.put(PutRequest { key, value, ..Default::default() }).await.is_ok() }
    }));
    // Some of them are on their way.
    let first = session.answers.message().await.expect("it goes on").expect("it goes on");
    cluster.nodes[leader].abort();
    let mut answers: BTreeMap<_, _> = BTreeMap::new();
    let mut frame = Some(first);
    while answers.len() < 5000 {
        for answer in frame.take().into_iter().flat_map(|frame: Answers| frame.answers) {
            let said = answer.answer.expect("it says something");
            assert!(answers.insert(answer.id, said).is_none(), "{} twice", answer.id);
        }
        if answers.len() < 5000 {
            frame = session.answers.message().await.expect("it goes on");
        }
    }
    let called = called.join_all().await;
    let successor = cluster.leader().await;
    let mut unknown = 0;
    let mut kv = cluster.nodes[successor].kv();
    let mut versions = async |key: String| {
        let request = RangeRequest { key: key.into(), ..Default::default() };
        let found = kv.range(request).await.expect("answered").into_inner();
        found.kvs.first().map_or(0, |kv| kv.version)
    };
    for (id, said) in &answers {
        let version = versions(format!("k{id}")).await;
        match said {
            Said::Put(_) => assert_eq!(version, 1, "k{id}"),
            Said::Failure(failure) => {
                assert_eq!(failure.code, Code::Unavailable as i32, "{failure:?}");
                assert!(version <= 1, "k{id} was done {version} times");
                unknown += 1;
            }
            Said::Range(_) => panic!("a get's answer to a put"),
        }
    }
    for (number, _) in called.iter().enumerate() {
        let version = versions(format!("called{number}")).await;
        assert!(version <= 1, "called{number} was done {version} times");
    }
    println!("{unknown} of 5000 unknown, {} of 50 calls", called.iter().filter(|ok| !**ok).count());
}

/// Whoever goes leaves its places to others: more than a member holds at once, ten times over.
#[tokio::test]
async fn clients_that_go_take_no_places_with_them() {
    let cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    for at in [leader, (leader + 1) % 3] {
        for round in 0..10 {
            let session = Session::open(&cluster.nodes[at]).await;
            session.ask((0..8192).map(|id| put(id, &format!("{round}/{id}"), "v")).collect());
        }
        eventually("the member takes all of a new session", async || {
            let mut session = Session::open(&cluster.nodes[at]).await;
            session.ask((0..8192).map(|id| put(id, &format!("last/{id}"), "v")).collect());
            session.answers(8192).await.values().all(|said| matches!(said, Said::Put(_)))
        })
        .await;
    }
}
