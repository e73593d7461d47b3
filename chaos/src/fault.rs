//! What every fault is, and what it needs from whoever runs it.

use std::time::Instant;

use crate::journal::{Noted, Undo};
use crate::{Error, Victim};

/// A fault on one victim. Its life: `available`, the undo noted in the journal, `inject`,
/// `verify` and then `watch` while it holds, `heal`.
pub trait Fault: Send {
    /// Onto whom; the first of them, where one fault strikes several.
    fn victim(&self) -> &Victim;

    /// Whether it can be applied now; also remembers how the victim looked before.
    fn available(&mut self) -> Result<(), Error>;

    /// What undoes it; to be noted before `inject`, which asks for the note.
    fn undo(&self) -> Undo;

    /// Applies it. That this returns `Ok` proves nothing.
    fn inject(&mut self, noted: &Noted) -> Result<(), Error>;

    /// Looks from outside until the fault is seen to bite, or until `deadline`.
    fn verify(&mut self, witness: &mut dyn Witness, deadline: Instant) -> Finding;

    /// Looks again, to be called now and then while it holds: what comes and goes meanwhile, such as
    /// a connection, is in no look at the end.
    fn watch(&mut self) {}

    /// Undoes it, after a last look at whether it still held.
    fn heal(&mut self, restarter: &dyn Restarter) -> Result<Healed, Error>;
}

/// Whether a fault bit, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// It bit.
    pub effective: bool,
    /// With its numbers; where it did not bite, what was seen instead.
    pub seen: String,
}

/// How a fault ended.
#[derive(Clone, Debug)]
pub struct Healed {
    /// The victim as it runs now.
    pub victim: Victim,
    /// It had held until it was undone.
    pub held: bool,
    /// What was seen at its end.
    pub seen: String,
}

/// Starts a node again as it was started before.
pub trait Restarter {
    /// The node's new process.
    fn restart(&self, node: &str) -> Result<Victim, Error>;
}

/// Asks the victim's peers. Called again and again until they noticed.
pub trait Witness {
    /// What they say now.
    fn ask(&mut self) -> Testimony;
}

/// What the victim's peers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// They noticed; how.
    Noticed(String),
    /// They carry on as if nothing were; what they say.
    NotYet(String),
    /// Nothing need be noticed, by the fault's own nature; why.
    NotAsked(String),
}

/// The seeded bug of the feature `seeded-bugs`: a fault that does nothing. Verification must
/// catch it.
#[doc(hidden)]
pub fn does_nothing() -> bool {
    is_planted("fault-does-nothing")
}

/// Another: a fault that does half of what it should.
pub(crate) fn does_half() -> bool {
    is_planted("fault-does-half")
}

/// A bug that was asked for by name.
pub(crate) fn is_planted(name: &str) -> bool {
    #[cfg(feature = "seeded-bugs")]
    return std::env::var_os("RAFTBENCH_SEEDED_BUG").is_some_and(|bug| bug == name);
    #[cfg(not(feature = "seeded-bugs"))]
    {
        let _ = name;
        false
    }
}
