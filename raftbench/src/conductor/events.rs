//! Leadership events: the servers' own words, read from their logs after the run.
//!
//! Invariant: an event's time is the server's own, put on the run's clock, with its resolution
//! beside it; nothing here comes from polling.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use loadgen::clock::RunClock;

use super::targets::{Launcher, Member};
use crate::evidence::{EventRecord, EventRole};

/// What a line of a log says about leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogLine {
    pub(super) unix_ns: i128,
    pub(super) role: EventRole,
    pub(super) term: u64,
    pub(super) leader: Option<Who>,
    pub(super) reason: String,
    pub(super) resolution_us: u64,
}

/// A member, as a log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Name(String),
    Id(u64),
}

/// The events of all members' logs, by time. `names` has the members' names by their ids.
pub(super) fn read_logs(
    members: &[Member],
    launcher: &dyn Launcher,
    names: &HashMap<u64, String>,
    clock: &RunClock,
) -> anyhow::Result<Vec<EventRecord>> {
    let mut events = Vec::new();
    for Member { name: node, log: path, .. } in members {
        let failed = || format!("cannot read the log of {node}, {}", path.display());
        let mut log = BufReader::new(std::fs::File::open(path).with_context(failed)?);
        let mut line = Vec::new();
        // A node that was killed may have left half a line, even half a character.
        while log.read_until(b'\n', &mut line).with_context(failed)? > 0 {
            if let Some(said) = launcher.read_log_line(String::from_utf8_lossy(&line).trim_end()) {
                let leader = leader(&said, node, names);
                events.push(EventRecord {
                    t_ns: clock.ns_of_unix(said.unix_ns),
                    node: node.clone(),
                    role: said.role,
                    term: said.term,
                    leader,
                    reason: said.reason,
                    resolution_us: said.resolution_us,
                });
            }
            line.clear();
        }
    }
    events.sort_by_key(|event| event.t_ns);
    Ok(events)
}

/// The leader that `node` named. One that says it leads means itself, known by its id or not.
fn leader(said: &LogLine, node: &str, names: &HashMap<u64, String>) -> Option<String> {
    let named = said.leader.as_ref().and_then(|who| match who {
        Who::Name(name) => Some(name.clone()),
        Who::Id(id) => names.get(id).cloned(),
    });
    named.or_else(|| (said.role == EventRole::Leader).then(|| node.to_owned()))
}

/// An RFC 3339 time in UTC, in ns since the Unix epoch.
pub(super) fn unix_ns(rfc3339: &str) -> Option<i128> {
    let time = humantime::parse_rfc3339(rfc3339).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_nanos() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_named_by_its_id_and_names_itself() {
        let names = HashMap::from([(7, "n1".to_owned())]);
        let by = |role, id| {
            let leader = Some(Who::Id(id));
            let reason = String::new();
            let said = LogLine { unix_ns: 0, role, term: 2, leader, reason, resolution_us: 1 };
            super::leader(&said, "n2", &names)
        };
        assert_eq!(by(EventRole::Follower, 7).as_deref(), Some("n1"));
        assert_eq!(by(EventRole::Follower, 8), None);
        assert_eq!(by(EventRole::Leader, 8).as_deref(), Some("n2"));
    }
}
