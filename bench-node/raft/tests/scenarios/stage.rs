//! What a scenario acts on, and its commands:
//!
//! ```text
//! members 3 pre_vote=off        a new world; settings: pre_vote, check_quorum, hints, lease,
//!                               failover_hint (on, off), entries, window, election_ms, heartbeat_ms,
//!                               notice_ms, drift_percent, and how many spare ones wait to be let in
//! disk 2 term=4 vote=1 log=1,1,4   what member 2 finds when it starts: the terms of its entries
//! start [1 ...]                 all, or these
//! time-out 1                    time goes on to the next timer of 1, which alone fires
//! wait 500                      ms go by, timers fire; nothing is delivered, nothing durable
//! run 500                       ms go by and everything works: a message takes 1 ms
//! propose 1 a b, read 1 7       commands and reads (by number) in one turn
//! change 1 voters=1,2,4 learners=5   asks 1 to change the members
//! transfer 1 2                  asks 1 to hand leadership to 2
//! connection-lost 2 1           2 loses its connection to 1
//! compact 1 5                   1 takes a snapshot, and cuts its log at 5
//! snapshot 1->3                 what 1 has of snapshots arrives at 3, as its last message will say
//! swap 1 voters=1,2             around the protocol: 1 takes this for its members
//! deliver [1->2] [count]        messages that are on their way now, in order
//! drop [1->2] [count], repeat 1->2   loses them; sends a copy of the oldest once more
//! persist 1 [count]             the oldest writes become durable, and are reported
//! settle                        delivers and persists until nothing moves; no time goes by
//! cut 1->2, isolate 3, heal     links that lose everything
//! pause 3, resume 3             keeps its messages and timers waiting
//! crash 1 [kept], restart 1     loses what is not durable (but for so many writes)
//! wire, status, logs, peers 1   shows; a log shows its terms, `|` after what is committed
//! rejections                    how many rejections were delivered since last asked
//! ```
//! membership                    shows whom each takes for the members
//! `violates` before a command says that it breaks a property, which ends what can be told.
//! `briefly` before a command shows only roles, commits and reads; `quietly` nothing.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raft::{
    Body, Change, Config, Entry, HardState, Message, NodeId, Payload, ProposeError, Raft, Term,
};

use crate::harness::checker::Checks;
use crate::harness::cluster::Cluster;
use crate::harness::disk::Disk;
use crate::harness::{Command, membership};
use crate::wording;

#[cfg(feature = "seeded-bugs")]
pub(crate) type Bug = raft::SeededBug;
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) type Bug = std::convert::Infallible;

pub(crate) struct Stage {
    bug: Option<Bug>,
    cluster: Cluster,
    now: Duration,
    wire: Vec<Message<Command>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    paused: BTreeSet<NodeId>,
    rejections: usize,
    briefly: bool,
    lines: Vec<String>,
}

type Outcome<T = ()> = Result<T, String>;

