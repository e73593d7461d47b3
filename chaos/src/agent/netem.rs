//! `sch_netem` at the root of an interface: what happens to packets that the host sends by it.
//!
//! Our mark is the qdisc's handle. Invariants: netem is put only where the kernel's own default is
//! (handle 0), never in another's place; and only a netem with our handle is taken away, which the
//! kernel checks again as it does so. What was before comes back by itself: the default.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::observation::{Seen, median, more_than_half};
use super::order::longest;
use super::traffic::{Passed, Traffic};
use super::undo::Undo;
use super::{Strike, planted};
use crate::Error;
use crate::fault::{does_half, does_nothing};
use crate::journal::Noted;
use crate::lab::Tool;
use crate::lab::links::netem::options;
use crate::lab::links::{Conditions, State};
use api::agent::Observation;

/// Major number of our handle.
const HANDLE: &str = "5ab7:";

/// What round trips may be longer by than asked: busy processes, delayed acknowledgements.
const LONGER_MS: f64 = 45.0;

/// Conditions on one interface.
pub(super) struct Netem {
    interface: String,
    conditions: Conditions,
    traffic: Traffic,
}

impl Netem {
    /// Looks at the interface as it is.
    pub(super) fn prepare(
        interface: String,
        conditions: Conditions,
        own_port: u16,
    ) -> Result<Self, Error> {
        if let Some(root) = root(&interface)?
            && root.handle != "0:"
        {
            let reason = match root.is_ours() {
                true => "has a netem of an agent's already; stop that agent, or let `raftbench \
                         doctor --heal` undo what it left behind"
                    .into(),
                false => format!(
                    "has a root qdisc that somebody configured ({} {}), which netem would replace; \
                     remove it first, or choose another interface",
                    root.kind, root.handle
                ),
            };
            return Err(Error::NotOurs { what: format!("interface {interface}"), reason });
        }
        let traffic = Traffic::of(&interface, None, own_port)?;
        Ok(Self { interface, conditions, traffic })
    }
}

impl Strike for Netem {
    fn undo(&self) -> Undo {
        Undo::Qdisc { interface: self.interface.clone() }
    }

    fn apply(&mut self, _noted: &Noted) -> Result<(), Error> {
        if !does_nothing() {
            let mut conditions = self.conditions;
            if does_half() {
                conditions.delay /= 2;
            }
            let options = options(State::Open(conditions));
            // `add` fails where there is anything but the default.
            let line =
                format!("qdisc add dev {} root handle {HANDLE} netem {options}", self.interface);
            Tool::Tc.batch(&[line])?;
        }
        std::thread::sleep(longest(&self.conditions).min(std::time::Duration::from_secs(1)));
        self.traffic.mark()
    }

    fn observe(&mut self) -> Result<Observation, Error> {
        let passed = self.traffic.look()?;
        let mut seen = Seen::default();
        self.round_trips(&passed, &mut seen);
        self.counts(&passed, &mut seen);
        if let Some(root) = root(&self.interface)?.filter(Qdisc::is_ours) {
            self.speed(&root, &passed, &mut seen);
            seen.figure("qdisc_sent_packets", None, Some(root.packets as f64));
            seen.figure("qdisc_dropped_packets", None, Some(root.drops as f64));
        }
        for (peer, passed) in &passed {
            let (before, now) = (passed.round_trip_before_ms, passed.round_trip_ms);
            seen.figure(format!("{peer} round_trip_ms"), before, now);
            seen.figure(format!("{peer} sent_segments"), None, Some(passed.data_sent as f64));
            seen.figure(format!("{peer} sent_again_segments"), None, Some(passed.again as f64));
        }
        Ok(seen.told())
    }
}

