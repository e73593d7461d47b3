//! Random executions of a correct store pass; each planted bug is found. A failure names its seed.

use std::collections::HashMap;

use history::{Kind, Outcome};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::testing::spec;

const SEEDS: u64 = 300;

/// What may happen in an execution.
#[derive(Clone, Copy)]
struct Chances {
    unknown: f64,
    unknown_happens: f64,
    fail: f64,
    serializable: bool,
}

const ROUGH: Chances =
    Chances { unknown: 0.2, unknown_happens: 0.5, fail: 0.1, serializable: false };
/// Nothing that the audit must give the benefit of the doubt.
const CERTAIN: Chances =
    Chances { unknown: 0.0, unknown_happens: 0.0, fail: 0.1, serializable: false };

/// A bug in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// One acknowledged put leaves no trace.
    Forgets,
    /// One acknowledged put is applied a second time later.
    AppliesTwice,
    /// One failed put is applied.
    AppliesFailed,
}

struct Execution {
    ops: Vec<OpRecord>,
    state: FinalState,
}

/// Operations overlap at random on a few keys; each takes effect at one moment inside its
/// interval, unknown ones at any moment after they were sent.
fn execute(seed: u64, chances: Chances, bug: Option<Bug>) -> Execution {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut ops = Vec::new();
    let mut effects: Vec<(i64, usize)> = Vec::new();
    for sequence in 0..200u64 {
        let sent_ns = rng.random_range(0..100_000) * 10;
        let done_ns = sent_ns + rng.random_range(1..10_000) * 10;
        let kind = if rng.random::<f64>() < 0.6 { Kind::Put } else { Kind::Get };
        let luck: f64 = rng.random();
        let outcome = match luck {
            _ if luck < chances.unknown => Outcome::Unknown,
            _ if luck < chances.unknown + chances.fail => Outcome::Fail,
            _ => Outcome::Ok,
        };
        let latest = if outcome == Outcome::Unknown { 2_000_000 } else { done_ns };
        // Odd, and of its own: no two effects coincide, none with a send or an answer.
        let effect_ns = rng.random_range(sent_ns / 10..latest / 10) * 10 + 5;
        let happens = match outcome {
            Outcome::Ok => true,
            Outcome::Fail => false,
            Outcome::Unknown => rng.random::<f64>() < chances.unknown_happens,
        };
        if happens {
            effects.push((effect_ns, ops.len()));
        }
        ops.push(OpRecord {
            sequence,
            process: 0,
            kind,
            linearizable: kind == Kind::Put || !chances.serializable,
            key: rng.random_range(0..5),
            node: 0,
            intended_ns: sent_ns,
            sent_ns: Some(sent_ns),
            completed_ns: (outcome != Outcome::Unknown).then_some(done_ns),
            outcome,
            read: None,
            revision: 0,
            error: None,
        });
    }
    let of_kind = |outcome| -> Vec<usize> {
        let hit = |op: &OpRecord| op.kind == Kind::Put && op.outcome == outcome;
        (0..ops.len()).filter(|at| hit(&ops[*at])).collect()
    };
    let victims =
        of_kind(if bug == Some(Bug::AppliesFailed) { Outcome::Fail } else { Outcome::Ok });
    let victim = victims[rng.random_range(0..victims.len())];
    match bug {
        Some(Bug::AppliesTwice | Bug::AppliesFailed) => effects.push((1_999_995, victim)),
        Some(Bug::Forgets) | None => {}
    }
    effects.sort_unstable();
    let forgotten = (bug == Some(Bug::Forgets)).then_some(victim);
    let state = apply(&mut ops, &effects, forgotten, &mut rng);
    Execution { ops, state }
}

