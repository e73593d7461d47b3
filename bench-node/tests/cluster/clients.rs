//! What clients ask, whom, and what they may conclude: the history that is checked at the end.

use std::collections::{BTreeMap, BTreeSet};

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bench_node::GroupId;
use bench_node::kv::{Command, Response, Store};
use bench_node::store::{Applied, Refusal};
use bytes::Bytes;
use history::linearizability::{Limits, Verdict, check};
use history::{Consistency, Kind, Operation, Outcome};
use raft::NodeId;

use crate::plan::{CLIENT_PATIENCE_US, COMMITS};
use crate::world::{What, World};

/// Who is refused waits so long, mostly, before the next try.
const REFUSED_US: u64 = 8_000;

/// What a client learns.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It happened; a get read this.
    Ok(Option<String>),
    /// It never happened, and never will.
    Never,
    /// Nobody knows.
    Unknown,
}

/// All clients; each has one operation under way at most.
pub(crate) struct Clients {
    clients: Vec<Client>,
    open: BTreeMap<u64, Open>,
    /// Operation `n` at position `n`.
    pub(crate) history: Vec<Operation>,
    processes: u32,
    healed: bool,
    /// Groups that took a write after the world was healed.
    progress: BTreeSet<GroupId>,
    /// Keys that are read last, of all groups.
    last_reads: Vec<(GroupId, u64)>,
}

struct Client {
    process: u32,
}

struct Open {
    client: usize,
    group: GroupId,
    key: u64,
    asked: NodeId,
}

impl Clients {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            clients: (0..count).map(|process| Client { process }).collect(),
            open: BTreeMap::new(),
            history: Vec::new(),
            processes: count,
            healed: false,
            progress: BTreeSet::new(),
            last_reads: Vec::new(),
        }
    }

    /// From now on what clients ask must be done; at last, everything is read.
    pub(crate) fn heal(&mut self, groups: u64, keys: u64) {
        self.healed = true;
        let all = (0..groups).flat_map(|group| (0..keys).map(move |key| (group, key)));
        self.last_reads = all.collect();
    }

    pub(crate) fn are_done(&self, groups: u64) -> bool {
        self.progress.len() as u64 == groups && self.last_reads.is_empty() && self.open.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        let (left, open) = (self.last_reads.len(), self.open.len());
        format!("progress in {:?}, {left} keys to be read, {open} under way", self.progress)
    }
}

impl World {
    /// A client asks for something, mostly of one who leads, or believes so.
    pub(crate) fn ask(&mut self, client: usize) {
        let (mut group, mut key) =
            (self.random.below(self.plan.groups), self.random.below(self.plan.keys));
        let mut kind = match self.random.below(100) {
            0..50 => Kind::Put,
            50..65 => Kind::Cas,
            _ => Kind::Get,
        };
        if self.healed {
            let waits = |group: &GroupId| !self.clients.progress.contains(group);
            if let Some(waiting) = (0..self.plan.groups).find(waits) {
                (group, kind) = (waiting, Kind::Put);
            } else if self.checker.committed() < COMMITS {
                kind = Kind::Put;
            } else if let Some(read) = self.clients.last_reads.pop() {
                ((group, key), kind) = (read, Kind::Get);
            } else {
                return;
            }
        }
        let Some(asked) = self.pick_node(group, 850) else {
            let delay = self.random.below(2 * self.plan.think_us) + 1;
            return self.schedule(delay, What::Ask { client });
        };
        let operation = self.clients.history.len() as u64;
        let value = (kind != Kind::Get).then(|| self.value(operation));
        let expected = (kind == Kind::Cas).then(|| self.guess(asked, group, key)).flatten();
        self.clients.history.push(Operation {
            process: self.clients.clients[client].process,
            op: kind,
            key: format!("{group}/{key}"),
            value,
            expected,
            invoke_ns: self.now_us as i64 * 1000,
            complete_ns: None,
            outcome: Outcome::Unknown,
            consistency: Consistency::Linearizable,
            revision: None,
            node: None,
            error: None,
        });
        self.clients.open.insert(operation, Open { client, group, key, asked });
        let delay = self.random.within(20..21 + self.plan.delay_us / 4);
        self.schedule(CLIENT_PATIENCE_US, What::GiveUp { operation });
        self.schedule(delay, What::Arrive { id: asked, operation });
    }

