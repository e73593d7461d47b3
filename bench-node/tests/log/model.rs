//! What a log should hold: the state after each append, and which of them are acknowledged.

use bench_node::wal::Options;
use bytes::Bytes;
use raft::{Entry, HardState, Payload, Recovered, Write};
use rand::RngExt;
use rand::rngs::StdRng;

/// A state that a log may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry<Bytes>>,
}

impl State {
    pub(crate) fn of(recovered: &Recovered<Bytes>) -> Self {
        Self { hard_state: recovered.hard_state, entries: recovered.entries.clone() }
    }

    pub(crate) fn apply(&mut self, write: &Write<Bytes>) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        for entry in &write.entries {
            self.entries.truncate(entry.index as usize - 1);
            self.entries.push(entry.clone());
        }
    }

    /// A write that a member in this state could ask for.
    pub(crate) fn next_write(&self, random: &mut StdRng, id: u64) -> Write<Bytes> {
        let mut term = self.hard_state.term;
        let mut hard_state = None;
        if id == 1 || random.random_bool(0.2) {
            term += 1;
            let voted_for = random.random_bool(0.5).then(|| random.random_range(1..=5));
            hard_state = Some(HardState { term, voted_for });
        }
        let last = self.entries.len() as u64;
        let keep = if random.random_bool(0.2) { random.random_range(0..=last) } else { last };
        let count = random.random_range(u64::from(hard_state.is_none())..4);
        let entries = (keep + 1..=keep + count)
            .map(|index| Entry {
                term,
                index,
                payload: if random.random_bool(0.1) {
                    Payload::Noop
                } else {
                    let most = if random.random_bool(0.1) { 20_000 } else { 300 };
                    let len = random.random_range(0..most);
                    Payload::Data(Bytes::from(vec![random.random(); len]))
                },
            })
            .collect();
        Write { id, hard_state, entries }
    }
}

/// A write of one entry with `bytes` of data.
pub(crate) fn write(id: u64, term: u64, index: u64, bytes: usize) -> Write<Bytes> {
    let data = Bytes::from(vec![id as u8; bytes]);
    Write {
        id,
        hard_state: None,
        entries: vec![Entry { term, index, payload: Payload::Data(data) }],
    }
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
