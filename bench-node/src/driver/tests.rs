//! The loop, with everything around it made by hand.

use std::io::Write;
use std::path::Path;

use raft::{Body, Message, Recovered};
use tokio::io::AsyncReadExt;

use super::*;
use crate::config::Config;
use crate::disk::Simulated;
use crate::peers::Links;

/// Long enough that the test is not held up for as long by what else the machine does.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(500);
/// Longer than any that is drawn.
const PAUSE: Duration = Duration::from_millis(1100);

/// A fresh member 1 of three, whose peers are not there.
fn parts(inputs: mpsc::UnboundedReceiver<Input>, persisted: mpsc::UnboundedSender<Input>) -> Parts {
    let member = |number| {
        format!("[[members]]\nname = \"n{number}\"\npeer = \"h:{number}\"\nclient = \"h:9\"\n")
    };
    let text = format!(
        "name = \"n1\"\ncluster = \"test\"\ndata_dir = \"data\"\nclient_listen = \"h:9\"\n\
         peer_listen = \"h:1\"\nmetrics_listen = \"h:8\"\nheartbeat_ms = 20\n\
         election_timeout_ms = 100\n{}{}{}",
        member(1),
        member(2),
        member(3)
    );
    let config = Config::parse(&text, Path::new("test.toml")).expect("a good configuration");
    let metrics = Arc::new(Metrics::new());
    let options = wal::Options { fill_in_background: false, ..wal::Options::default() };
    let (log, _) = wal::open(Simulated::new(1), Path::new("/wal"), options).expect("a log");
    let persisted = move |groups: &[(crate::GroupId, u64)]| {
        for (group, id) in groups {
            drop(persisted.send(Input::Persisted(*group, *id, Instant::now())));
        }
    };
    let log = wal::Writer::start(log, persisted, |_| {}, |_| {}).expect("a thread");
    Parts {
        log: Arc::new(log),
        store: Arc::default(),
        outboxes: Outboxes::new(Arc::new(Links::new(1, ELECTION_TIMEOUT)), Arc::clone(&metrics)),
        inputs,
        restored: Arc::default(),
        view: watch::channel(View::default()).0,
        rosters: watch::channel(Rosters::default()).0,
        metrics,
        events: EventLog::new(&config.name, watch::channel(Rosters::default()).1),
        patience: Duration::from_secs(5),
        snapshots: Arc::new(NoRoom),
        settings: config.settings,
    }
}

/// Nothing here lives long enough for a snapshot.
struct NoRoom;

impl SnapshotRoom for NoRoom {
    fn write(&self, _: SnapshotMeta, _: Frozen) {
        unreachable!("too few entries");
    }

    fn remove_older(&self, _: GroupId, _: Index) {}

    fn send(self: Arc<Self>, _: GroupId, _: NodeId, _: Term) {
        unreachable!("it does not lead");
    }
}

fn heartbeat_of_2() -> Input {
    let body =
        Body::Append { prev_index: 0, prev_term: 0, entries: vec![], commit: 0, read_round: 0 };
    let messages = vec![(DEFAULT_GROUP, Message { from: 2, to: 1, term: 1, body })];
    let batch = Batch { from: 2, to: 1, messages, ..Batch::default() };
    Input::Messages { incarnation: 1, batch }
}

/// Where the loop stands after a whole turn: an answer comes from the beginning of one.
async fn status(inputs: &mpsc::UnboundedSender<Input>) -> Status {
    let mut status = None;
    for _ in 0..2 {
        let (reply, answer) = oneshot::channel();
        inputs.send(Input::Inspect(reply)).unwrap_or_else(|_| panic!("the loop runs"));
        status = Some(answer.await.expect("it answers").status);
    }
    status.expect("it was asked")
}

/// The test's own thread is the runtime's only one, as in a node: while it sleeps, the whole node is
/// paused, and what arrives waits in a socket.
#[tokio::test]
async fn after_a_pause_what_waits_in_the_sockets_is_heard_before_a_timer_fires() {
    let (inputs, taken) = mpsc::unbounded_channel();
    let mut config = raft::Config::new(1, 7);
    (config.election_timeout, config.heartbeat) = (ELECTION_TIMEOUT, ELECTION_TIMEOUT / 5);
    let recovered = Recovered::founding(vec![1, 2, 3], Bytes::new());
    let running = tokio::spawn(run(config, recovered, parts(taken, inputs.clone())));
    let send = |input| inputs.send(input).unwrap_or_else(|_| panic!("the loop runs"));
    send(Input::Introduced);

    let (mut peer, near) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("it can be");
    let mut near = tokio::net::UnixStream::from_std(near).expect("in a runtime");
    let heard = inputs.clone();
    tokio::spawn(async move {
        while near.read_u8().await.is_ok() {
            let _ = heard.send(heartbeat_of_2());
        }
    });

    send(heartbeat_of_2());
    assert_eq!(status(&inputs).await.leader, Some(2));
    peer.write_all(&[1]).expect("it is open");
    std::thread::sleep(PAUSE);
    let after = status(&inputs).await;
    assert_eq!((after.role, after.term, after.leader), (Role::Follower, 1, Some(2)));

    // The same without a word from the leader, to show that the pause was long enough.
    std::thread::sleep(PAUSE);
    let after = status(&inputs).await;
    assert_eq!((after.role, after.leader), (Role::PreCandidate, None));
    send(Input::Stop);
    running.await.expect("no panic").expect("it ends well");
}
