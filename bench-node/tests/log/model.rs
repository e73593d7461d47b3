//! What a log should hold: the state after each append, and which of them are acknowledged.

use std::collections::BTreeMap;

use bench_node::GroupId;
use bench_node::wal::{GroupLog, GroupWrite, Options};
use bytes::Bytes;
use raft::{Entry, EntryId, HardState, Index, Membership, Payload, Term, Write};
use rand::RngExt;
use rand::rngs::StdRng;

/// The group of tests that need one.
pub(crate) const GROUP: GroupId = 3;

/// A state that a log may hold: its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    groups: BTreeMap<GroupId, GroupLog>,
}

impl State {
    pub(crate) fn of(recovered: &BTreeMap<GroupId, GroupLog>) -> Self {
        let mut groups = recovered.clone();
        // A group of which nothing is known is none.
        groups.retain(|_, group| *group != GroupLog::default());
        Self { groups }
    }

    /// One group's part.
    pub(crate) fn group(&self, group: GroupId) -> GroupLog {
        self.groups.get(&group).cloned().unwrap_or_default()
    }

    pub(crate) fn apply(&mut self, GroupWrite { group, write }: &GroupWrite) {
        let group = self.groups.entry(*group).or_default();
        group.hard_state = write.hard_state.unwrap_or(group.hard_state);
        if let Some(base) = write.base {
            let holds = base == group.base || group.entries.iter().any(|entry| id(entry) == base);
            group.entries.retain(|entry| holds && entry.index > base.index);
            group.base = base;
        }
        for entry in &write.entries {
            group.entries.retain(|held| held.index < entry.index);
            group.entries.push(entry.clone());
        }
        self.groups.retain(|_, group| *group != GroupLog::default());
    }

    /// A write that a member of `group` in this state could ask for.
    pub(crate) fn next_write(&self, random: &mut StdRng, group: GroupId, id: u64) -> GroupWrite {
        let log = self.group(group);
        let mut term = log.hard_state.term;
        let mut hard_state = None;
        if term == 0 || random.random_bool(0.2) {
            term += 1;
            let voted_for = random.random_bool(0.5).then(|| random.random_range(1..=5));
            hard_state = Some(HardState { term, voted_for });
        }
        let base = random.random_bool(0.15).then(|| next_base(random, &log, term)).flatten();
        let mut then = self.clone();
        then.apply(&GroupWrite { group, write: Write { id, hard_state, base, entries: vec![] } });
        let log = then.group(group);
        let (first, last) = (log.base.index, log.last_index());
        let keep = if random.random_bool(0.2) { random.random_range(first..=last) } else { last };
        let least = u64::from(hard_state.is_none() && base.is_none());
        let count = random.random_range(least..4);
        let entries = (keep + 1..=keep + count)
            .map(|index| Entry { term, index, payload: payload(random) })
            .collect();
        GroupWrite { group, write: Write { id, hard_state, base, entries } }
    }
}

fn id(entry: &Entry<Bytes>) -> EntryId {
    EntryId { index: entry.index, term: entry.term }
}

/// A snapshot of this member's own, up to an entry that it holds; or one that it was sent, of a log
/// that went on from its own, or that its own had split off from.
fn next_base(random: &mut StdRng, log: &GroupLog, term: Term) -> Option<EntryId> {
    if random.random_bool(0.7) {
        let at = random.random_range(0..log.entries.len().max(1));
        return log.entries.get(at).map(id);
    }
    let index = random.random_range(log.base.index + 1..log.last_index() + 10);
    Some(EntryId { index, term })
}

fn payload(random: &mut StdRng) -> Payload<Bytes> {
    let mut data = |most: usize| {
        let len = random.random_range(0..most);
        Bytes::from(vec![random.random(); len])
    };
    match data(20).len() {
        0 | 1 => Payload::Noop,
        2 => Payload::Membership(Membership {
            voters: vec![1, 2, 3],
            outgoing: data(3).iter().map(|id| u64::from(*id)).collect(),
            learners: vec![],
            context: data(100),
        }),
        3 | 4 => Payload::Data(data(20_000)),
        _ => Payload::Data(data(300)),
    }
}

/// A write of one entry with `bytes` of data.
pub(crate) fn write(id: u64, term: u64, index: u64, bytes: usize) -> GroupWrite {
    let data = Bytes::from(vec![id as u8; bytes]);
    let entries = vec![Entry { term, index, payload: Payload::Data(data) }];
    GroupWrite { group: GROUP, write: Write { id, hard_state: None, base: None, entries } }
}

/// A write that says that a snapshot holds all up to this entry.
pub(crate) fn compact(id: u64, term: Term, index: Index) -> GroupWrite {
    let base = Some(EntryId { index, term });
    GroupWrite { group: GROUP, write: Write { id, hard_state: None, base, entries: vec![] } }
}

/// Small segments, and nothing that depends on a clock or another thread.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        fill_ahead_bytes: 24 << 10,
        fill_step_bytes: 8 << 10,
        fill_in_background: false,
        generation_seed: 11,
        ..Options::default()
    }
}