impl Stage {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self {
            bug,
            cluster: Cluster::new(Vec::new(), 0, Checks::All),
            now: Duration::ZERO,
            wire: Vec::new(),
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            rejections: 0,
            briefly: false,
            lines: Vec::new(),
        }
    }

    /// Does what a line says, and tells what came of it.
    pub(crate) fn perform(&mut self, line: &str) -> Outcome<Vec<String>> {
        let mut words: Vec<_> = line.split_whitespace().collect();
        if words[0] == "violates" {
            return self.violate(&words[1..].join(" "));
        }
        self.briefly = words[0] == "briefly";
        let quietly = words[0] == "quietly";
        if self.briefly || quietly {
            words.remove(0);
        }
        let (command, words) = words.split_first().ok_or("a command is missing")?;
        match *command {
            "members" => self.members(words)?,
            "disk" => self.disk(words)?,
            "start" | "restart" => self.start(words)?,
            "time-out" => self.time_out(member(words)?)?,
            "wait" => self.pass(milliseconds(words)?, false),
            "run" => self.pass(milliseconds(words)?, true),
            "propose" => self.propose(member(words)?, &words[1..])?,
            "read" => self.read(member(words)?, &words[1..])?,
            "deliver" => self.take(words)?.into_iter().for_each(|message| self.hand_over(message)),
            "drop" => drop(self.take(words)?),
            "repeat" => {
                let mut oldest = self.take(&[words, &["1"]].concat())?;
                oldest.extend(oldest.first().cloned());
                self.wire.splice(0..0, oldest);
            }
            "change" => self.change(member(words)?, &words[1..])?,
            "swap" => {
                let (id, (voters, learners)) = (member(words)?, members(&words[1..])?);
                let swapped = membership(voters, learners);
                let swap = |raft: &mut Raft<Command>| raft.unsafe_swap_membership(swapped.clone());
                self.cluster.input(id, swap).ok_or("it does not run")?;
                self.cluster.member_mut(id).founding = swapped.clone();
                self.turn(id);
            }
            "transfer" => {
                let (id, to) = (member(words)?, member(&words[1..])?);
                if let Err(why) =
                    self.cluster.input(id, |raft| raft.transfer(to)).ok_or("it does not run")?
                {
                    self.lines.push(format!("{id}: refuses, {why}"));
                }
                self.turn(id);
            }
            "connection-lost" => {
                let (id, peer, now) = (member(words)?, member(&words[1..])?, self.now);
                self.cluster.input(id, |raft| raft.connection_lost(now, peer));
                self.turn(id);
            }
            "compact" => {
                let (id, index) = (member(words)?, number(words.get(1).ok_or("up to where?")?)?);
                self.cluster.compact(id, index);
                self.turn(id);
            }
            "snapshot" => {
                let (from, to) = link(words.first().ok_or("which link?")?)?;
                let sent = self.cluster.snapshot(from, to).ok_or("there is no snapshot")?;
                self.cluster.member_mut(to).disk.keep_snapshot(&sent.1);
                self.hand_over(sent.0);
            }
            "persist" => self.persist(member(words)?, count(words.get(1))?),
            "settle" => self.settle(),
            "cut" => drop(self.cut.insert(link(words.first().ok_or("which link?")?)?)),
            "isolate" => {
                let id = member(words)?;
                let others = self.cluster.ids().filter(|&other| other != id);
                self.cut.extend(others.flat_map(|other| [(id, other), (other, id)]));
            }
            "heal" => self.cut.clear(),
            "pause" => drop(self.paused.insert(member(words)?)),
            "resume" => drop(self.paused.remove(&member(words)?)),
            "crash" => {
                let id = member(words)?;
                let kept = words.get(1).map_or(Ok(0), |_| count(words.get(1)))?;
                self.cluster.crash(id, kept, None);
                self.cluster.checker.stopped(id);
            }
            "wire" => self.lines.extend(self.wire.iter().map(wording::message)),
            "status" => self.show(|id, raft| vec![wording::status(id, &raft.status())]),
            "membership" => self.show(|id, raft| vec![wording::in_force(id, raft.membership())]),
            "logs" => self.show(|id, raft| vec![log(id, raft)]),
            "peers" => {
                let leader = member(words)?;
                self.show(|id, raft| {
                    let peers = raft.peers().filter(|_| id == leader);
                    peers.map(|peer| wording::peer(id, &peer)).collect()
                });
            }
            "rejections" => {
                self.lines.push(format!("{} rejections", std::mem::take(&mut self.rejections)));
            }
            other => return Err(format!("there is no command {other:?}")),
        }
        for member in &self.cluster.members {
            self.cluster.checker.check_whole_log(member);
        }
        let lines = std::mem::take(&mut self.lines);
        Ok(if quietly { Vec::new() } else { lines })
    }

    /// Does what must break a property, and says which one that was.
    fn violate(&mut self, line: &str) -> Outcome<Vec<String>> {
        match catch_unwind(AssertUnwindSafe(|| self.perform(line))) {
            Ok(_) => Err("no property was violated".into()),
            Err(cause) => {
                let text = cause.downcast_ref::<String>().map_or("a property", String::as_str);
                let text = text.lines().next().unwrap_or_default();
                let text = text.trim_start_matches("assertion `left == right` failed: ");
                Ok(vec![format!("violated: {text}")])
            }
        }
    }

    fn members(&mut self, words: &[&str]) -> Outcome {
        let founders = member(words)?;
        let mut spare = 0;
        let mut base = Config::new(1, 0);
        base.commit_notice = Duration::ZERO;
        plant(&mut base, self.bug);
        for (key, value) in pairs(&words[1..])? {
            let on = value == "on";
            let ms = || number(value).map(Duration::from_millis);
            match key {
                "pre_vote" => base.pre_vote = on,
                "check_quorum" => base.check_quorum = on,
                "spare" => spare = number(value)?,
                "lease" => base.lease_reads = on,
                "drift_percent" => base.max_clock_drift_percent = number(value)? as u32,
                "failover_hint" => base.failover_hint = on,
                "hints" => base.conflict_hints = on,
                "entries" => base.max_append_entries = number(value)? as usize,
                "window" => base.max_inflight_appends = number(value)? as usize,
                "election_ms" => base.election_timeout = ms()?,
                "heartbeat_ms" => base.heartbeat = ms()?,
                "notice_ms" => base.commit_notice = ms()?,
                _ => return Err(format!("there is no setting {key:?}")),
            }
        }
        let ids = 1..=founders + spare;
        let configs = ids.map(|id| Config { id, seed: id, ..base.clone() });
        let cluster = Cluster::new(configs.collect(), founders as usize, Checks::All);
        *self = Self { cluster, ..Self::new(self.bug) };
        Ok(())
    }

    fn disk(&mut self, words: &[&str]) -> Outcome {
        let id = member(words)?;
        let (mut hard_state, mut entries) = (HardState::default(), Vec::new());
        for (key, value) in pairs(&words[1..])? {
            match key {
                "term" => hard_state.term = number(value)?,
                "vote" => hard_state.voted_for = Some(number(value)?),
                "log" => {
                    for (position, term) in value.split(',').enumerate() {
                        let (index, term) = (position as u64 + 1, number(term)?);
                        let payload = Payload::Data(Command(format!("{index}@{term}").into()));
                        entries.push(Entry { term, index, payload });
                    }
                }
                _ => return Err(format!("a disk has no {key:?}")),
            }
        }
        self.cluster.member_mut(id).disk = Disk::holding(hard_state, entries);
        Ok(())
    }

    fn start(&mut self, words: &[&str]) -> Outcome {
        let ids: Vec<_> = match words {
            [] => self.cluster.ids().collect(),
            words => words.iter().map(|word| number(word)).collect::<Outcome<_>>()?,
        };
        for id in ids {
            self.cluster.start(id, self.now);
            self.turn(id);
        }
        Ok(())
    }

    fn time_out(&mut self, id: NodeId) -> Outcome {
        let deadline = self.cluster.raft(id).ok_or("it does not run")?.deadline();
        self.now = self.now.max(deadline);
        self.tick(id);
        Ok(())
    }

    fn pass(&mut self, time: Duration, works: bool) {
        let end = self.now + time;
        let millisecond = Duration::from_millis(1);
        while self.now < end {
            self.now += millisecond.min(end - self.now);
            if works {
                let message_count = self.wire.len();
                let arrived: Vec<_> = self.wire.drain(..message_count).collect();
                arrived.into_iter().for_each(|message| self.hand_over(message));
                self.cluster.ids().for_each(|id| self.persist(id, usize::MAX));
            }
            for id in self.cluster.ids() {
                if self.cluster.raft(id).is_some_and(|raft| raft.deadline() <= self.now) {
                    self.tick(id);
                }
            }
        }
    }

    fn propose(&mut self, id: NodeId, commands: &[&str]) -> Outcome {
        for command in commands {
            let command = Command((*command).into());
            match self.cluster.input(id, |raft| raft.propose(command)).ok_or("it does not run")? {
                Ok((term, index)) => self.say(format!("{id}: takes {index}@{term}")),
                Err(ProposeError::NotLeader(refusal)) => self.refuse(id, refusal),
                Err(ProposeError::Transferring) => {
                    self.lines.push(format!("{id}: holds it, leadership is being handed over"));
                }
            }
        }
        self.turn(id);
        Ok(())
    }

    fn change(&mut self, id: NodeId, words: &[&str]) -> Outcome {
        let (voters, learners) = members(words)?;
        let change = Change { voters, learners, context: Command("members".into()) };
        match self.cluster.input(id, |raft| raft.change(change)).ok_or("it does not run")? {
            Ok((term, index)) => self.say(format!("{id}: takes {index}@{term}")),
            Err(why) => self.lines.push(format!("{id}: refuses, {why}")),
        }
        self.turn(id);
        Ok(())
    }

    fn read(&mut self, id: NodeId, contexts: &[&str]) -> Outcome {
        for context in contexts {
            let context = number(context)?;
            match self.cluster.input(id, |raft| raft.read(context)).ok_or("it does not run")? {
                Ok(()) => self.cluster.checker.read_began(id, context),
                Err(refusal) => self.refuse(id, refusal),
            }
        }
        self.turn(id);
        Ok(())
    }

    fn refuse(&mut self, id: NodeId, refusal: raft::NotLeader) {
        let leader = refusal.leader.map_or("no one it knows".into(), |leader| leader.to_string());
        self.lines.push(format!("{id}: refuses, the leader is {leader}"));
    }

    fn persist(&mut self, id: NodeId, count: usize) {
        let member = self.cluster.member_mut(id);
        let Some(last) = member.disk.last_waiting() else { return };
        let left = member.disk.waiting().saturating_sub(count) as u64;
        let write = last - left;
        member.disk.complete(write);
        self.cluster.input(id, |raft| raft.persisted(write));
        self.turn(id);
    }

    fn settle(&mut self) {
        loop {
            let reachable = |message: &Message<Command>| !self.paused.contains(&message.to);
            let (arrived, kept): (Vec<_>, Vec<_>) = self.wire.drain(..).partition(reachable);
            self.wire = kept;
            let writes =
                |stage: &Self| stage.cluster.members.iter().any(|member| member.disk.waiting() > 0);
            if arrived.is_empty() && !writes(self) {
                return;
            }
            arrived.into_iter().for_each(|message| self.hand_over(message));
            self.cluster.ids().for_each(|id| self.persist(id, usize::MAX));
        }
    }

    /// Removes messages from the wire: of a link or of all, so many or all.
    fn take(&mut self, words: &[&str]) -> Outcome<Vec<Message<Command>>> {
        let (on, words) = match words.first() {
            Some(word) if word.contains("->") => (Some(link(word)?), &words[1..]),
            _ => (None, words),
        };
        let mut wanted = words.first().map_or(Ok(usize::MAX), |_| count(words.first()))?;
        let taken = self.wire.extract_if(.., |message| {
            let fits = on.is_none_or(|on| on == (message.from, message.to)) && wanted > 0;
            wanted -= usize::from(fits);
            fits
        });
        let taken: Vec<_> = taken.collect();
        if taken.is_empty() { Err("no such message is on its way".into()) } else { Ok(taken) }
    }

    fn hand_over(&mut self, message: Message<Command>) {
        let (from, to) = (message.from, message.to);
        if self.cut.contains(&(from, to)) {
            return;
        }
        if self.paused.contains(&to) {
            return self.wire.push(message);
        }
        self.rejections +=
            usize::from(matches!(message.body, Body::AppendRejected { hint_index: 1.., .. }));
        let now = self.now;
        if self.cluster.input(to, |raft| raft.receive(now, message)).is_some() {
            self.turn(to);
        }
    }

    fn tick(&mut self, id: NodeId) {
        let now = self.now;
        if !self.paused.contains(&id) && self.cluster.input(id, |raft| raft.tick(now)).is_some() {
            self.turn(id);
        }
    }

    fn turn(&mut self, id: NodeId) {
        if let Some(effects) = self.cluster.turn(id, self.now) {
            self.lines.extend(wording::effects(id, &effects, self.briefly));
            self.wire.extend(effects.messages);
        }
    }

    fn say(&mut self, line: String) {
        if !self.briefly {
            self.lines.push(line);
        }
    }

    fn show(&mut self, line: impl Fn(NodeId, &Raft<Command>) -> Vec<String>) {
        for id in self.cluster.ids() {
            match self.cluster.raft(id) {
                Some(raft) => self.lines.extend(line(id, raft)),
                None => self.lines.push(format!("{id}: down")),
            }
        }
    }
}

