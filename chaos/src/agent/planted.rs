//! What the tests of the agent plant (feature `seeded-bugs`): an end by SIGKILL at a certain point,
//! and bugs that the tests must catch.

use crate::fault::is_planted;

/// The agent dies here, if it was told to.
pub(super) fn die_at(point: &str) {
    #[cfg(feature = "seeded-bugs")]
    if std::env::var_os("RAFTBENCH_AGENT_DIES").is_some_and(|named| named == point) {
        use rustix::process::{Signal, getpid, kill_process};
        kill_process(getpid(), Signal::KILL).ok();
    }
    #[cfg(not(feature = "seeded-bugs"))]
    let _ = point;
}

/// Leases run for ever.
pub(super) fn ignores_leases() -> bool {
    is_planted("agent-ignores-leases")
}

/// Whatever is at the root of an interface is taken for ours.
pub(super) fn takes_any_qdisc() -> bool {
    is_planted("agent-takes-any-qdisc")
}
