//! Planted bugs: proof that the simulation of whole clusters tests something.
//!
//! Invariant: without the feature `seeded-bugs` every question here is the constant `false`.
//! `tests/cluster/planted.rs` states which seed catches which bug.

use super::Options;

/// A bug that can be planted in the layer that holds the groups.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// A message goes to the group behind the one that it is for.
    MessageToTheWrongGroup,
}

impl Options {
    pub(super) fn misroutes(&self) -> bool {
        #[cfg(feature = "seeded-bugs")]
        return self.bug == Some(SeededBug::MessageToTheWrongGroup);
        #[cfg(not(feature = "seeded-bugs"))]
        false
    }
}