fn apply(
    ops: &mut [OpRecord],
    effects: &[(i64, usize)],
    forgotten: Option<usize>,
    rng: &mut Xoshiro256PlusPlus,
) -> FinalState {
    let (mut revision, mut state) = (1, FinalState::default());
    let mut past: HashMap<u32, Vec<FinalKey>> = HashMap::new();
    for (_, at) in effects {
        let op = &mut ops[*at];
        if op.kind == Kind::Put {
            revision += 1;
            if op.outcome == Outcome::Ok && op.revision == 0 {
                op.revision = revision;
            }
            if forgotten == Some(*at) {
                continue;
            }
            let held = state.keys.entry(op.key).or_insert(FinalKey {
                value: ReadValue::Absent,
                version: 0,
                create_revision: revision,
                mod_revision: 0,
            });
            held.value = ReadValue::Written(op.sequence);
            held.version += 1;
            held.mod_revision = revision;
            past.entry(op.key).or_default().push(*held);
        } else if op.outcome == Outcome::Ok {
            let seen = match past.get(&op.key) {
                Some(past) if !op.linearizable => Some(past[rng.random_range(0..past.len())]),
                _ => state.keys.get(&op.key).copied(),
            };
            op.read = Some(seen.map_or(ReadValue::Absent, |held| held.value));
            op.revision = seen.map_or(0, |held| held.mod_revision);
        }
    }
    state
}

fn audited(execution: &Execution) -> AuditReport {
    audit(&spec().keys, &execution.ops, &execution.state)
}

#[test]
fn correct_executions_pass() {
    for seed in 0..SEEDS {
        for chances in [ROUGH, CERTAIN, Chances { serializable: true, ..ROUGH }] {
            let report = audited(&execute(seed, chances, None));
            assert_eq!(report.verdict, AuditVerdict::Pass, "seed {seed}: {report:#?}");
            assert_eq!(report.lost_writes, 0);
            assert!(report.acked_writes > 50);
        }
    }
}

#[test]
fn a_lost_write_is_found_and_counted() {
    for seed in 0..SEEDS {
        let report = audited(&execute(seed, CERTAIN, Some(Bug::Forgets)));
        assert_eq!(report.verdict, AuditVerdict::Fail, "seed {seed}");
        assert!(report.lost_writes >= 1, "seed {seed}: {report:#?}");
        assert_eq!(report.findings[0].kind, FindingKind::LostWrite, "seed {seed}: {report:#?}");
        assert!(report.findings[0].key.starts_with("test/"));
    }
}

#[test]
fn a_write_applied_twice_is_found() {
    for seed in 0..SEEDS {
        let report = audited(&execute(seed, CERTAIN, Some(Bug::AppliesTwice)));
        let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
        assert!(kinds.contains(&FindingKind::DuplicateWrite), "seed {seed}: {report:#?}");
    }
}

#[test]
fn a_failed_write_that_happened_is_found() {
    for seed in 0..SEEDS {
        let report = audited(&execute(seed, CERTAIN, Some(Bug::AppliesFailed)));
        let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
        assert!(kinds.contains(&FindingKind::FailedWriteHappened), "seed {seed}: {report:#?}");
    }
}

#[test]
fn a_key_that_vanished_loses_all_its_writes() {
    let mut execution = execute(1, ROUGH, None);
    execution.state.keys.remove(&2);
    let acked = |op: &&OpRecord| op.kind == Kind::Put && op.outcome == Outcome::Ok && op.key == 2;
    let expected = execution.ops.iter().filter(acked).count() as u64;
    assert_eq!(audited(&execution).lost_writes, expected);
}

#[test]
fn a_state_from_before_the_last_write_is_a_lost_write() {
    for seed in 0..SEEDS {
        let mut execution = execute(seed, CERTAIN, None);
        let puts = execution.ops.iter().filter(|op| op.kind == Kind::Put && op.revision > 0);
        let mut of_key: Vec<_> = puts.filter(|op| op.key == 0).collect();
        of_key.sort_by_key(|op| op.revision);
        let [.., before, _last] = of_key[..] else { continue };
        let (sequence, revision) = (before.sequence, before.revision);
        let held = execution.state.keys.get_mut(&0).unwrap();
        held.value = ReadValue::Written(sequence);
        (held.version, held.mod_revision) = (held.version - 1, revision);
        let report = audited(&execution);
        assert_eq!(report.lost_writes, 1, "seed {seed}: {report:#?}");
    }
}

