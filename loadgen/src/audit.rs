//! The audit: every acknowledged write is accounted for in what the keys hold after the run.
//!
//! Invariant: sound. A finding is a contradiction between what the servers said and what they
//! hold, for which no correct store has an excuse; an unknown write may have happened at any time
//! after it was sent, or never. What the evidence leaves open is not a finding. Pure: it reads
//! records and a final state, and asks nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use history::{Kind, Outcome};
use serde::{Deserialize, Serialize};

use crate::record::{OpRecord, ReadValue};
use crate::spec::Keys;

mod final_state;
mod real_time;
#[cfg(test)]
mod tests;

pub use final_state::{FinalKey, FinalState, read_final_state};

/// What the audit says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Pass if there is no finding.
    pub verdict: AuditVerdict,
    /// Puts that ended ok, warm-up too.
    pub acked_writes: u64,
    /// Of them, those that the evidence shows not to be there, at least.
    pub lost_writes: u64,
    /// Puts that may have happened.
    pub unknown_writes: u64,
    /// Puts that provably never happened.
    pub failed_writes: u64,
    /// Keys that the run wrote or read.
    pub keys: u64,
    /// How many findings there are; the report holds [`MAX_FINDINGS`] at most.
    pub findings_total: u64,
    /// The gravest first.
    pub findings: Vec<Finding>,
}

/// Pass or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditVerdict {
    /// Every acknowledged write is accounted for.
    Pass,
    /// There are contradictions.
    Fail,
}

/// One contradiction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule it breaks.
    pub kind: FindingKind,
    /// The key.
    pub key: String,
    /// The operations' numbers ([`OpRecord::sequence`]).
    pub operations: Vec<u64>,
    /// What contradicts what.
    pub sentence: String,
}

/// The rules, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A write that was acknowledged, or read by someone, is not there.
    LostWrite,
    /// A write took effect more than once.
    DuplicateWrite,
    /// A write that provably never happened did.
    FailedWriteHappened,
    /// A value that no write of this run wrote to this key.
    ForeignValue,
    /// Two writes have one revision.
    RevisionReused,
    /// A later write has a smaller revision than was known before it was sent.
    RevisionOrder,
    /// A linearizable read saw less than was known before it was sent.
    StaleRead,
    /// A read saw a write that was not sent yet.
    ReadFromTheFuture,
}

/// A report holds no more findings than this.
pub const MAX_FINDINGS: usize = 20;
/// Nor more of one kind, so that one broken answer does not crowd out what it led to.
const MAX_OF_KIND: usize = 5;

/// Audits a run. `ops` are all of it, warm-up too; `state` was read after it, linearizably.
pub fn audit(keys: &Keys, ops: &[OpRecord], state: &FinalState) -> AuditReport {
    let mut audit = Audit::new(keys, ops);
    for name in &state.foreign {
        audit.find(FindingKind::ForeignValue, name.clone(), &[], || {
            "a key that this run did not write lies under its prefix".to_owned()
        });
    }
    audit.check_reads();
    for (key, held) in &state.keys {
        audit.check_value(*key, held.value, held.mod_revision, None);
    }
    real_time::check(&mut audit);
    for key in audit.writes_of_key.keys().copied().collect::<BTreeSet<_>>() {
        audit.check_key(key, state.keys.get(&key));
    }
    audit.report(ops)
}

/// The evidence, as far as it was read, and what it contradicts.
struct Audit<'a> {
    keys: &'a Keys,
    ops: &'a [OpRecord],
    /// Every put, by its number.
    writes: HashMap<u64, &'a OpRecord>,
    writes_of_key: HashMap<u32, Vec<&'a OpRecord>>,
    /// At which revision a write was seen: by its own acknowledgement, a read, or in the end.
    revision_of: HashMap<u64, i64>,
    /// Which write was seen at a revision.
    write_at: HashMap<i64, u64>,
    lost: u64,
    findings: Vec<Finding>,
}

