//! Links that get worse: slower, lossy, out of order. Undone by giving them back what they had.
//!
//! The proof is what the hosts' kernels measure and count on the connections that run over them:
//! round trips, and how many of the segments that one end sent the other got. Every figure is held
//! against what was asked for, so that half of it is not enough. One that the traffic is too thin
//! to tell from half of it counts as not seen.

mod figures;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Instant;

use crate::fault::{Fault, Finding, Healed, Restarter, Witness, does_half, does_nothing};
use crate::journal::{Noted, Undo};
use crate::lab::links::{Conditions, Direction, LayerId, Loss, Overlay};
use crate::scene::{LOOK_EVERY, Scene, unseen};
use crate::{Error, Victim};
use figures::Figures;

/// Other conditions on some links.
pub struct Impair {
    scene: Scene,
    overlay: Overlay,
    /// Of each direction, before and under the fault.
    changes: BTreeMap<Direction, (Conditions, Conditions)>,
    figures: Option<Figures>,
    layer: Option<LayerId>,
}

impl Impair {
    /// `overlay` over all the links of `scene`.
    pub fn of(scene: Scene, overlay: Overlay) -> Self {
        Self { scene, overlay, changes: BTreeMap::new(), figures: None, layer: None }
    }

    fn look(&mut self) -> Result<Finding, Error> {
        let (Some(figures), Some((settled, now, elapsed))) =
            (&mut self.figures, self.scene.look()?)
        else {
            let seen = "was never looked at before the fault".into();
            return Ok(Finding { effective: false, seen });
        };
        Ok(figures.judge(&settled, &now, elapsed))
    }
}

impl Fault for Impair {
    fn victim(&self) -> &Victim {
        self.scene.victim()
    }

    fn available(&mut self) -> Result<(), Error> {
        self.scene.look_before()?;
        let network = self.scene.network();
        let change = |direction: &Direction| {
            let before = network.conditions(direction);
            (direction.clone(), (before, self.overlay.over(before)))
        };
        let changes: BTreeMap<_, _> = self
            .scene
            .directions
            .iter()
            .map(change)
            .filter(|(_, (before, under))| before != under)
            .collect();
        drop(network);
        if changes.is_empty() {
            return Err(Error::Condition {
                what: "a fault of links",
                value: "what the links have already".into(),
                wanted: "something else",
            });
        }
        self.changes = changes;
        Ok(())
    }

    fn undo(&self) -> Undo {
        Undo::OpenLinks
    }

    fn inject(&mut self, _noted: &Noted) -> Result<(), Error> {
        if does_nothing() {
            return Ok(());
        }
        let overlay = if does_half() { half(self.overlay) } else { self.overlay };
        let layer = self.scene.network().lay_over(&self.scene.directions, overlay)?;
        self.layer = Some(layer);
        Ok(())
    }

    fn verify(&mut self, _witness: &mut dyn Witness, deadline: Instant) -> Finding {
        let begun = self.scene.settle(self.scene.longest()).and_then(|()| {
            Figures::begin(self.scene.lab(), self.scene.before(), self.changes.clone())
        });
        match begun {
            Ok(figures) => self.figures = Some(figures),
            Err(error) => return unseen(&error),
        }
        loop {
            let finding = self.look().unwrap_or_else(|error| unseen(&error));
            if finding.effective || Instant::now() >= deadline {
                return finding;
            }
            sleep(LOOK_EVERY);
        }
    }

    fn watch(&mut self) {
        // The last look says what it came to; one that fails is told of then.
        self.look().ok();
    }

    fn heal(&mut self, _restarter: &dyn Restarter) -> Result<Healed, Error> {
        // All that passed while it held, or up to here where it was never seen.
        let last = self.look();
        if let Some(layer) = self.layer.take() {
            self.scene.network().lift(layer)?;
        }
        let last = last.unwrap_or_else(|error| unseen(&error));
        let seen = format!("at the end: {}", last.seen);
        Ok(Healed { victim: self.scene.victim().clone(), held: last.effective, seen })
    }
}

/// The planted bug.
fn half(overlay: Overlay) -> Overlay {
    let halve = |share: crate::lab::links::Share| {
        crate::lab::links::Share::percent("half", share.as_percent() / 2.0).unwrap_or(share)
    };
    Overlay {
        delay: overlay.delay.map(|delay| delay / 2),
        jitter: overlay.jitter.map(|jitter| jitter / 2),
        spread: overlay.spread,
        loss: overlay.loss.map(|loss| match loss {
            Loss::None => Loss::None,
            Loss::Independent(share) => Loss::Independent(halve(share)),
            Loss::Bursts(mut bursts) => {
                bursts.turns_bad = halve(bursts.turns_bad);
                Loss::Bursts(bursts)
            }
        }),
        duplicate: overlay.duplicate.map(halve),
        reorder: overlay.reorder.map(halve),
        corrupt: overlay.corrupt.map(halve),
        rate_bits_per_second: overlay.rate_bits_per_second.map(|rate| 2 * rate),
    }
}
