//! The way of a request to the leader.
//!
//! Invariant: who follows it tries a request again only where it was told that the request was not
//! taken; how long that may go on is bounded.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::{Shared, no_leader, stopped};
use crate::driver::{Refusal, View};
use crate::peers::Route;

/// How long to wait for news of a leader that could not be reached, or says that it does not lead.
const SECOND_LOOK: Duration = Duration::from_millis(10);

/// Where the leader is.
pub(super) enum Place {
    Here,
    There(Route),
}

/// From one guess to the next.
pub(super) struct Way<'a> {
    shared: &'a Shared,
    /// Whether it may lead to another member. Not for a request that a peer passed on already.
    forwards: bool,
    view: watch::Receiver<View>,
    deadline: Option<Instant>,
    /// Whether there was a guess, and whether it named anyone.
    guessed: Option<bool>,
}

impl<'a> Way<'a> {
    pub(super) fn new(shared: &'a Shared, forwards: bool) -> Self {
        Self { shared, forwards, view: shared.view.clone(), deadline: None, guessed: None }
    }

    /// The next place to try. All that were given before did not take the request.
    pub(super) async fn next(&mut self) -> Result<Place, Status> {
        loop {
            if let Some(named) = self.guessed.take() {
                if !self.forwards {
                    return Err(Refusal::NotLeader.into());
                }
                self.wait_for_news(named).await?;
            }
            let leader = self.view.borrow_and_update().leader;
            self.guessed = Some(leader.is_some());
            match leader {
                Some(leader) if leader == self.shared.id => return Ok(Place::Here),
                Some(leader) if self.forwards => {
                    let link = self.shared.links.find(leader);
                    if let Some(route) = link.and_then(|link| link.route()) {
                        return Ok(Place::There(route));
                    }
                }
                _ => {}
            }
        }
    }

    async fn wait_for_news(&mut self, leader_was_named: bool) -> Result<(), Status> {
        let patience = self.shared.leader_patience;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + patience);
        let mut until = deadline;
        if leader_was_named {
            until = until.min(Instant::now() + SECOND_LOOK);
        }
        match tokio::time::timeout_at(until, self.view.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(stopped()),
            Err(_) if until == deadline => Err(no_leader()),
            Err(_) => Ok(()),
        }
    }
}
