//! Links that are cut: nothing that is sent over them arrives, for good or off and on. Undone by
//! opening them.
//!
//! The proof is what the hosts' kernels count: one end went on sending, and sent again, and the
//! other got none of it.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fault::{
    Fault, Finding, Healed, Restarter, Testimony, Witness, does_half, does_nothing,
};
use crate::journal::{Noted, Undo};
use crate::lab::ledger::{Look, Passed};
use crate::lab::links::CutId;
use crate::lab::links::flapping::Flapping;
use crate::scene::{LOOK_EVERY, Scene, UNDER_WAY, named, total, unseen, ways};
use crate::{Error, Victim};

/// A partition.
pub struct Cut {
    scene: Scene,
    flap: Option<Flap>,
    begun: Option<(Instant, Begun)>,
    down: Down,
}

/// What was seen of links that come and go while they were down.
#[derive(Default)]
struct Down {
    /// The present time down, by its beginning, and the look that was taken early in it.
    first: Option<(Instant, Look)>,
    /// Times down in which a later look found that nothing had arrived since the first.
    silent: BTreeSet<Instant>,
    /// What had.
    leaked: Option<String>,
}

/// For how long the links of one that comes and goes are down, and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// Cut.
    pub down: Duration,
    /// Open.
    pub up: Duration,
}

enum Begun {
    Steady(CutId),
    Flapping(Flapping),
    /// By a planted bug.
    Nothing,
}

impl Cut {
    /// All the links of `scene`.
    pub fn of(scene: Scene, flap: Option<Flap>) -> Self {
        Self { scene, flap, begun: None, down: Down::default() }
    }

    fn look(&mut self, witness: &mut dyn Witness) -> Result<Finding, Error> {
        let down = self.down_since();
        let Some((settled, now, _)) = self.scene.look()? else {
            return Ok(not("was never looked at before the fault".into()));
        };
        if let Some(since) = down.filter(|_| self.down_since() == down) {
            self.look_while_down(since, &now);
        }
        let talking = self.scene.talking();
        if talking.is_empty() {
            return Ok(not("nobody sends anything over the links that were cut".into()));
        }
        let account = self.account(&settled, &now);
        let leak = match self.flap {
            None => self.leak(&settled, &now),
            Some(_) => self.down.leaked.clone(),
        };
        if let Some(leak) = leak {
            return Ok(not(format!("{leak}; {account}")));
        }
        let sent = |pair: &&(String, String)| {
            let cut = ways(pair).into_iter().filter(|way| self.scene.directions.contains(way));
            let passed = total(cut.map(|way| now.since(&settled, &way)));
            if self.flap.is_some() { passed.again } else { passed.sent }
        };
        let quiet: Vec<_> = talking.iter().filter(|pair| sent(pair) == 0).collect();
        let silent = self.down.silent.len();
        let missing = match self.flap {
            None if quiet.is_empty() => None,
            // Whoever sends little may be spared by links that are up half of the time.
            Some(_) if quiet.len() < talking.len() && silent >= 2 => None,
            Some(_) if quiet.len() < talking.len() => {
                Some(format!("in {silent} times down nothing was seen to arrive, 2 are needed"))
            }
            _ => {
                let pairs = quiet.iter().map(|(one, other)| format!("{one} and {other}"));
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                let what = if self.flap.is_some() { "nothing again" } else { "nothing" };
                Some(format!("{pairs} sent {what} since then"))
            }
        };
        if let Some(missing) = missing {
            return Ok(not(format!("{missing}; {account}")));
        }
        let noticed = match witness.ask() {
            Testimony::Noticed(how) => format!("; {how}"),
            Testimony::NotAsked(_) => String::new(),
            Testimony::NotYet(saw) => {
                return Ok(not(format!("its peers did not notice: {saw}; {account}")));
            }
        };
        let while_down = match self.flap {
            None => String::new(),
            Some(_) => format!("; in {silent} times down 0 arrived"),
        };
        Ok(Finding { effective: true, seen: format!("{account}{while_down}{noticed}") })
    }

    fn down_since(&self) -> Option<Instant> {
        match &self.begun {
            Some((_, Begun::Flapping(flapping))) => flapping.down_since(),
            _ => None,
        }
    }

    /// Takes in a look from within the time down that began at `since`.
    fn look_while_down(&mut self, since: Instant, now: &Look) {
        if since.elapsed() < self.scene.longest() + UNDER_WAY {
            return;
        }
        match &self.down.first {
            Some((begun, first)) if *begun == since => match self.leak(first, now) {
                Some(leak) => self.down.leaked = Some(leak),
                None => drop(self.down.silent.insert(since)),
            },
            _ => self.down.first = Some((since, now.clone())),
        }
    }

