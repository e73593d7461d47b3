//! What the nodes say of themselves when asked: Status of all of them, and what follows from it.
//!
//! Invariant: the leader is the node that says so in the highest term that any node knows. A node
//! that leads in a lower term has been deposed and does not know it yet.

use std::time::Duration;

use loadgen::clock::RunClock;
use loadgen::target::admin;

use super::door::Door;
use crate::evidence::NodeStatus;

/// A node's answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) node: String,
    pub(super) member_id: u64,
    /// 0: it knows of none.
    pub(super) leader_id: u64,
    pub(super) status: NodeStatus,
}

/// The answers of those that answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) answers: Vec<Answer>,
}

impl View {
    /// The highest term that anyone knows.
    pub(super) fn term(&self) -> Option<u64> {
        self.answers.iter().map(|answer| answer.status.term).max()
    }

    /// Who leads in that term.
    pub(super) fn leader(&self) -> Option<&Answer> {
        let term = self.term()?;
        self.answers.iter().find(|answer| answer.status.is_leader && answer.status.term == term)
    }

    /// What `node` answered.
    pub(super) fn of(&self, node: &str) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.node == node)
    }
}

/// A node as it is asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) node: String,
    /// Where it answers clients.
    pub(super) client: String,
    pub(super) door: Door,
}

impl Asked {
    /// Asks it.
    pub(super) async fn ask(&self, clock: &RunClock, timeout: Duration) -> Result<Answer, String> {
        let Self { node, client, door } = self;
        let asked_ns = clock.now_ns();
        let call = async {
            let stream = door.connect(client).await.map_err(|error| error.to_string())?;
            admin::status_over(stream, client, timeout).await.map_err(|error| error.to_string())
        };
        // The limit is on the whole: connecting to a stopped process succeeds, and then nothing
        // comes.
        let answer = match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer?,
            Err(_) => return Err(format!("{node} ({client}) gave no status in {timeout:?}")),
        };
        let member_id = answer.header.map_or(0, |header| header.member_id);
        let status = NodeStatus {
            asked_ns,
            answered_ns: clock.now_ns(),
            term: answer.raft_term,
            is_leader: answer.leader != 0 && answer.leader == member_id,
            index: answer.raft_index,
            applied_index: answer.raft_applied_index,
        };
        Ok(Answer { node: node.clone(), member_id, leader_id: answer.leader, status })
    }
}

/// Asks all of `nodes` at once.
pub(super) async fn view(nodes: &[Asked], clock: &RunClock, timeout: Duration) -> View {
    let mut calls = tokio::task::JoinSet::new();
    for asked in nodes {
        let (asked, clock) = (asked.clone(), *clock);
        calls.spawn(async move { asked.ask(&clock, timeout).await });
    }
    let mut answers: Vec<_> =
        calls.join_all().await.into_iter().filter_map(|answer| answer.ok()).collect();
    answers.sort_by(|a, b| a.node.cmp(&b.node));
    View { answers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: &str, term: u64, is_leader: bool) -> Answer {
        let status = NodeStatus { term, is_leader, ..NodeStatus::default() };
        Answer { node: node.to_owned(), member_id: 0, leader_id: 0, status }
    }

    #[test]
    fn a_deposed_leader_does_not_lead() {
        let mut view = View { answers: vec![answer("n1", 4, true), answer("n2", 5, false)] };
        assert_eq!(view.term(), Some(5));
        assert_eq!(view.leader(), None);
        view.answers.push(answer("n3", 5, true));
        assert_eq!(view.leader().map(|leader| leader.node.as_str()), Some("n3"));
    }
}
