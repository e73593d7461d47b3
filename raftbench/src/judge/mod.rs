//! From what was observed to what it means: a pure function.
//!
//! Invariant: the same plan and the same observations give the same summary. Every number of a
//! report is made here, and only here; the definitions stand beside the code that follows them.
//! (One thing rests on the machine too: a history so hard that the check of its linearizability
//! runs out of time is undecided. It is never pass here and fail there.)

mod checks;
mod counters;
mod disk;
mod faults;
mod gap;
#[cfg(test)]
mod hand_made;
mod histograms;
mod lag;
mod outage;
mod quantile;
mod resources;
mod scope;
mod steps;
pub mod summary;
mod thresholds;
mod verdict;

use loadgen::spec::Arrivals;
use loadgen::summary::{LoadSummary, generator_cpu_share};

use crate::evidence::{EventRole, Observed};
use crate::plan::Plan;
use gap::Gaps;
use outage::Service;
use scope::Span;
use summary::{ErrorCount, Load, ScopeName, Stability, Summary};
use thresholds::{MetricNames, Scope};

/// Version of `summary.json`.
const SCHEMA: u32 = 1;
/// Distinct errors that a summary shows.
const MAX_ERRORS: usize = 10;

/// Judges a run.
pub fn judge(plan: &Plan, observed: &Observed) -> Summary {
    let measured = Span { start_ns: 0, end_ns: plan.load.measure.as_nanos() as i64 };
    let windows = scope::fault_windows(&observed.faults, measured);
    let outside = scope::outside(measured, &windows);
    let timeout_ns = plan.load.timeout.as_nanos() as i64;
    let ops = &observed.load.ops;
    let first_fault_ns = windows.iter().map(|window| window.start_ns).min();
    let late_after_ns = match (plan.expect.late_after_ms, first_fault_ns) {
        (Some(ms), _) => (ms * 1e6) as i64,
        (None, Some(end_ns)) => outage::late_after_ns(ops, end_ns, timeout_ns),
        (None, None) => outage::late_after_without_baseline_ns(ops, measured, timeout_ns),
    };
    let service = Service::new(ops, measured, late_after_ns, timeout_ns);
    let gaps = Gaps::new(ops, measured);
    let (faults, fault_outages): (Vec<_>, Vec<_>) =
        faults::faults(observed, &service, &gaps, measured).into_iter().unzip();
    let fault_series = faults::series(&faults, &observed.faults);
    let fault_outages: Vec<_> = fault_outages.into_iter().flatten().collect();
    let excused: Vec<Span> = fault_outages.iter().map(|outage| outage.span).collect();
    let scopes = [
        Scope { name: ScopeName::OutsideFaults, spans: &outside, excused: &excused, measured },
        Scope { name: ScopeName::WholeRun, spans: &[measured], excused: &[], measured },
    ];
    let thresholds: Vec<_> =
        scopes.iter().flat_map(|scope| thresholds::thresholds(plan, observed, scope)).collect();
    let observations =
        scopes.iter().flat_map(|scope| thresholds::observations(plan, observed, scope)).collect();
    let mut outages = service.outages();
    outages.extend(fault_outages);
    let open_outage =
        outages.iter().filter(|outage| outage.at_least).map(|o| o.span.ms()).reduce(f64::max);
    let outages: Vec<Span> = outages.into_iter().map(|outage| outage.span).collect();
    let stability = Stability {
        leader_changes: leader_changes(plan, observed, measured),
        term_growth: term_growth(observed, measured),
        longest_outage_ms: outages.iter().map(Span::ms).fold(0.0, f64::max),
        unavailable_ms: scope::total_ms(&scope::union(&outages)),
        late_after_ms: service.late_after_ns() as f64 / 1e6,
        fault_windows_s: scope::total_ms(&scope::union(&windows)) / 1e3,
        quiet_gap_ms: gaps.of_quiet(&quiet(&gaps, &windows, measured)),
    };

    let load = LoadSummary::new(&plan.load, &observed.load);
    let checks = checks::checks(plan, observed);
    let findings = verdict::Findings {
        thresholds: &thresholds,
        faults: &faults,
        checks: &checks,
        problems: &observed.problems,
        scheduled: load.scheduled,
        ok: load.ok,
        longest_outage_ms: stability.longest_outage_ms,
        open_outage_ms: open_outage,
        unseen_faults: unseen_faults(observed, &service, &gaps, measured),
        measured_s: measured.ms() / 1e3,
        disks_off: disk::off_the_model(observed.disk.as_ref()),
        generator_past_limit: load.generator_past_limit(plan.load.arrivals),
    };
    let (verdict, reasons) = verdict::decide(plan, &findings);
    Summary {
        schema: SCHEMA,
        profile: plan.profile.clone(),
        description: plan.description.clone(),
        target: plan.cluster.target.name().into(),
        target_version: observed.target_version.clone(),
        api: plan.api.title().into(),
        nodes: observed.nodes.len(),
        seed: plan.seed,
        verdict,
        reasons,
        unsafe_settings: plan.cluster.unsafe_settings(),
        warnings: warnings(plan, observed, late_after_ns),
        thresholds,
        observations,
        load: load_figures(plan, observed, load),
        write_steps: steps::write_steps(&observed.samples, measured),
        stability,
        network: observed.network.clone(),
        disk: observed.disk.clone(),
        faults,
        fault_series,
        checks,
        resources: resources::resources(
            &observed.samples,
            measured,
            MetricNames::of(plan, &observed.samples).wal_fsync(),
        ),
    }
}

