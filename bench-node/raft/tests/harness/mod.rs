//! What the scenarios and the simulation share: members with disks that can lose things, and the
//! checker that watches everything they say and write.

// Each of the two uses a part of it.
#![allow(dead_code)]

pub(crate) mod checker;
pub(crate) mod cluster;
pub(crate) mod disk;

use std::fmt;
use std::rc::Rc;

use raft::NodeId;

/// A command for the state machine; unique within a run.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Command(pub(crate) Rc<str>);

impl AsRef<[u8]> for Command {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who belongs to the group; its context is its text.
pub(crate) type Membership = raft::Membership<Command>;

/// A membership without a change under way.
pub(crate) fn membership(voters: Vec<NodeId>, learners: Vec<NodeId>) -> Membership {
    Membership { voters, outgoing: Vec::new(), learners, context: Command("members".into()) }
}
