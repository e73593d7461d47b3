//! Seeded bugs of the switch, of the feature `seeded-bugs`: the conformance suite must catch each.
//! Without the feature there are none.

/// What a direction of the switch does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Planted {
    /// It loses nothing.
    pub(super) ignores_loss: bool,
    /// It delays nothing; the other direction of the pair is sound.
    pub(super) ignores_delay: bool,
    /// A packet may overtake those before it.
    pub(super) reorders: bool,
}

impl Planted {
    /// Of the way from port `from` to port `to`.
    #[cfg(feature = "seeded-bugs")]
    pub(super) fn of(from: usize, to: usize) -> Self {
        let bug = std::env::var("RAFTBENCH_SEEDED_BUG").unwrap_or_default();
        Self {
            ignores_loss: bug == "switch-ignores-loss",
            ignores_delay: bug == "switch-delays-one-direction" && from > to,
            reorders: bug == "switch-reorders",
        }
    }

    /// None.
    #[cfg(not(feature = "seeded-bugs"))]
    pub(super) fn of(_from: usize, _to: usize) -> Self {
        Self::default()
    }
}
