//! Who led, and in which term, at any moment: the last two columns of `intervals.csv`.
//!
//! Invariant: a leader is named from its first sign (its own event, or Status) until a fault of
//! ours strikes it or a higher term has another; in between, nobody leads.

use crate::evidence::{EventRole, Observed};

/// What is known from `t_ns` on.
struct Change {
    t_ns: i64,
    /// `None`: the term's leader was struck.
    leader: Option<String>,
    term: u64,
}

/// Looked at in order of time.
pub(super) struct Leadership {
    changes: Vec<Change>,
}

impl Leadership {
    pub(super) fn of(observed: &Observed) -> Self {
        let events = observed.events.iter().filter(|event| event.role == EventRole::Leader);
        let events = events.map(|event| (event.t_ns, event.node.clone(), event.term));
        let seen = observed.samples.iter().filter_map(|sample| {
            let status = sample.status.filter(|status| status.is_leader)?;
            Some((status.answered_ns, sample.node.clone(), status.term))
        });
        let mut signs: Vec<(i64, String, u64)> = events.chain(seen).collect();
        signs.sort();
        let strikes = |from_ns: i64, to_ns: i64, node: &str| {
            let hit = |fault: &&crate::evidence::FaultRecord| {
                (from_ns..to_ns).contains(&fault.injected_ns)
                    && fault.victims.iter().any(|victim| victim == node)
            };
            observed.faults.iter().find(hit).map(|fault| fault.injected_ns)
        };
        let mut changes: Vec<Change> = Vec::new();
        for (index, (t_ns, node, term)) in signs.iter().enumerate() {
            if changes.last().is_some_and(|last| last.term > *term) {
                continue; // An old leader that does not know yet.
            }
            changes.push(Change { t_ns: *t_ns, leader: Some(node.clone()), term: *term });
            let next_ns = signs.get(index + 1).map_or(i64::MAX, |next| next.0);
            if let Some(struck_ns) = strikes(*t_ns, next_ns, node) {
                changes.push(Change { t_ns: struck_ns, leader: None, term: *term });
            }
        }
        Self { changes }
    }

    /// At `t_ns`: the leader, if one was known, and the highest term.
    pub(super) fn at(&self, t_ns: i64) -> (Option<&str>, Option<u64>) {
        let after = self.changes.partition_point(|change| change.t_ns <= t_ns);
        match after.checked_sub(1).map(|index| &self.changes[index]) {
            Some(change) => (change.leader.as_deref(), Some(change.term)),
            None => (None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{EventRecord, FaultRecord};

    #[test]
    fn nobody_leads_between_the_kill_and_the_next_leader() {
        let leader = |t_ns: i64, node: &str, term: u64| EventRecord {
            t_ns,
            node: node.into(),
            role: EventRole::Leader,
            term,
            leader: None,
            reason: String::new(),
            resolution_us: 1,
        };
        let observed = Observed {
            events: vec![leader(-5, "n1", 2), leader(30, "n3", 4), leader(25, "n1", 3)],
            faults: vec![FaultRecord {
                id: "f1".into(),
                kind: "kill".into(),
                target: "leader".into(),
                victims: vec!["n1".into()],
                injected_ns: 10,
                term_at_injection: Some(2),
                leader_at_injection: Some("n1".into()),
                effective: true,
                proof: String::new(),
                healed_ns: None,
                recovered_ns: None,
            }],
            ..Observed::default()
        };
        let leadership = Leadership::of(&observed);
        assert_eq!(leadership.at(-6), (None, None));
        assert_eq!(leadership.at(9), (Some("n1"), Some(2)));
        assert_eq!(leadership.at(10), (None, Some(2)));
        assert_eq!(leadership.at(26), (Some("n1"), Some(3)));
        assert_eq!(leadership.at(99), (Some("n3"), Some(4)));
    }
}