impl<'a> Audit<'a> {
    fn new(keys: &'a Keys, ops: &'a [OpRecord]) -> Self {
        let puts = || ops.iter().filter(|op| op.kind == Kind::Put);
        let mut writes_of_key: HashMap<u32, Vec<&OpRecord>> = HashMap::new();
        puts().for_each(|op| writes_of_key.entry(op.key).or_default().push(op));
        let mut audit = Self {
            keys,
            ops,
            writes: puts().map(|op| (op.sequence, op)).collect(),
            writes_of_key,
            revision_of: HashMap::new(),
            write_at: HashMap::new(),
            lost: 0,
            findings: Vec::new(),
        };
        puts().filter(|op| op.outcome == Outcome::Ok).for_each(|op| audit.place(op, op.revision));
        audit
    }

    fn find(
        &mut self,
        kind: FindingKind,
        key: impl Into<String>,
        operations: &[u64],
        sentence: impl FnOnce() -> String,
    ) {
        let (key, operations) = (key.into(), operations.to_vec());
        self.findings.push(Finding { kind, key, operations, sentence: sentence() });
    }

    /// Notes that a write was seen at a revision. A write has one revision, and a revision one
    /// write, in all that anyone ever saw.
    fn place(&mut self, write: &OpRecord, revision: i64) {
        let (sequence, key) = (write.sequence, self.keys.name(write.key));
        let first = *self.revision_of.entry(sequence).or_insert(revision);
        if first != revision {
            self.find(FindingKind::DuplicateWrite, key, &[sequence], || {
                format!("put {sequence} was seen at revision {first} and at revision {revision}")
            });
            return;
        }
        let other = *self.write_at.entry(revision).or_insert(sequence);
        if other != sequence {
            self.find(FindingKind::RevisionReused, key, &[other, sequence], || {
                format!("put {other} and put {sequence} were both seen at revision {revision}")
            });
        }
    }

    fn check_reads(&mut self) {
        for op in self.ops {
            if let (Outcome::Ok, Some(read)) = (op.outcome, op.read) {
                self.check_value(op.key, read, op.revision, Some(op));
            }
        }
    }

    /// Checks a value that a read (`None`: the reading after the run) saw on a key.
    fn check_value(&mut self, key: u32, seen: ReadValue, revision: i64, by: Option<&OpRecord>) {
        let who = by.map_or("the final state".to_owned(), |op| format!("get {}", op.sequence));
        let name = self.keys.name(key);
        let reader = by.map(|op| op.sequence);
        let sequence = match seen {
            ReadValue::Absent => return,
            ReadValue::Written(sequence) => sequence,
            ReadValue::Foreign => {
                let operations: Vec<u64> = reader.into_iter().collect();
                return self.find(FindingKind::ForeignValue, name, &operations, || {
                    format!("{who} has a value that no put of this run wrote")
                });
            }
        };
        let operations: Vec<u64> = reader.into_iter().chain([sequence]).collect();
        let Some(write) = self.writes.get(&sequence).copied().filter(|put| put.key == key) else {
            return self.find(FindingKind::ForeignValue, name, &operations, || {
                format!("{who} has the value of {sequence}, which is no put on this key")
            });
        };
        if write.outcome == Outcome::Fail {
            return self.find(FindingKind::FailedWriteHappened, name, &operations, || {
                format!("{who} has the value of put {sequence}, which failed and so never happened")
            });
        }
        let read_by_ns = by.and_then(|op| op.completed_ns);
        if let (Some(read_ns), Some(sent_ns)) = (read_by_ns, write.sent_ns)
            && read_ns < sent_ns
        {
            return self.find(FindingKind::ReadFromTheFuture, name, &operations, || {
                format!("{who} ended at {read_ns} ns and read put {sequence}, sent at {sent_ns} ns")
            });
        }
        self.place(write, revision);
    }

