//! Stores to make snapshots of, and the directory that they go to.

use std::path::Path;

use api::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest};
use bench_node::disk::{Disk, Simulated};
use bench_node::kv::{Command, Store};
use bench_node::snapshot::{Options, Snapshot, SnapshotMeta, Snapshots};
use bytes::Bytes;
use raft::{EntryId, Membership};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) const DIR: &str = "/data/snapshots";
pub(crate) const GROUP: u64 = 4;

/// A store with about `keys` keys, some of them changed and some gone again.
pub(crate) fn store(seed: u64, keys: usize) -> Store {
    let mut random = StdRng::seed_from_u64(seed);
    let mut store = Store::default();
    for _ in 0..keys * 3 / 2 {
        let key = Bytes::from(format!("key-{:06}", random.random_range(0..keys.max(1))));
        let len = if random.random_bool(0.02) { 9_000 } else { random.random_range(0..200) };
        let put =
            PutRequest { key, value: vec![random.random(); len].into(), ..Default::default() };
        store.apply(Command::Put(put)).expect("a put");
        if random.random_bool(0.1) {
            let key = Bytes::from(format!("key-{:06}", random.random_range(0..keys)));
            let delete = DeleteRangeRequest { key, ..Default::default() };
            store.apply(Command::DeleteRange(delete)).expect("a delete");
        }
    }
    if seed.is_multiple_of(2) && store.revision() > 2 {
        let compaction = CompactionRequest { revision: store.revision() / 2, physical: false };
        store.apply(Command::Compact(compaction)).expect("a compaction");
    }
    store
}

/// What a snapshot of the default group up to `index` says.
pub(crate) fn meta(index: u64, store: &Store) -> SnapshotMeta {
    SnapshotMeta {
        group: GROUP,
        last_included: EntryId { index, term: 1 + index / 100 },
        membership: Membership {
            voters: vec![1, 2, 3],
            outgoing: if index.is_multiple_of(2) { vec![] } else { vec![1, 2] },
            learners: vec![7],
            context: Bytes::from(format!("members as of {index}")),
        },
        store: store.freeze().header(),
    }
}

/// Small blocks and frequent syncs, so that there are many steps to fail at.
pub(crate) fn small() -> Options {
    Options {
        block_bytes: 2_000,
        sync_every_bytes: 8_000,
        max_bytes_per_second: None,
        ..Options::default()
    }
}

pub(crate) fn open(disk: &Simulated) -> Snapshots<Simulated> {
    Snapshots::open(disk.clone(), Path::new(DIR), small()).expect("the disk works")
}

pub(crate) fn write(snapshots: &Snapshots<impl Disk>, index: u64, store: &Store) -> Snapshot {
    snapshots.write(meta(index, store), store.freeze()).expect("the disk works")
}

/// The names in the directory.
pub(crate) fn names(disk: &Simulated) -> Vec<String> {
    disk.list(Path::new(DIR)).expect("the disk works").unwrap_or_default()
}

/// Whether two stores are one, as far as anybody could tell.
pub(crate) fn same(left: &Store, right: &Store) -> bool {
    left.hash() == right.hash()
        && left.bytes() == right.bytes()
        && left.compacted_revision() == right.compacted_revision()
}

/// `RAFTBENCH_SEED`; or the first `RAFTBENCH_SEEDS`, for a longer run; or the first `count`.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name| Some(std::env::var(name).ok()?.parse::<u64>().expect("a number"));
    match number("RAFTBENCH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RAFTBENCH_SEEDS").unwrap_or(count),
    }
}

/// The line that replays a seed of `test`.
pub(crate) fn replay(seed: u64, test: &str) -> String {
    format!(
        "replay: RAFTBENCH_SEED={seed} cargo test --release -p bench-node --features seeded-bugs \
         --test snapshot {test}"
    )
}
