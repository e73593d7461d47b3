//! Bytes from outside: whatever a profile's text says, reading it ends in a plan or in an error that
//! names the file; never in a panic. What becomes a plan can be shown, and written down as a profile
//! that gives the same plan again, which is what a manifest is for.
//!
//! The corpus is the profiles that the program carries, changed by a seeded generator.

use std::panic::catch_unwind;

use raftbench::plan::Plan;
use raftbench::profile::{Profile, embedded};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// `PROFILE_ROUNDS=1000000` goes further, `PROFILE_ROUND=7` does one again.
const ROUNDS: u64 = 20_000;

/// What a value may be changed to.
const VALUES: [&str; 34] = [
    "0",
    "1",
    "3",
    "9",
    "0.5",
    "1.0",
    "2.5",
    "60",
    "1e9",
    "1e308",
    "-1",
    "-0.0",
    "nan",
    "inf",
    "9223372036854775807",
    "-9223372036854775808",
    "true",
    "false",
    "\"\"",
    "\"kill\"",
    "\"pause\"",
    "\"transfer\"",
    "\"leader\"",
    "\"follower\"",
    "\"minority\"",
    "\"all\"",
    "\"n1\"",
    "\"constant\"",
    "\"closed\"",
    "[]",
    "[\"n1\", \"n2\"]",
    "{}",
    "{ put = 0.25, get = 0.75 }",
    "1979-05-27",
];

#[test]
fn changed_profiles_are_plans_or_refused() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let rounds = match number("PROFILE_ROUND") {
        Some(round) => round..round + 1,
        None => 0..number("PROFILE_ROUNDS").unwrap_or(ROUNDS),
    };
    let texts: Vec<String> = embedded::names()
        .into_iter()
        .map(|name| embedded::text(name).expect("embedded").to_owned())
        .collect();
    let (mut plans, mut refused) = (0, 0);
    for round in rounds.clone() {
        let text = changed(&texts, round);
        let outcome = catch_unwind(|| read(&text)).unwrap_or_else(|_| {
            panic!(
                "PROFILE_ROUND={round} cargo test --release -p raftbench --test profile_fuzz\n{text}"
            )
        });
        match outcome {
            true => plans += 1,
            false => refused += 1,
        }
    }
    println!("{plans} plans, {refused} refused");
    // The changes reach both.
    let whole = rounds.end - rounds.start;
    assert!(whole == 1 || (plans > whole / 20 && refused > whole / 5), "{plans}, {refused}");
}

/// Whether it is a plan.
fn read(text: &str) -> bool {
    match plan(text) {
        Ok(plan) => {
            assert!(plan.to_string().contains("seed"));
            let resolved = toml::to_string(&plan.to_profile()).expect("TOML");
            let mut again = self::plan(&resolved).unwrap_or_else(|error| {
                panic!("what was resolved is refused: {error}\n{resolved}")
            });
            // A repeated fault comes back as many.
            assert_eq!(again.faults.len(), plan.faults.len());
            for (fault, original) in again.faults.iter_mut().zip(&plan.faults) {
                fault.id.clone_from(&original.id);
            }
            assert_eq!(again, plan, "{resolved}");
            true
        }
        Err(error) => {
            assert!(error.contains("test.toml"), "{error:?} does not name the file");
            false
        }
    }
}

fn plan(text: &str) -> Result<Plan, String> {
    let profile = Profile::from_text("test", "test.toml", text);
    profile.plan(&[], 7, "test/").map_err(|error| error.to_string())
}

fn changed(texts: &[String], round: u64) -> String {
    let mut rng = StdRng::seed_from_u64(round);
    let text = texts.choose(&mut rng).expect("some");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..lines.len());
        match rng.random_range(0..10) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other: Vec<&str> = texts.choose(&mut rng).expect("some").lines().collect();
                lines.insert(at, (*other.choose(&mut rng).expect("some")).to_owned());
            }
            3 => {
                // Bytes of any kind, in the middle of a line.
                let cut = lines[at].char_indices().map(|(index, _)| index).collect::<Vec<_>>();
                let cut = cut.choose(&mut rng).copied().unwrap_or(0);
                lines[at].insert(cut, char::from_u32(rng.random_range(0..0x2500)).unwrap_or('?'));
            }
            4 => {
                // A whole fault more.
                let kind = ["kill", "terminate", "pause", "restart", "transfer"];
                let kind = kind.choose(&mut rng).expect("some");
                let target = ["leader", "follower", "followers", "one", "majority", "all", "n2"];
                let target = target.choose(&mut rng).expect("some");
                let at_s = rng.random_range(0..30);
                lines.push(format!(
                    "[[faults]]\nkind = \"{kind}\"\ntarget = \"{target}\"\nat_s = {at_s}"
                ));
                if *kind == "pause" {
                    lines.push(format!("resume_after_s = {}", rng.random_range(0..9)));
                }
            }
            _ => {
                let values: Vec<usize> = (0..lines.len())
                    .filter(|line| lines[*line].contains(" = ") && !lines[*line].starts_with('#'))
                    .collect();
                let Some(line) = values.choose(&mut rng).copied() else { continue };
                let key = lines[line].split(" = ").next().expect("a key").to_owned();
                let value = VALUES.choose(&mut rng).expect("some");
                lines[line] = format!("{key} = {value}");
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}