    /// Accounts for the writes of one key.
    fn check_key(&mut self, key: u32, held: Option<&FinalKey>) {
        let writes = self.writes_of_key[&key].clone();
        let acked: Vec<_> = writes.iter().filter(|op| op.outcome == Outcome::Ok).collect();
        // What took effect for certain: acknowledged, or seen by someone.
        let happened: Vec<(i64, &OpRecord)> = writes
            .iter()
            .filter_map(|op| Some((*self.revision_of.get(&op.sequence)?, *op)))
            .collect();
        let possible = writes.iter().filter(|op| op.outcome != Outcome::Fail).count() as i64;
        let Some(held) = held else {
            self.lost += acked.len() as u64;
            if let Some((_, last)) = happened.iter().max_by_key(|(revision, _)| *revision) {
                let (last, count) = (last.sequence, happened.len());
                self.find(FindingKind::LostWrite, self.keys.name(key), &[last], || {
                    format!("the key is absent, but {count} puts happened, put {last} the last")
                });
            }
            return;
        };
        let name = self.keys.name(key);
        let mut lost = BTreeSet::new();
        // Nothing that happened is newer than what is there.
        for (revision, write) in happened.iter().filter(|(at, _)| *at > held.mod_revision) {
            lost.extend((write.outcome == Outcome::Ok).then_some(write.sequence));
            self.find(FindingKind::LostWrite, name.clone(), &[write.sequence], || {
                format!(
                    "put {} happened at revision {revision}, but the key was last changed at {}",
                    write.sequence, held.mod_revision
                )
            });
        }
        // Nor older than the key itself: these keys are never deleted.
        for (revision, write) in happened.iter().filter(|(at, _)| *at < held.create_revision) {
            lost.extend((write.outcome == Outcome::Ok).then_some(write.sequence));
            self.find(FindingKind::LostWrite, name.clone(), &[write.sequence], || {
                format!(
                    "put {} happened at revision {revision}, but the key was created at {}",
                    write.sequence, held.create_revision
                )
            });
        }
        lost.extend(self.overtaken(key, held, &acked));
        let (least, version) = (happened.len() as i64, held.version);
        if version < least {
            self.find(FindingKind::LostWrite, name, &[], || {
                format!("the key is at version {version}, but {least} puts to it happened")
            });
        } else if version > possible {
            self.find(FindingKind::DuplicateWrite, name, &[], || {
                format!(
                    "the key is at version {version}, but only {possible} puts can have happened"
                )
            });
        }
        self.lost += (lost.len() as i64).max(least - version).clamp(0, acked.len() as i64) as u64;
    }

    /// Acknowledged writes sent after the final value's own write was acknowledged. By real time
    /// alone, without any revision, one of them must be there instead.
    fn overtaken(&mut self, key: u32, held: &FinalKey, acked: &[&&OpRecord]) -> Option<u64> {
        let ReadValue::Written(sequence) = held.value else { return None };
        let done_ns =
            self.writes.get(&sequence).filter(|op| op.outcome == Outcome::Ok)?.completed_ns?;
        let later = acked.iter().filter(|op| op.sent_ns.is_some_and(|sent| sent > done_ns));
        let last = later.max_by_key(|op| op.sent_ns)?.sequence;
        self.find(FindingKind::LostWrite, self.keys.name(key), &[sequence, last], || {
            format!("the key holds put {sequence}, but put {last} was sent after it was acknowledged, and was acknowledged too")
        });
        Some(last)
    }

    fn report(mut self, ops: &[OpRecord]) -> AuditReport {
        let count =
            |outcome| self.writes.values().filter(|op| op.outcome == outcome).count() as u64;
        let (acked_writes, unknown_writes, failed_writes) =
            (count(Outcome::Ok), count(Outcome::Unknown), count(Outcome::Fail));
        let keys: BTreeSet<u32> = ops.iter().map(|op| op.key).collect();
        self.findings.sort();
        let findings_total = self.findings.len() as u64;
        let verdict =
            if self.findings.is_empty() { AuditVerdict::Pass } else { AuditVerdict::Fail };
        let mut of_kind: BTreeMap<FindingKind, usize> = BTreeMap::new();
        self.findings.retain(|finding| {
            let seen = of_kind.entry(finding.kind).or_default();
            *seen += 1;
            *seen <= MAX_OF_KIND
        });
        self.findings.truncate(MAX_FINDINGS);
        AuditReport {
            verdict,
            acked_writes,
            lost_writes: self.lost,
            unknown_writes,
            failed_writes,
            keys: keys.len() as u64,
            findings_total,
            findings: self.findings,
        }
    }
}