    /// What arrived though it should not have.
    fn leak(&self, settled: &Look, now: &Look) -> Option<String> {
        let leaks: Vec<String> = self
            .scene
            .directions
            .iter()
            .map(|direction| (direction, now.since(settled, direction).arrived))
            .filter(|(_, arrived)| *arrived > 0)
            .map(|(direction, arrived)| format!("{arrived} segments from {}", named(direction)))
            .collect();
        (!leaks.is_empty()).then(|| format!("was cut, and yet {} arrived", leaks.join(", ")))
    }

    fn account(&self, settled: &Look, now: &Look) -> String {
        let line = |(direction, passed): (_, Passed)| {
            let Passed { sent, again, arrived, .. } = passed;
            format!("{} {sent} segments ({again} again), {arrived} arrived", named(direction))
        };
        let passed = self.scene.directions.iter().map(|way| (way, now.since(settled, way)));
        let lines: Vec<String> = passed.filter(|(_, p)| p.sent + p.arrived > 0).map(line).collect();
        match lines.is_empty() {
            true => "sockets sent nothing over them".into(),
            false => format!("sockets sent: {}", lines.join("; ")),
        }
    }
}

fn not(seen: String) -> Finding {
    Finding { effective: false, seen }
}

impl Fault for Cut {
    fn victim(&self) -> &Victim {
        self.scene.victim()
    }

    fn available(&mut self) -> Result<(), Error> {
        self.scene.look_before()
    }

    fn undo(&self) -> Undo {
        Undo::OpenLinks
    }

    fn inject(&mut self, _noted: &Noted) -> Result<(), Error> {
        let mut directions = self.scene.directions.clone();
        if does_half() {
            let half = directions.len().div_ceil(2);
            directions = directions.into_iter().take(half).collect();
        }
        let begun = match self.flap {
            _ if does_nothing() => Begun::Nothing,
            None => Begun::Steady(self.scene.network().cut_directions(&directions)?),
            Some(Flap { down, up }) => {
                let network = self.scene.shared_network();
                Begun::Flapping(Flapping::start(network, directions, down, up)?)
            }
        };
        self.begun = Some((Instant::now(), begun));
        Ok(())
    }

    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding {
        if let Err(error) = self.scene.settle(self.scene.longest()) {
            return unseen(&error);
        }
        loop {
            let finding = self.look(witness).unwrap_or_else(|error| unseen(&error));
            if finding.effective || Instant::now() >= deadline {
                return finding;
            }
            // Often enough for two looks in a time down.
            sleep(if self.flap.is_some() { LOOK_EVERY / 2 } else { LOOK_EVERY });
        }
    }

    fn watch(&mut self) {
        // Its last look adds up what was seen; one that fails is told of then.
        self.scene.look().ok();
    }

    fn heal(&mut self, _restarter: &dyn Restarter) -> Result<Healed, Error> {
        let last = self.scene.look();
        let (held, seen) = match self.begun.take() {
            None => (false, "the links were never cut".to_owned()),
            Some((_, Begun::Nothing)) => self.last_look(last),
            Some((_, Begun::Steady(cut))) => {
                self.scene.network().heal(cut)?;
                self.last_look(last)
            }
            Some((since, Begun::Flapping(flapping))) => {
                let cycle = self.flap.map_or(Duration::MAX, |flap| flap.down + flap.up);
                let due = since.elapsed().as_secs_f64() / cycle.as_secs_f64();
                let times = flapping.stop()?;
                // The last turn may just be beginning.
                let held = times as f64 >= (0.9 * due).floor().max(1.0);
                (held, format!("the links were cut {times} times, {due:.1} were due"))
            }
        };
        Ok(Healed { victim: self.scene.victim().clone(), held, seen })
    }
}

impl Cut {
    fn last_look(&self, last: Result<Option<(Look, Look, Duration)>, Error>) -> (bool, String) {
        match last {
            Ok(Some((settled, now, _))) => match self.leak(&settled, &now) {
                Some(leak) => (false, leak),
                None => {
                    let ways = self.scene.directions.iter();
                    let sent = total(ways.map(|way| now.since(&settled, way))).sent;
                    (true, format!("until the links were opened 0 of {sent} segments arrived"))
                }
            },
            Ok(None) => (false, "it was never looked at".into()),
            Err(error) => (false, error.to_string()),
        }
    }
}