fn log(id: NodeId, raft: &Raft<Command>) -> String {
    let status = raft.status();
    let mut words = vec![format!("{id}:")];
    words.extend((status.commit_index == 0).then(|| "|".into()));
    let base = raft.base();
    words.extend((base.index > 0).then(|| format!("({})", base.index)));
    for entry in raft.entries(1) {
        words.push(entry.term.to_string());
        words.extend((entry.index == status.commit_index).then(|| "|".into()));
    }
    words.join(" ")
}

fn members(words: &[&str]) -> Outcome<(Vec<NodeId>, Vec<NodeId>)> {
    let (mut voters, mut learners) = (Vec::new(), Vec::new());
    for (key, value) in pairs(words)? {
        let ids = value.split(',').map(number).collect::<Outcome<_>>()?;
        match key {
            "voters" => voters = ids,
            "learners" => learners = ids,
            _ => return Err(format!("there are no {key:?}")),
        }
    }
    Ok((voters, learners))
}

fn member(words: &[&str]) -> Outcome<NodeId> {
    words.first().ok_or("which member?".into()).and_then(|word| number(word))
}

fn milliseconds(words: &[&str]) -> Outcome<Duration> {
    words.first().ok_or("how long?".into()).and_then(|word| number(word)).map(Duration::from_millis)
}

fn count(word: Option<&&str>) -> Outcome<usize> {
    word.map_or(Ok(usize::MAX), |word| number(word).map(|count| count as usize))
}

fn link(word: &str) -> Outcome<(NodeId, NodeId)> {
    let (from, to) = word.split_once("->").ok_or(format!("{word:?} is no link"))?;
    Ok((number(from)?, number(to)?))
}

fn pairs<'a>(words: &[&'a str]) -> Outcome<Vec<(&'a str, &'a str)>> {
    let pair = |word: &&'a str| word.split_once('=').ok_or(format!("{word:?} is no key=value"));
    words.iter().map(pair).collect()
}

fn number(word: &str) -> Outcome<Term> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

#[cfg(feature = "seeded-bugs")]
fn plant(config: &mut Config, bug: Option<Bug>) {
    config.bug = bug;
}

#[cfg(not(feature = "seeded-bugs"))]
fn plant(_: &mut Config, _: Option<Bug>) {}