/// What no fault's gap is looked for in.
fn quiet(gaps: &Gaps, windows: &[Span], measured: Span) -> Vec<Span> {
    let looked: Vec<Span> =
        windows.iter().map(|window| gaps.window(*window, measured.end_ns)).collect();
    scope::outside(measured, &looked)
}

/// New leaders in the measured phase: by the servers' events (each term has one leader at most),
/// else by their counters.
fn leader_changes(plan: &Plan, observed: &Observed, measured: Span) -> Option<u64> {
    if !observed.events.is_empty() {
        let mut terms: Vec<u64> = observed
            .events
            .iter()
            .filter(|event| event.role == EventRole::Leader && measured.contains(event.t_ns))
            .map(|event| event.term)
            .collect();
        terms.sort_unstable();
        terms.dedup();
        return Some(terms.len() as u64);
    }
    let name = MetricNames::of(plan, &observed.samples).leader_changes();
    let counter = |sample: &crate::evidence::MetricSample| sample.values.get(name).copied();
    counters::largest_growth(&observed.samples, &[measured], i64::MAX, counter)
        .map(|growth| growth as u64)
}

fn term_growth(observed: &Observed, measured: Span) -> Option<u64> {
    counters::largest_shared_growth(&observed.samples, &[measured], i64::MAX, |sample| {
        sample.status.map(|status| status.term as f64)
    })
    .map(|growth| growth as u64)
}

fn load_figures(plan: &Plan, observed: &Observed, figures: LoadSummary) -> Load {
    let (arrivals, hides_stalls) = match plan.load.arrivals {
        Arrivals::Constant { .. } => ("constant", false),
        Arrivals::Poisson { .. } => ("poisson", false),
        Arrivals::Closed { .. } => ("closed", true),
    };
    let mut counts = vec![0_u64; observed.load.errors.len()];
    for op in observed.load.ops.iter().filter(|op| op.intended_ns >= 0) {
        if let Some(count) = op.error.and_then(|error| counts.get_mut(usize::from(error))) {
            *count += 1;
        }
    }
    let mut errors: Vec<ErrorCount> = observed
        .load
        .errors
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(text, count)| ErrorCount { text: text.clone(), count })
        .collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then(a.text.cmp(&b.text)));
    errors.truncate(MAX_ERRORS);
    Load {
        arrivals: arrivals.into(),
        hides_stalls,
        generator_cpu_share: generator_cpu_share(&observed.load),
        figures,
        errors,
    }
}

/// Less stolen CPU than this is no news.
const STOLEN_WORTH_TELLING: f64 = 0.02;

/// Faults in whose window no linearizable operation was due: nobody can say how long they lasted
/// for clients.
fn unseen_faults(
    observed: &Observed,
    service: &Service<'_>,
    gaps: &Gaps,
    measured: Span,
) -> Vec<String> {
    let windows = scope::fault_windows(&observed.faults, measured);
    let windows = windows.into_iter().map(|window| gaps.window(window, measured.end_ns));
    let unseen = observed.faults.iter().zip(windows).filter(|(_, window)| !service.sees(*window));
    unseen.map(|(fault, _)| fault.id.clone()).collect()
}

fn warnings(plan: &Plan, observed: &Observed, late_after_ns: i64) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(data_dir) = observed.data_dir.as_ref().filter(|data_dir| data_dir.tmpfs) {
        warnings.push(format!(
            "the data directories are on {}: a sync there is not one",
            data_dir.filesystem
        ));
    }
    if let Some(share) = observed.stolen_cpu_share.filter(|share| *share >= STOLEN_WORTH_TELLING) {
        warnings.push(format!(
            "the hypervisor gave {:.0} % of this machine's CPU to others while the load ran: what is \
             slow here may be their doing",
            share * 100.0
        ));
    }
    let network = observed.network.iter().flat_map(|network| &network.round_trips);
    for trip in network.filter(|trip| !trip.is_as_asked()) {
        warnings.push(format!(
            "{} to {}: a round trip was {:.3} ms, and {:.3} ms were asked for",
            trip.from, trip.to, trip.measured_ms, trip.asked_ms
        ));
    }
    warnings.extend(disk::warnings(observed.disk.as_ref()));
    if matches!(plan.load.arrivals, Arrivals::Closed { .. }) {
        warnings.push("closed loop: the latencies hide stalls".into());
    }
    if plan.expect.late_after_ms.is_none() && late_after_ns > outage::LEAST_LATE_AFTER_NS {
        warnings.push(format!(
            "the baseline was slow: only what takes longer than 10 x its p99, {} ms, counts as late, \
             and outages look shorter for it; expect.late_after_ms sets a fixed bound",
            late_after_ns / 1_000_000
        ));
    }
    warnings
}
