//! Faults on real processes: each is proven from outside when it bites, and is found out when it
//! does not.
//!
//! The victim is this test program itself, started again as `a_victim`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use chaos::journal::{Journal, Noted, not_undone};
use chaos::{End, Error, Exit, Fault, Finding, Pause, Restarter, Testimony, Victim, Witness};

/// Not a test: what the tests start as their victim. Listens, says where, and reads all it gets.
#[test]
#[ignore = "the victim of the other tests"]
fn a_victim() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("\nport {}", listener.local_addr().expect("bound").port());
    for connection in listener.incoming() {
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut connection = connection.expect("accepted");
            connection.write_all(b"!").expect("greeted");
            while connection.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
    }
}

#[test]
fn a_kill_is_proven_and_undone_by_a_restart() {
    let node = Node::start();
    let _peer = Peer::of(&node);
    let mut kill = End::kill(node.victim.clone());
    let finding = strike(&mut kill, &mut Says(Testimony::Noticed("n2 leads".into())));
    assert!(finding.effective, "{}", finding.seen);
    for part in ["signal 9", "refuse", "0 of its 1 connections left", "n2 leads"] {
        assert!(finding.seen.contains(part), "{part:?} is not in: {}", finding.seen);
    }
    let again = Starter::default();
    let healed = kill.heal(&again).expect("restarted");
    assert!(healed.held, "{}", healed.seen);
    assert_ne!(healed.victim.pid(), node.victim.pid());
    assert_eq!(healed.victim.exit(), None);
}

#[test]
fn a_kill_that_no_peer_noticed_did_not_bite() {
    let node = Node::start();
    let mut kill = End::kill(node.victim.clone());
    let finding = strike_in_vain(&mut kill, &mut Says(Testimony::NotYet("n1 still leads".into())));
    assert!(!finding.effective, "{}", finding.seen);
    assert!(finding.seen.contains("n1 still leads"), "{}", finding.seen);
}

#[test]
fn a_victim_that_ended_before_is_not_struck() {
    let mut node = Node::start();
    node.child.kill().expect("killed");
    wait_for(|| node.victim.exit().is_some());
    let refused = End::kill(node.victim.clone()).available();
    assert!(matches!(refused, Err(Error::NotRunning { .. })), "{refused:?}");
}

#[test]
fn a_terminate_bites_only_when_the_process_ends_by_itself() {
    let node = Node::start();
    let mut terminate = End::terminate(node.victim.clone());
    let finding = strike(&mut terminate, &mut nobody());
    assert!(finding.effective, "{}", finding.seen);
    assert!(finding.seen.contains("signal 15"), "{}", finding.seen);

    let deaf = Node::of("trap '' TERM; echo port 0; while :; do sleep 0.05; done");
    let finding = strike_in_vain(&mut End::terminate(deaf.victim.clone()), &mut nobody());
    assert!(!finding.effective, "{}", finding.seen);
    assert!(finding.seen.contains("still runs"), "{}", finding.seen);

    let mut killed = Node::of("trap '' TERM; echo port 0; while :; do sleep 0.05; done");
    let mut terminate = End::terminate(killed.victim.clone());
    terminate.available().expect("available");
    killed.child.kill().expect("killed");
    wait_for(|| killed.victim.exit().is_some());
    let finding = terminate.verify(&mut nobody(), Instant::now());
    assert!(!finding.effective, "{}", finding.seen);
    assert_eq!(killed.victim.exit(), Some(Exit::Signal(9)));
}

#[test]
fn a_pause_is_proven_by_a_silent_process_and_undone() {
    let node = Node::start();
    let _peer = Peer::of(&node);
    let mut pause = Pause::of(node.victim.clone());
    let finding = strike(&mut pause, &mut nobody());
    assert!(finding.effective, "{}", finding.seen);
    for part in ["state T", "0 ticks of CPU", "unread"] {
        assert!(finding.seen.contains(part), "{part:?} is not in: {}", finding.seen);
    }
    let twice = Pause::of(node.victim.clone()).available();
    assert!(matches!(twice, Err(Error::AlreadyStopped { .. })), "{twice:?}");
    let healed = pause.heal(&Starter::default()).expect("resumed");
    assert!(healed.held, "{}", healed.seen);
    assert_eq!(healed.victim.pid(), node.victim.pid());
}

#[test]
fn a_pause_that_nobody_could_feel_did_not_bite() {
    let node = Node::start();
    let mut pause = Pause::of(node.victim.clone());
    let finding = strike_in_vain(&mut pause, &mut nobody());
    assert!(!finding.effective, "{}", finding.seen);
    assert!(finding.seen.contains("nobody sends"), "{}", finding.seen);
}

#[test]
fn a_pause_that_someone_ended_early_did_not_hold() {
    let node = Node::start();
    let _peer = Peer::of(&node);
    let mut pause = Pause::of(node.victim.clone());
    assert!(strike(&mut pause, &mut nobody()).effective);
    node.victim.signal(rustix::process::Signal::CONT).expect("resumed behind its back");
    let healed = pause.heal(&Starter::default()).expect("still runs");
    assert!(!healed.held, "{}", healed.seen);
}

