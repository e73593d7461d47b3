//! What came of each fault.

use super::outage::{Outage, Service};
use super::scope::{Span, fault_windows};
use super::summary::Fault;
use crate::evidence::{EventRecord, EventRole, FaultRecord, Observed};

/// Each fault with its outages, in the order of injection.
pub(super) fn faults(
    observed: &Observed,
    service: &Service<'_>,
    measured: Span,
) -> Vec<(Fault, Vec<Outage>)> {
    let windows = fault_windows(&observed.faults, measured);
    observed
        .faults
        .iter()
        .zip(windows)
        .map(|(record, window)| {
            let outages = service.outages_of(window);
            (fault(record, observed, service, &outages), outages)
        })
        .collect()
}

fn fault(
    record: &FaultRecord,
    observed: &Observed,
    service: &Service<'_>,
    outages: &[Outage],
) -> Fault {
    let longest = outages.iter().max_by_key(|outage| outage.span.end_ns - outage.span.start_ns);
    let injections = observed.faults.iter().map(|other| other.injected_ns);
    let next_ns = injections.filter(|other| *other > record.injected_ns).min().unwrap_or(i64::MAX);
    let election = election(record, &observed.events, next_ns);
    Fault {
        id: record.id.clone(),
        kind: record.kind.clone(),
        target: match record.victims.as_slice() {
            [only] if *only == record.target => only.clone(),
            victims => format!("{} ({})", record.target, victims.join(", ")),
        },
        injected_s: seconds(record.injected_ns),
        healed_s: record.healed_ns.map(seconds),
        recovered_s: record.recovered_ns.map(seconds),
        effective: record.effective,
        proof: record.proof.clone(),
        outage_ms: longest.map_or(0.0, |outage| outage.span.ms()),
        outage_at_least: longest.is_some_and(|outage| outage.at_least),
        first_success_ms: service.first_success_ns(record.injected_ns).map(|ns| ns as f64 / 1e6),
        election_ms: election.map(|event| (event.t_ns - record.injected_ns) as f64 / 1e6),
        election_resolution_ms: election.map(|event| event.resolution_us as f64 / 1e3),
        operations_lost: outages.iter().map(|outage| outage.operations_lost).sum(),
    }
}

/// The first leader of a higher term than at the injection, before the next fault.
fn election<'a>(
    record: &FaultRecord,
    events: &'a [EventRecord],
    next_ns: i64,
) -> Option<&'a EventRecord> {
    let leaders = || events.iter().filter(|event| event.role == EventRole::Leader);
    let before = || leaders().filter(|event| event.t_ns < record.injected_ns);
    let term = record.term_at_injection.or_else(|| before().map(|event| event.term).max())?;
    leaders()
        .filter(|event| event.term > term && (record.injected_ns..next_ns).contains(&event.t_ns))
        .min_by_key(|event| event.t_ns)
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::hand_made::{MS, Op, S, op_every_ms};

    fn event(t_ms: i64, node: &str, role: EventRole, term: u64) -> EventRecord {
        EventRecord {
            t_ns: t_ms * MS,
            node: node.into(),
            role,
            term,
            leader: None,
            reason: String::new(),
            resolution_us: 1,
        }
    }

    fn kill(id: &str, injected_s: i64, term: Option<u64>) -> FaultRecord {
        FaultRecord {
            id: id.into(),
            kind: "kill".into(),
            target: "leader".into(),
            victims: vec!["n1".into()],
            injected_ns: injected_s * S,
            term_at_injection: term,
            leader_at_injection: Some("n1".into()),
            effective: true,
            proof: "gone".into(),
            healed_ns: Some((injected_s + 2) * S),
            recovered_ns: Some((injected_s + 3) * S),
        }
    }

    #[test]
    fn an_election_is_the_first_leader_of_a_higher_term_before_the_next_fault() {
        let events = [
            event(-2000, "n1", EventRole::Leader, 2),
            event(3900, "n2", EventRole::Candidate, 3),
            event(4100, "n3", EventRole::Leader, 4),
            event(9000, "n2", EventRole::Leader, 5),
        ];
        let ms = |record: &FaultRecord, next| {
            election(record, &events, next).map(|event| event.t_ns / MS - record.injected_ns / MS)
        };
        assert_eq!(ms(&kill("f1", 3, Some(2)), i64::MAX), Some(1100));
        assert_eq!(ms(&kill("f1", 3, None), i64::MAX), Some(1100));
        assert_eq!(ms(&kill("f1", 3, Some(4)), 8 * S), None);
        assert_eq!(ms(&kill("f1", 3, Some(4)), i64::MAX), Some(6000));
    }

    #[test]
    fn each_fault_has_its_own_outage() {
        let ops = op_every_ms(0..20_000, |ms| match ms {
            3000..4200 | 12_000..12_700 => Op::Unknown,
            _ => Op::Ok { took_ms: 1 },
        });
        let measured = Span { start_ns: 0, end_ns: 20 * S };
        let service = Service::new(&ops, measured, 100 * MS, 5 * S);
        let observed = Observed {
            faults: vec![kill("f1", 3, None), kill("f2", 12, None)],
            ..Observed::default()
        };
        let faults: Vec<Fault> =
            faults(&observed, &service, measured).into_iter().map(|(fault, _)| fault).collect();
        let seen: Vec<_> = faults.iter().map(|f| (f.outage_ms, f.operations_lost)).collect();
        assert_eq!(seen, [(1200.0, 1200), (700.0, 700)]);
        assert_eq!(faults[0].first_success_ms, Some(1201.0));
        assert_eq!(faults[0].target, "leader (n1)");
    }
}
