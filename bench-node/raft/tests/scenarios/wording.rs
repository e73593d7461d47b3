//! How a scenario file words what members do. An entry is `index@term`.

use raft::{
    Body, Effects, Entry, Event, Message, NodeId, Payload, PeerState, PeerStatus, ReadOutcome,
    Role, Status,
};

use crate::harness::Command;

/// Everything that came of a turn; `briefly`, only roles, commits and reads.
pub(crate) fn effects(id: NodeId, effects: &Effects<Command>, briefly: bool) -> Vec<String> {
    let mut lines: Vec<_> = effects.events.iter().map(|event| self::event(id, event)).collect();
    if !briefly {
        if let Some(write) = &effects.write {
            let hard_state = write.hard_state.map(|state| {
                let vote = state.voted_for.map_or("no vote".into(), |vote| format!("vote {vote}"));
                format!(" term {}, {vote}", state.term)
            });
            let hard_state = hard_state.unwrap_or_default();
            lines.push(format!("{id}: write {}:{hard_state}{}", write.id, entries(&write.entries)));
        }
        lines.extend(effects.messages.iter().map(message));
    }
    if let (Some(first), Some(last)) = (effects.committed.first(), effects.committed.last()) {
        lines.push(match first.index == last.index {
            true => format!("{id}: commits {}", first.index),
            false => format!("{id}: commits {} to {}", first.index, last.index),
        });
    }
    lines.extend(effects.reads.iter().map(|read| match read {
        ReadOutcome::Ready { context, index } => format!("{id}: read {context} ready at {index}"),
        ReadOutcome::Lost { context } => format!("{id}: read {context} lost"),
    }));
    lines
}

pub(crate) fn message(message: &Message<Command>) -> String {
    let Message { from, to, term, body } = message;
    let what = match body {
        Body::Vote { pre_vote, last_index, last_term } => {
            let ask = if *pre_vote { "would you vote" } else { "vote" };
            format!("{ask}? my log ends at {last_index}@{last_term}")
        }
        Body::VoteReply { pre_vote, granted } => {
            let answer = if *granted { "yes" } else { "no" };
            format!("{}{answer}", if *pre_vote { "would vote: " } else { "vote: " })
        }
        Body::Append { prev_index, prev_term, entries, commit, read_round } => format!(
            "append after {prev_index}@{prev_term}{}, commit {commit}{}",
            self::entries(entries),
            round(*read_round)
        ),
        Body::AppendAccepted { match_index, read_round } => {
            format!("accepted up to {match_index}{}", round(*read_round))
        }
        Body::AppendRejected { hint_index: 0, .. } => "rejected, your term is over".into(),
        Body::AppendRejected { prev_index, hint_index, hint_term: 0, read_round } => {
            format!(
                "rejected after {prev_index}, log begins to lack {hint_index}{}",
                round(*read_round)
            )
        }
        Body::AppendRejected { prev_index, hint_index, hint_term, read_round } => format!(
            "rejected after {prev_index}, there is term {hint_term} from {hint_index}{}",
            round(*read_round)
        ),
    };
    format!("{from} -> {to}: term {term}: {what}")
}

pub(crate) fn status(id: NodeId, status: &Status) -> String {
    format!(
        "{id}: {}, term {}, log to {}, durable to {}, committed to {}",
        role(status.role, status.leader, id),
        status.term,
        status.last_index,
        status.persisted_index,
        status.commit_index
    )
}

pub(crate) fn peer(id: NodeId, peer: &PeerStatus) -> String {
    let state = match peer.state {
        PeerState::Probe => "probes",
        PeerState::Replicate => "sends on to",
    };
    format!(
        "{id}: {state} {}, equal to {}, next {}, {} on their way",
        peer.id, peer.match_index, peer.next_index, peer.in_flight
    )
}

fn event(id: NodeId, event: &Event) -> String {
    format!(
        "{id}: {}, term {} ({:?})",
        role(event.role, event.leader, id),
        event.term,
        event.reason
    )
}

fn role(role: Role, leader: Option<NodeId>, id: NodeId) -> String {
    match (role, leader) {
        (Role::Follower, Some(leader)) => format!("follows {leader}"),
        (Role::Follower, None) => "follows no one".into(),
        (Role::PreCandidate, _) => "asks whether it could win".into(),
        (Role::Candidate, _) => "campaigns".into(),
        (Role::Leader, leader) => {
            assert_eq!(leader, Some(id));
            "leads".into()
        }
    }
}

fn entries(entries: &[Entry<Command>]) -> String {
    let entry = |entry: &Entry<Command>| {
        let payload = match &entry.payload {
            Payload::Noop => "noop",
            Payload::Data(command) => &command.0,
            Payload::Membership(_) => "membership",
        };
        format!(" [{}@{} {payload}]", entry.index, entry.term)
    };
    entries.iter().map(entry).collect()
}

fn round(round: u64) -> String {
    if round == 0 { String::new() } else { format!(", round {round}") }
}