impl Netem {
    fn round_trips(&self, passed: &BTreeMap<IpAddr, Passed>, seen: &mut Seen) {
        // Some packets overtake, and have no delay.
        let delayed = 1.0 - self.conditions.reorder.value();
        let asked_ms = self.conditions.delay.as_secs_f64() * 1e3 * delayed;
        let jitter_ms = self.conditions.jitter.as_secs_f64() * 1e3;
        if asked_ms == 0.0 && jitter_ms == 0.0 {
            return;
        }
        let longer_ms = median(passed.values().filter_map(Passed::longer_ms).collect());
        let Some(longer_ms) = longer_ms else {
            let reads = "too few segments since then, on connections that were there before, to \
                         measure a round trip";
            return seen.part(false, reads.into());
        };
        let least_ms = match asked_ms > 0.0 {
            true => 0.75 * asked_ms,
            // In order, each packet waits for the slowest before it.
            false => 0.5 * jitter_ms,
        };
        let most_ms = asked_ms + 6.0 * jitter_ms + LONGER_MS;
        // A queue that waits for its rate makes it longer as it pleases.
        let right = longer_ms >= least_ms
            && (longer_ms <= most_ms || self.conditions.rate_bits_per_second.is_some());
        seen.part(right, format!("round trips {longer_ms:+.1} ms (asked: {asked_ms:+.1})"));
    }

    fn counts(&self, passed: &BTreeMap<IpAddr, Passed>, seen: &mut Seen) {
        let sum = |count: fn(&Passed) -> u64| passed.values().map(count).sum::<u64>() as f64;
        let sent = sum(|passed| passed.data_sent);
        let lost = self.conditions.loss.share() + self.conditions.corrupt.value();
        for (share, came, what) in [
            (lost, sum(|passed| passed.again), "had to be sent again"),
            (self.conditions.duplicate.value(), sum(|passed| passed.came_twice), "came twice"),
        ] {
            if share > 0.0 {
                let reads =
                    format!("of {sent:.0} segments {came:.0} {what} (asked: {:.0})", sent * share);
                seen.part(came > more_than_half(sent * share), reads);
            }
        }
        if self.conditions.reorder.value() > 0.0 {
            let came = sum(|passed| passed.reordered);
            // How often is for the receiver to say.
            seen.part(came > 0.0, format!("{came:.0} times segments were out of order"));
        }
    }

    fn speed(&self, root: &Qdisc, passed: &BTreeMap<IpAddr, Passed>, seen: &mut Seen) {
        let Some(rate) = self.conditions.rate_bits_per_second else { return };
        let elapsed = self.traffic.elapsed().as_secs_f64();
        let share = 8.0 * root.bytes as f64 / elapsed.max(0.1) / rate as f64;
        let longer_ms = median(passed.values().filter_map(Passed::longer_ms).collect());
        let asked_ms = self.conditions.delay.as_secs_f64() * 1e3;
        let waits_ms = longer_ms.unwrap_or(0.0) - asked_ms;
        let right = elapsed >= 1.0 && (0.7..=1.1).contains(&share) && waits_ms >= 20.0;
        let reads = format!(
            "{:.0} % of the rate is used, and round trips wait {waits_ms:.0} ms for it",
            100.0 * share
        );
        seen.part(right, reads);
    }
}

/// Takes our netem away, if it is there.
pub(super) fn take_away(interface: &str) -> Result<String, Error> {
    let root = match root(interface) {
        Ok(root) => root,
        Err(Error::Iproute { reason, .. }) if reason.contains("Cannot find device") => {
            return Ok(format!("{interface} is gone, and its qdisc with it"));
        }
        Err(error) => return Err(error),
    };
    match root {
        Some(root) if root.is_ours() => {
            let line =
                format!("qdisc del dev {interface} root handle {} {}", root.handle, root.kind);
            Tool::Tc.batch(&[line])?;
            Ok(format!("netem was taken away from {interface}"))
        }
        _ => Ok(format!("{interface} has no netem of ours")),
    }
}

#[derive(Deserialize)]
struct Qdisc {
    kind: String,
    handle: String,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    drops: u64,
}

impl Qdisc {
    fn is_ours(&self) -> bool {
        (self.handle == HANDLE && self.kind == "netem")
            || (planted::takes_any_qdisc() && self.handle != "0:")
    }
}

fn root(interface: &str) -> Result<Option<Qdisc>, Error> {
    let shown = Tool::Tc.json(&["-s", "-j", "qdisc", "show", "dev", interface])?;
    let shown: Vec<Qdisc> = serde_json::from_str(&shown).map_err(|error| Error::Iproute {
        program: "tc",
        reason: format!("its JSON is not as expected: {error}"),
    })?;
    Ok(shown.into_iter().find(|qdisc| qdisc.root))
}
