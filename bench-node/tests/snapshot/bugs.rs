//! Planted bugs, and the tests that catch them.
//!
//! | bug | caught by | first seed |
//! |---|---|---|
//! | membership left out | `crashes`: what is loaded is not what was written | 0 |
//! | directory not synced | `crashes`: a snapshot that was reported as written is gone | 0 |
//! | named before its sync | `crashes`: the newest one is damaged | 0 |
//! | resumed unchecked | `transfer`: what was received is not what was announced | 17 |

use bench_node::snapshot::{Options, SeededBug};

use crate::model::{seeds, small};
use crate::{crashes, transfer};

fn with(bug: SeededBug) -> Options {
    Options { bug: Some(bug), ..small() }
}

/// The first seed for which `run` fails, and how.
fn first(bug: SeededBug, most: u64, mut run: impl FnMut(u64) -> Result<(), String>) -> u64 {
    let caught = seeds(most).find_map(|seed| Some((seed, run(seed).err()?)));
    let (seed, how) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
    println!("{bug:?}: {how}");
    seed
}

#[test]
fn every_planted_bug_is_caught_by_a_crash() {
    for bug in
        [SeededBug::MembershipLeftOut, SeededBug::DirectoryNotSynced, SeededBug::NamedBeforeSync]
    {
        let run = |seed| crashes::at_every_step(seed, &with(bug), &mut Default::default());
        assert_eq!(first(bug, 10, run), 0, "{bug:?}");
    }
}

#[test]
fn a_transfer_that_trusts_a_length_is_caught() {
    let bug = SeededBug::ResumedUnchecked;
    let run = |seed| transfer::transfer(seed, &with(bug), &mut Default::default());
    assert_eq!(first(bug, 100, run), 17);
}
