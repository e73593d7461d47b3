//! The store's map beside the standard library's, which cannot be frozen without a copy: what the
//! freezing costs everything else. And what freezing itself takes.
//!
//! `cargo bench -p bench-node --bench kv`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;
use std::time::{Duration, Instant};

use api::etcdserverpb::PutRequest;
use bench_node::kv::{Command, Record, Store};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use imbl::OrdMap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const KEYS: [usize; 2] = [100_000, 1_000_000];
const RANGE: usize = 100;

/// What the store asks of its map.
trait Map: Default + Clone {
    const NAME: &str;
    fn insert(&mut self, key: Bytes, record: Record);
    fn get(&self, key: &Bytes) -> Option<&Record>;
    fn remove(&mut self, key: &Bytes);
    fn range(&self, from: &[u8]) -> impl Iterator<Item = (&Bytes, &Record)>;
}

impl Map for BTreeMap<Bytes, Record> {
    const NAME: &str = "standard";
    fn insert(&mut self, key: Bytes, record: Record) {
        self.insert(key, record);
    }
    fn get(&self, key: &Bytes) -> Option<&Record> {
        self.get(key)
    }
    fn remove(&mut self, key: &Bytes) {
        self.remove(key);
    }
    fn range(&self, from: &[u8]) -> impl Iterator<Item = (&Bytes, &Record)> {
        self.range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
    }
}

impl Map for OrdMap<Bytes, Record> {
    const NAME: &str = "persistent";
    fn insert(&mut self, key: Bytes, record: Record) {
        self.insert(key, record);
    }
    fn get(&self, key: &Bytes) -> Option<&Record> {
        self.get(key)
    }
    fn remove(&mut self, key: &Bytes) {
        self.remove(key);
    }
    fn range(&self, from: &[u8]) -> impl Iterator<Item = (&Bytes, &Record)> {
        self.range::<_, [u8]>((Bound::Included(from), Bound::Unbounded))
    }
}

fn maps(criterion: &mut Criterion) {
    for keys in KEYS {
        bench_map::<BTreeMap<Bytes, Record>>(criterion, keys);
        bench_map::<OrdMap<Bytes, Record>>(criterion, keys);
    }
}

fn bench_map<M: Map>(criterion: &mut Criterion, keys: usize) {
    let keys = keys_in_random_order(keys);
    let mut map = M::default();
    keys.iter().for_each(|key| map.insert(key.clone(), record()));
    let mut random = StdRng::seed_from_u64(2);
    let mut any_key = || keys[random.random_range(0..keys.len())].clone();

    let mut group = criterion.benchmark_group(format!("map/{}", keys.len()));
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(1));
    group.bench_function(BenchmarkId::new("get", M::NAME), |bencher| {
        bencher.iter_batched(&mut any_key, |key| map.get(&key).is_some(), BatchSize::SmallInput);
    });
    group.bench_function(BenchmarkId::new("range_of_100", M::NAME), |bencher| {
        bencher.iter_batched(
            &mut any_key,
            |key| map.range(&key).take(RANGE).map(|(_, record)| record.value.len()).sum::<usize>(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function(BenchmarkId::new("overwrite", M::NAME), |bencher| {
        bencher.iter_batched(&mut any_key, |key| map.insert(key, record()), BatchSize::SmallInput);
    });
    group.bench_function(BenchmarkId::new("remove_and_insert", M::NAME), |bencher| {
        bencher.iter_batched(
            &mut any_key,
            |key| {
                map.remove(&key);
                map.insert(key, record());
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A put into a store, alone and with a frozen one beside it, which makes it copy what it changes.
fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(1));
    for keys in KEYS {
        let keys = keys_in_random_order(keys);
        let mut store = Store::default();
        let put = |store: &mut Store, key: Bytes| {
            let value = Bytes::from_static(&[7; 64]);
            let put = PutRequest { key, value, ..Default::default() };
            store.apply(Command::Put(put)).expect("a put")
        };
        for key in &keys {
            put(&mut store, key.clone());
        }
        let mut random = StdRng::seed_from_u64(3);
        let mut any_key = || keys[random.random_range(0..keys.len())].clone();
        group.bench_function(BenchmarkId::new("put", keys.len()), |bencher| {
            bencher.iter_batched(&mut any_key, |key| put(&mut store, key), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("put_while_frozen", keys.len()), |bencher| {
            // Frozen again every 10,000 puts: a snapshot lasts about that long under load.
            bencher.iter_custom(|puts| {
                let mut spent = Duration::ZERO;
                let mut frozen = store.freeze();
                for number in 0..puts {
                    if number % 10_000 == 9_999 {
                        frozen = store.freeze();
                    }
                    let key = any_key();
                    let started = Instant::now();
                    put(&mut store, key);
                    spent += started.elapsed();
                }
                black_box(frozen);
                spent
            });
        });
        group.bench_function(BenchmarkId::new("freeze", keys.len()), |bencher| {
            bencher.iter(|| store.freeze());
        });
    }
    group.finish();
}

fn record() -> Record {
    let value = Bytes::from_static(&[7; 64]);
    Record { create_revision: 2, mod_revision: 2, version: 1, value }
}

fn keys_in_random_order(count: usize) -> Vec<Bytes> {
    let mut random = StdRng::seed_from_u64(1);
    (0..count).map(|_| Bytes::from(format!("key-{:016x}", random.random::<u64>()))).collect()
}

criterion_group!(benches, maps, puts);
criterion_main!(benches);