#[test]
fn the_journal_knows_what_was_not_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("undo.jsonl");
    let journal = Journal::create(&path).expect("created");
    let node = Node::start();
    let kill = End::kill(node.victim.clone());
    let first = journal.note("f1", &node.victim, kill.undo()).expect("noted");
    let _second = journal.note("f2", &node.victim, kill.undo()).expect("noted");
    assert_eq!(faults(&path), ["f1", "f2"], "both are on disk before anything was done");
    journal.done(first).expect("noted");
    assert_eq!(faults(&path), ["f2"]);

    let mut text = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, format!("{text}{{\"entry\":9,\"fau")).expect("written");
    assert_eq!(faults(&path), ["f2"], "a torn last line was never synced");
    text.insert_str(0, "nonsense\n");
    std::fs::write(&path, text).expect("written");
    let error = not_undone(&path).expect_err("damaged").to_string();
    assert!(error.contains("line 1"), "{error}");
    assert!(Journal::create(&path).is_err(), "an old journal is never written over");
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn a_fault_that_does_nothing_is_found_out() {
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "faults_with_the_seeded_bug", "--ignored"])
        .env("RAFTBENCH_SEEDED_BUG", "fault-does-nothing")
        .status()
        .expect("started");
    assert!(status.success(), "{status}");
}

/// Run by `a_fault_that_does_nothing_is_found_out` with the bug switched on.
#[cfg(feature = "seeded-bugs")]
#[test]
#[ignore = "needs the seeded bug switched on"]
fn faults_with_the_seeded_bug() {
    let node = Node::start();
    let _peer = Peer::of(&node);
    let noticed = || Says(Testimony::Noticed("n2 leads".into()));
    let faults: [Box<dyn Fault>; 3] = [
        Box::new(End::kill(node.victim.clone())),
        Box::new(End::terminate(node.victim.clone())),
        Box::new(Pause::of(node.victim.clone())),
    ];
    for mut fault in faults {
        let finding = strike_in_vain(&mut *fault, &mut noticed());
        assert!(!finding.effective, "{}", finding.seen);
    }
}

/// A victim's process; killed at the end of its test.
struct Node {
    child: Child,
    victim: Victim,
}

impl Node {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "a_victim", "--ignored", "--nocapture"]);
        Self::spawn(command)
    }

    fn of(script: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = lines
            .find_map(|line| line.expect("text").strip_prefix("port ")?.parse().ok())
            .expect("it says where it listens");
        // What it says later must not stop it.
        thread::spawn(move || lines.for_each(drop));
        let ports = if port == 0 { vec![] } else { vec![port] };
        let victim = Victim::of("n1", child.id() as i32, ports).expect("runs");
        Self { child, victim }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Holds a connection to a node and sends to it without end.
struct Peer(TcpStream);

impl Peer {
    fn of(node: &Node) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", node.victim.ports()[0])).expect("answers");
        let mut greeting = [0];
        (&stream).read_exact(&mut greeting).expect("greeted, so accepted");
        let mut sender = stream.try_clone().expect("cloned");
        thread::spawn(move || {
            while sender.write_all(b"heartbeat").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self(stream)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.shutdown(std::net::Shutdown::Both).ok();
    }
}

#[derive(Default)]
struct Starter(Mutex<Vec<Node>>);

impl Restarter for Starter {
    fn restart(&self, _node: &str) -> Result<Victim, Error> {
        let node = Node::start();
        let victim = node.victim.clone();
        self.0.lock().expect("unpoisoned").push(node);
        Ok(victim)
    }
}

struct Says(Testimony);

impl Witness for Says {
    fn ask(&mut self) -> Testimony {
        self.0.clone()
    }
}

fn nobody() -> Says {
    Says(Testimony::NotAsked("a cluster of one".into()))
}

/// Strikes, and gives the world time enough for the fault to be seen.
fn strike(fault: &mut dyn Fault, witness: &mut dyn Witness) -> Finding {
    strike_for(fault, witness, Duration::from_secs(20))
}

/// Strikes with a fault that should not be seen, for which a second is enough.
fn strike_in_vain(fault: &mut dyn Fault, witness: &mut dyn Witness) -> Finding {
    strike_for(fault, witness, Duration::from_secs(1))
}

fn strike_for(fault: &mut dyn Fault, witness: &mut dyn Witness, patience: Duration) -> Finding {
    fault.available().expect("available");
    let noted = note(fault);
    fault.inject(&noted).expect("injected");
    fault.verify(witness, Instant::now() + patience)
}

fn note(fault: &dyn Fault) -> Noted {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::create(&folder.path().join("undo.jsonl")).expect("created");
    journal.note("f1", fault.victim(), fault.undo()).expect("noted")
}

fn faults(path: &Path) -> Vec<String> {
    not_undone(path).expect("readable").into_iter().map(|entry| entry.fault).collect()
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}