    /// What a cas expects: mostly what is there, as far as the node knows.
    fn guess(&mut self, asked: NodeId, group: GroupId, key: u64) -> Option<String> {
        let known =
            self.host(asked).process.as_ref().and_then(|process| {
                value_of(&process.kvs[&group].read().expect("one thread"), key)
            });
        if self.random.chance(100) { None } else { known }
    }

    /// A node hears from a client.
    pub(crate) fn arrive(&mut self, id: NodeId, operation: u64) {
        let Some(&Open { group, key, .. }) = self.clients.open.get(&operation) else { return };
        let asked = self.clients.history[operation as usize].clone();
        let value: Bytes = asked.value.clone().unwrap_or_default().into();
        let put = PutRequest { key: key_bytes(key), value, ..Default::default() };
        let command = match asked.op {
            Kind::Put => Command::Put(put),
            Kind::Cas => Command::Txn(compare_and_set(asked.expected, put)),
            Kind::Get | Kind::Delete => {
                let taken = self.input(id, |groups, _| groups.read(group, operation));
                return self.taken_or_refused(operation, taken);
            }
        };
        let taken = self.input(id, |groups, now| {
            groups.propose(now, group, command.encode(), now, operation);
        });
        self.taken_or_refused(operation, taken);
    }

    fn taken_or_refused(&mut self, operation: u64, taken: Option<()>) {
        if taken.is_none() {
            self.reply(operation, Answer::Never);
        }
    }

    pub(crate) fn write_ended(&mut self, operation: u64, outcome: Result<Applied, Refusal>) {
        let answer = match outcome {
            Ok(Applied { result: Ok(Response::Txn(response)), .. }) if !response.succeeded => {
                self.tally.note("client: compare did not match");
                Answer::Never
            }
            Ok(Applied { result: Ok(_), .. }) => Answer::Ok(None),
            Ok(Applied { result: Err(error), .. }) => panic!("a good command failed: {error:?}"),
            Err(refusal) => self.refused(refusal),
        };
        self.reply(operation, answer);
    }

    pub(crate) fn read_ended(&mut self, id: NodeId, operation: u64, outcome: Result<(), Refusal>) {
        let Some(&Open { group, key, .. }) = self.clients.open.get(&operation) else { return };
        let answer = match outcome {
            Ok(()) => {
                self.tally.note("client: read");
                let process = self.host(id).process.as_ref().expect("it answers");
                let kv = process.kvs[&group].read().expect("one thread");
                Answer::Ok(value_of(&kv, key))
            }
            Err(refusal) => self.refused(refusal),
        };
        self.reply(operation, answer);
    }

    fn refused(&mut self, refusal: Refusal) -> Answer {
        let (answer, what) = match refusal {
            Refusal::NotLeader => (Answer::Never, "client: refused by a follower"),
            Refusal::LeaderChanged => (Answer::Unknown, "client: leader changed meanwhile"),
            Refusal::TimedOut => (Answer::Unknown, "client: timed out in the node"),
            Refusal::Stopped => (Answer::Unknown, "client: refused by a node that stops"),
        };
        self.tally.note(what);
        answer
    }

    /// An answer on its way; it may be lost.
    fn reply(&mut self, operation: u64, answer: Answer) {
        if !self.healed && self.random.chance(self.plan.drops / 2) {
            self.tally.note("fault: answer to a client lost");
            return;
        }
        let delay = self.random.within(20..21 + self.plan.delay_us / 4);
        self.schedule(delay, What::Answer { operation, answer });
    }

