//! Histories of a register that is linearizable because each operation takes effect at one drawn
//! moment between its invocation and its completion.

#![allow(dead_code, reason = "each program uses a part of it")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use history::{Consistency, Kind, Operation, Outcome};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) operations: u64,
    pub(crate) keys: u32,
    /// Each has one operation under way at a time, but for those with an unknown outcome.
    pub(crate) clients: u32,
    /// Of put, get, cas and delete.
    pub(crate) mix: [f64; 4],
    /// Share of operations whose outcome stays unknown.
    pub(crate) unknown: f64,
    /// Values are drawn from so many; `None`: every write has its own.
    pub(crate) values: Option<u32>,
}

impl Shape {
    /// Half puts, half gets, every value unique, and nothing unknown.
    pub(crate) fn of(operations: u64, keys: u32, clients: u32) -> Self {
        let mix = [0.5, 0.5, 0.0, 0.0];
        Self { operations, keys, clients, mix, unknown: 0.0, values: None }
    }

    pub(crate) fn operations(&self, seed: u64) -> Vec<Operation> {
        let mut operations = Vec::new();
        self.generate(seed, |operation| operations.push(operation));
        operations
    }

    /// Hands out the operations in no particular order, without keeping them.
    pub(crate) fn generate(&self, seed: u64, mut emit: impl FnMut(Operation)) {
        let mut world = World {
            shape: self,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            registers: HashMap::new(),
            events: BinaryHeap::new(),
            under_way: HashMap::new(),
            begun: 0,
        };
        for client in 0..self.clients {
            let start_ns = world.rng.random_range(0..1_000_000);
            world.events.push(Reverse((start_ns, u64::MAX, client)));
        }
        while let Some(Reverse((now_ns, number, client))) = world.events.pop() {
            match number {
                u64::MAX => world.begin(now_ns, client),
                _ => emit(world.take_effect(number)),
            }
        }
    }
}

struct World<'a> {
    shape: &'a Shape,
    rng: Xoshiro256PlusPlus,
    registers: HashMap<u32, String>,
    /// When, which operation takes effect (`u64::MAX`: one begins), and whose.
    events: BinaryHeap<Reverse<(i64, u64, u32)>>,
    under_way: HashMap<u64, (u32, Operation, bool)>,
    begun: u64,
}

impl World<'_> {
    fn begin(&mut self, now_ns: i64, client: u32) {
        if self.begun == self.shape.operations {
            return;
        }
        let number = self.begun;
        self.begun += 1;
        let key = self.rng.random_range(0..self.shape.keys);
        let op = self.kind();
        let takes_ns = self.rng.random_range(2..2_000_000);
        let effect_ns = self.rng.random_range(1..takes_ns);
        let unknown = self.rng.random_bool(self.shape.unknown);
        // What is unknown may never happen, or happen long after.
        let happens = !unknown || self.rng.random_bool(0.5);
        let late_ns = if unknown { self.rng.random_range(0..20_000_000) } else { 0 };
        let value = match op {
            Kind::Put | Kind::Cas => Some(match self.shape.values {
                None => format!("{number:08x}"),
                Some(few) => format!("v{}", self.rng.random_range(0..few)),
            }),
            Kind::Get | Kind::Delete => None,
        };
        // Most of the time a cas expects what is there when it is sent.
        let present = self.registers.get(&key).cloned();
        let expected = present.filter(|_| op == Kind::Cas && self.rng.random_bool(0.9));
        let operation = Operation {
            process: client,
            op,
            key: format!("k{key}"),
            value,
            expected,
            invoke_ns: now_ns,
            complete_ns: (!unknown).then_some(now_ns + takes_ns),
            outcome: if unknown { Outcome::Unknown } else { Outcome::Ok },
            consistency: Consistency::Linearizable,
            revision: None,
            node: Some(format!("n{}", client % 3 + 1)),
            error: None,
        };
        self.under_way.insert(number, (key, operation, happens));
        self.events.push(Reverse((now_ns + effect_ns + late_ns, number, client)));
        let thinks_ns = self.rng.random_range(1..1_000_000);
        self.events.push(Reverse((now_ns + takes_ns + thinks_ns, u64::MAX, client)));
    }

    fn kind(&mut self) -> Kind {
        let mut at = self.rng.random::<f64>() * self.shape.mix.iter().sum::<f64>();
        for (kind, weight) in
            [Kind::Put, Kind::Get, Kind::Cas, Kind::Delete].into_iter().zip(self.shape.mix)
        {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Kind::Get
    }

    fn take_effect(&mut self, number: u64) -> Operation {
        let (key, mut operation, happens) =
            self.under_way.remove(&number).expect("it was under way");
        if !happens {
            return operation;
        }
        let present = self.registers.get(&key).cloned();
        match operation.op {
            Kind::Get if operation.outcome == Outcome::Ok => operation.value = present,
            Kind::Get => {}
            Kind::Cas if present != operation.expected => {
                if operation.outcome == Outcome::Ok {
                    operation.outcome = Outcome::Fail;
                }
            }
            Kind::Put | Kind::Cas => {
                let value = operation.value.clone().expect("a write has a value");
                self.registers.insert(key, value);
            }
            Kind::Delete => {
                self.registers.remove(&key);
            }
        }
        operation
    }
}
