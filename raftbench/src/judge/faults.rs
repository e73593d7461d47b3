//! What came of each fault, and of those that repeat together.

use super::gap::{Gaps, spread_ms};
use super::outage::{Outage, Service};
use super::scope::{Span, fault_windows};
use super::summary::{Fault, FaultSeries};
use crate::evidence::{EventRecord, EventRole, FaultRecord, Observed};

/// Each fault with its outages, in the order of injection.
pub(super) fn faults(
    observed: &Observed,
    service: &Service<'_>,
    gaps: &Gaps,
    measured: Span,
) -> Vec<(Fault, Vec<Outage>)> {
    let windows = fault_windows(&observed.faults, measured);
    observed
        .faults
        .iter()
        .zip(windows)
        .map(|(record, window)| {
            let outages = service.outages_of(window);
            let next_ns = next_injected_ns(record, observed);
            let mut fault = fault(record, observed, service, &outages, next_ns);
            let gap_window = gaps.window(window, next_ns);
            fault.longest_gap_ms = gaps.longest_ns(gap_window).map(|ns| ns as f64 / 1e6);
            let ends = outages.iter().map(|outage| outage.span.end_ns);
            let until_ns = ends.fold(gap_window.end_ns.max(window.end_ns), i64::max);
            // What is due after the next injection counts as that fault's.
            fault.operations_lost = service.lost(window.start_ns, until_ns.min(next_ns));
            (fault, outages)
        })
        .collect()
}

fn fault(
    record: &FaultRecord,
    observed: &Observed,
    service: &Service<'_>,
    outages: &[Outage],
    next_ns: i64,
) -> Fault {
    let longest = outages.iter().max_by_key(|outage| outage.span.end_ns - outage.span.start_ns);
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
        operations_lost: 0,
        longest_gap_ms: None,
        election_terms: election
            .zip(record.term_at_injection)
            .map(|(event, before)| event.term.saturating_sub(before)),
    }
}

fn next_injected_ns(record: &FaultRecord, observed: &Observed) -> i64 {
    let injections = observed.faults.iter().map(|other| other.injected_ns);
    injections.filter(|other| *other > record.injected_ns).min().unwrap_or(i64::MAX)
}

/// Each fault that the profile repeats.
pub(super) fn series(faults: &[Fault], records: &[FaultRecord]) -> Vec<FaultSeries> {
    let mut ids: Vec<&str> = Vec::new();
    for fault in faults {
        if let Some((id, _)) = fault.id.split_once('.')
            && !ids.contains(&id)
        {
            ids.push(id);
        }
    }
    let of = |id: &str| {
        let ours: Vec<&Fault> = faults
            .iter()
            .filter(|fault| fault.id.split_once('.').is_some_and(|(i, _)| i == id))
            .collect();
        let record = records.iter().find(|record| record.id == ours[0].id);
        let spread = |value: fn(&Fault) -> Option<f64>| {
            spread_ms(ours.iter().filter_map(|fault| value(fault)).map(|ms| (ms * 1e6) as i64))
        };
        let terms: Vec<u64> = ours.iter().filter_map(|fault| fault.election_terms).collect();
        FaultSeries {
            id: id.to_owned(),
            kind: ours[0].kind.clone(),
            target: record.map_or_else(String::new, |record| record.target.clone()),
            times: ours.len() as u64,
            effective: ours.iter().filter(|fault| fault.effective).count() as u64,
            outage_ms: spread(|fault| Some(fault.outage_ms)),
            first_success_ms: spread(|fault| fault.first_success_ms),
            election_ms: spread(|fault| fault.election_ms),
            longest_gap_ms: spread(|fault| fault.longest_gap_ms),
            split_votes: (!terms.is_empty())
                .then(|| terms.iter().filter(|terms| **terms > 1).count() as u64),
            operations_lost: ours.iter().map(|fault| fault.operations_lost).sum(),
        }
    };
    ids.into_iter().map(of).collect()
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
        let gaps = Gaps::new(&ops, measured);
        let faults: Vec<Fault> = faults(&observed, &service, &gaps, measured)
            .into_iter()
            .map(|(fault, _)| fault)
            .collect();
        let seen: Vec<_> = faults.iter().map(|f| (f.outage_ms, f.operations_lost)).collect();
        assert_eq!(seen, [(1200.0, 1200), (700.0, 700)]);
        assert_eq!(faults[0].first_success_ms, Some(1201.0));
        assert_eq!(faults[0].longest_gap_ms, Some(1201.0));
        assert_eq!(faults[0].target, "leader (n1)");
    }

    #[test]
    fn what_repeats_is_told_together_and_a_second_term_is_a_split_vote() {
        let ops = op_every_ms(0..20_000, |ms| match ms {
            3000..4200 | 12_000..12_700 => Op::Unknown,
            _ => Op::Ok { took_ms: 1 },
        });
        let measured = Span { start_ns: 0, end_ns: 20 * S };
        let service = Service::new(&ops, measured, 100 * MS, 5 * S);
        let observed = Observed {
            faults: vec![
                kill("f1.1", 3, Some(2)),
                kill("f1.2", 12, Some(4)),
                kill("f2", 18, Some(5)),
            ],
            events: vec![
                event(4100, "n3", EventRole::Leader, 4),
                event(12_500, "n2", EventRole::Leader, 5),
            ],
            ..Observed::default()
        };
        let gaps = Gaps::new(&ops, measured);
        let faults: Vec<Fault> = faults(&observed, &service, &gaps, measured)
            .into_iter()
            .map(|(fault, _)| fault)
            .collect();
        let series = series(&faults, &observed.faults);
        assert_eq!(series.len(), 1, "f2 came once");
        let of = &series[0];
        assert_eq!((of.id.as_str(), of.target.as_str()), ("f1", "leader"));
        assert_eq!((of.times, of.effective, of.operations_lost), (2, 2, 1900));
        assert_eq!(of.split_votes, Some(1), "term 2 to 4");
        let outage = of.outage_ms.expect("two");
        assert_eq!((outage.p50, outage.max), (700.0, 1200.0));
        assert_eq!(of.election_ms.expect("two").max, 1100.0);
    }
}