    /// Those who wait for a node whose process ended.
    pub(crate) fn clients_of_lose(&mut self, id: NodeId) {
        let open = self.clients.open.iter().filter(|(_, open)| open.asked == id);
        let lost: Vec<_> = open.map(|(operation, _)| *operation).collect();
        for operation in lost {
            self.schedule(20, What::Answer { operation, answer: Answer::Unknown });
        }
    }

    pub(crate) fn give_up(&mut self, operation: u64) {
        if self.clients.open.contains_key(&operation) {
            self.tally.note("client: gave up waiting");
            self.answer(operation, Answer::Unknown);
        }
    }

    /// A client learns what came of its operation, and goes on.
    pub(crate) fn answer(&mut self, operation: u64, answer: Answer) {
        let Some(Open { client, group, key, .. }) = self.clients.open.remove(&operation) else {
            return;
        };
        let now_ns = self.now_us as i64 * 1000;
        let ended = &mut self.clients.history[operation as usize];
        let is_get = ended.op == Kind::Get;
        let mut think_us = self.plan.think_us;
        let ok = matches!(answer, Answer::Ok(_));
        match answer {
            Answer::Ok(value) => {
                (ended.outcome, ended.complete_ns) = (Outcome::Ok, Some(now_ns));
                if is_get {
                    ended.value = value;
                } else if self.clients.healed {
                    self.clients.progress.insert(group);
                }
                self.tally.note("client: told that it is done");
            }
            Answer::Never => {
                (ended.outcome, ended.complete_ns) = (Outcome::Fail, Some(now_ns));
                think_us = think_us.max(REFUSED_US);
            }
            Answer::Unknown => {
                // Whoever does not know what became of it starts over as somebody else.
                self.clients.clients[client].process = self.clients.processes;
                self.clients.processes += 1;
            }
        }
        // A write began before the healing may end after it: what is read last comes behind it all.
        if self.healed && is_get && !ok {
            self.clients.last_reads.push((group, key));
        }
        let delay = self.random.below(2 * think_us) + 1;
        self.schedule(delay, What::Ask { client });
    }

    /// What an operation writes: its number, and as much behind it as makes writes of more than a
    /// sector.
    fn value(&self, operation: u64) -> String {
        let padding = operation.wrapping_mul(7919) % self.plan.value_bytes.max(1);
        format!("{operation}{:.>1$}", "", padding as usize)
    }

    /// What clients saw is what one store would have shown them.
    pub(crate) fn check_history(&self) {
        let report = check(&self.clients.history, &Limits::default());
        let sentences: Vec<_> = report.violations.iter().map(|found| &found.sentence).collect();
        assert_eq!(report.verdict, Verdict::Pass, "linearizability: {sentences:#?}");
    }

    /// A running, unpaused node; with this chance in a thousand one that leads the group, if any does.
    pub(crate) fn pick_node(&mut self, group: GroupId, leader_per_mille: u64) -> Option<NodeId> {
        let only_leaders = self.random.chance(leader_per_mille);
        let awake = |id: &NodeId| {
            let host = self.host(*id);
            host.paused.is_none() && host.process.is_some()
        };
        let awake: Vec<_> = self.ids().filter(awake).collect();
        let leaders: Vec<_> = awake.iter().copied().filter(|&id| self.leads(id, group)).collect();
        let choices = if only_leaders && !leaders.is_empty() { leaders } else { awake };
        (!choices.is_empty()).then(|| self.random.pick(&choices))
    }
}

fn key_bytes(key: u64) -> Bytes {
    format!("key-{key}").into()
}

fn value_of(kv: &Store, key: u64) -> Option<String> {
    let request = RangeRequest { key: key_bytes(key), ..Default::default() };
    let response = kv.range(&request).expect("a good request");
    response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

fn compare_and_set(expected: Option<String>, put: PutRequest) -> TxnRequest {
    let (target, union) = match expected {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.into())),
        None => (CompareTarget::Version, TargetUnion::Version(0)),
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: put.key.clone(),
        target_union: Some(union),
        ..Default::default()
    };
    let set = RequestOp { request: Some(Request::RequestPut(put)) };
    TxnRequest { compare: vec![compare], success: vec![set], failure: vec![] }
}
