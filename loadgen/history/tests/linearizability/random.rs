//! Random histories, the checker's verdict beside a simpler checker's.
//!
//! A difference prints the seed of its history; `HISTORY_SEED=7` runs that one alone.

use history::{Consistency, Kind, Operation, Outcome};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::generate::Shape;
use crate::oracle::{by_brute_force, by_the_textbook};
use crate::{checked, lines, passes};

const SMALL: u64 = 60_000;
const MIDDLE: u64 = 30_000;

#[test]
fn small_histories_have_the_verdict_of_brute_force() {
    // Half of them anything at all, half linearizable ones with a change or two.
    compare("small", SMALL, by_brute_force, |rng| match rng.random_bool(0.5) {
        true => anything(rng),
        false => nearly_sound(rng, 4..=7, 1..=4),
    });
}

#[test]
fn longer_histories_have_the_verdict_of_the_textbook() {
    compare("middle", MIDDLE, by_the_textbook, |rng| nearly_sound(rng, 12..=40, 2..=6));
}

/// Both verdicts must come often, or the comparison would say little; and of what fails, the
/// operations that are named must fail by themselves.
fn compare(
    what: &str,
    number: u64,
    oracle: fn(&[Operation]) -> bool,
    draw: impl Fn(&mut Xoshiro256PlusPlus) -> Vec<Operation>,
) {
    let seeds = match std::env::var("HISTORY_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).expect("a number"),
        Err(_) => 0..number,
    };
    let (mut passed, mut whole) = (0, 0);
    for seed in seeds {
        let history = draw(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
        let replay = || {
            format!(
                "HISTORY_SEED={seed} cargo test --release -p history --test linearizability \
                 {what}\n{}",
                lines(&history)
            )
        };
        let expected = oracle(&history);
        assert_eq!(passes(&history), expected, "not as expected:\n{}", replay());
        whole += 1;
        passed += u64::from(expected);
        if !expected {
            for violation in checked(&history).violations {
                let named: Vec<Operation> =
                    violation.operations.into_iter().map(|witness| witness.operation).collect();
                assert!(
                    !oracle(&named),
                    "these can be ordered:\n{}of\n{}",
                    lines(&named),
                    replay()
                );
                assert!(violation.smallest, "not shrunk to the end:\n{}", replay());
            }
        }
    }
    println!("{what}: {passed} of {whole} pass");
    let share = passed as f64 / whole as f64;
    assert!(whole == 1 || (0.2..0.8).contains(&share), "{passed} of {whole} pass");
}

/// Anything at all, on a few moments, so that many are equal.
fn anything(rng: &mut Xoshiro256PlusPlus) -> Vec<Operation> {
    let values = ["a", "b", "c"];
    let number = rng.random_range(1..=7);
    let keys = rng.random_range(1..=2);
    let one = |rng: &mut Xoshiro256PlusPlus| {
        let op = *[Kind::Put, Kind::Put, Kind::Get, Kind::Get, Kind::Cas, Kind::Delete]
            .choose(rng)
            .expect("some");
        let mut any = |absent: bool| match absent && rng.random_bool(0.3) {
            true => None,
            false => values.choose(rng).map(|value| (*value).to_owned()),
        };
        let value = if op == Kind::Delete { None } else { any(op == Kind::Get) };
        let expected = if op == Kind::Cas { any(true) } else { None };
        let outcome = match rng.random_range(0..10) {
            0 => Outcome::Fail,
            1..=3 => Outcome::Unknown,
            _ => Outcome::Ok,
        };
        let invoke_ns = rng.random_range(0..10);
        let answered = outcome != Outcome::Unknown || rng.random_bool(0.2);
        let complete_ns = answered.then(|| invoke_ns + rng.random_range(0..8));
        let serializable = op == Kind::Get && rng.random_bool(0.1);
        Operation {
            process: rng.random_range(0..3),
            op,
            key: format!("k{}", rng.random_range(0..keys)),
            value,
            expected,
            invoke_ns,
            complete_ns,
            outcome,
            consistency: match serializable {
                true => Consistency::Serializable,
                false => Consistency::Linearizable,
            },
            revision: None,
            node: None,
            error: None,
        }
    };
    (0..number).map(|_| one(rng)).collect()
}

/// A linearizable history of any mix, with a few of its answers or moments changed, or none.
fn nearly_sound(
    rng: &mut Xoshiro256PlusPlus,
    operations: std::ops::RangeInclusive<u64>,
    clients: std::ops::RangeInclusive<u32>,
) -> Vec<Operation> {
    let weight = |rng: &mut Xoshiro256PlusPlus, zero: f64| match rng.random_bool(zero) {
        true => 0.0,
        false => rng.random::<f64>(),
    };
    let shape = Shape {
        operations: rng.random_range(operations),
        keys: 1,
        clients: rng.random_range(clients),
        mix: [
            0.1 + rng.random::<f64>(),
            0.1 + rng.random::<f64>(),
            weight(rng, 0.4),
            weight(rng, 0.5) / 2.0,
        ],
        unknown: [0.0, 0.05, 0.3][rng.random_range(0..3)],
        values: [None, Some(2), Some(5)][rng.random_range(0..3)],
    };
    let mut history = shape.operations(rng.random());
    for _ in 0..rng.random_range(0..=6) {
        change(rng, &mut history);
    }
    history
}

fn change(rng: &mut Xoshiro256PlusPlus, history: &mut [Operation]) {
    let values: Vec<Option<String>> =
        history.iter().map(|operation| operation.value.clone()).collect();
    let at = rng.random_range(0..history.len());
    let other = rng.random_range(0..history.len());
    let operation = &mut history[at];
    match (rng.random_range(0..3), operation.op) {
        (0 | 1, Kind::Get) => operation.value = values[other].clone(),
        (0, Kind::Cas) => operation.expected = values[other].clone(),
        (1, Kind::Cas | Kind::Put | Kind::Delete) => {
            operation.outcome = Outcome::Unknown;
            operation.complete_ns = None;
        }
        _ => {
            let moved_ns = rng.random_range(-3_000_000..3_000_000);
            operation.invoke_ns += moved_ns;
            operation.complete_ns = operation.complete_ns.map(|ns| ns + moved_ns);
        }
    }
}