#[test]
fn a_stale_read_is_found() {
    let mut planted = 0;
    for seed in 0..SEEDS {
        let mut execution = execute(seed, ROUGH, None);
        let ops = &execution.ops;
        // A get, and a put on its key that was acknowledged before the get was sent.
        let stale = ops.iter().position(|get| {
            get.kind == Kind::Get
                && get.outcome == Outcome::Ok
                && ops.iter().any(|put| {
                    put.kind == Kind::Put
                        && (put.key, put.outcome) == (get.key, Outcome::Ok)
                        && put.completed_ns < get.sent_ns
                })
        });
        let Some(stale) = stale else { continue };
        planted += 1;
        execution.ops[stale].read = Some(ReadValue::Absent);
        execution.ops[stale].revision = 0;
        let report = audited(&execution);
        let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [FindingKind::StaleRead], "seed {seed}: {report:#?}");
    }
    assert!(planted > SEEDS / 2);
}

#[test]
fn revisions_against_real_time_and_shared_revisions_are_found() {
    for seed in 0..SEEDS {
        let mut execution = execute(seed, ROUGH, None);
        let acked = |op: &OpRecord| op.kind == Kind::Put && op.outcome == Outcome::Ok;
        let ops = &execution.ops;
        let (mut first, mut second) = (0, 0);
        'search: for a in 0..ops.len() {
            for b in 0..ops.len() {
                if acked(&ops[a]) && acked(&ops[b]) && ops[a].completed_ns < ops[b].sent_ns {
                    (first, second) = (a, b);
                    break 'search;
                }
            }
        }
        let (low, high) = (execution.ops[first].revision, execution.ops[second].revision);
        assert!(low < high, "seed {seed}: the store itself is right");
        (execution.ops[first].revision, execution.ops[second].revision) = (high, low);
        let kinds: Vec<_> = audited(&execution).findings.iter().map(|f| f.kind).collect();
        assert!(kinds.contains(&FindingKind::RevisionOrder), "seed {seed}: {kinds:?}");
        (execution.ops[first].revision, execution.ops[second].revision) = (high, high);
        let kinds: Vec<_> = audited(&execution).findings.iter().map(|f| f.kind).collect();
        assert!(kinds.contains(&FindingKind::RevisionReused), "seed {seed}: {kinds:?}");
    }
}

#[test]
fn values_from_nowhere_and_from_the_future_are_found() {
    let mut execution = execute(5, CERTAIN, None);
    let get = execution.ops.iter().position(|op| op.read.is_some()).unwrap();
    let (key, done_ns) = (execution.ops[get].key, execution.ops[get].completed_ns);
    execution.ops[get].read = Some(ReadValue::Foreign);
    assert_eq!(audited(&execution).findings[0].kind, FindingKind::ForeignValue);
    let later = execution.ops.iter().find(|op| {
        op.kind == Kind::Put && op.outcome == Outcome::Ok && op.key == key && op.sent_ns > done_ns
    });
    let (sequence, revision) = later.map(|op| (op.sequence, op.revision)).unwrap();
    execution.ops[get].read = Some(ReadValue::Written(sequence));
    execution.ops[get].revision = revision;
    let kinds: Vec<_> = audited(&execution).findings.iter().map(|f| f.kind).collect();
    assert!(kinds.contains(&FindingKind::ReadFromTheFuture), "{kinds:?}");
    execution.ops[get].outcome = Outcome::Fail;
    execution.state.foreign.push("test/x".to_owned());
    let report = audited(&execution);
    assert_eq!((report.findings[0].kind, report.findings_total), (FindingKind::ForeignValue, 1));
}
