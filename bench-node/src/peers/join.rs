//! A node that was added to a cluster asks who it is.
//!
//! Invariant: an id is taken only from a member that has this node's peer address in its log. Whoever
//! is asked may be behind, so nobody's "no" counts before all had time to catch up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::peer::peer_client::PeerClient;
use api::peer::{FindMemberRequest, FindMemberResponse};
use raft::NodeId;

use super::link::{endpoint, full, keep_alive};
use crate::config::Config;
use crate::error::NodeError;

/// A member that says no was behind, or is right.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the members of the configuration, and those that they name, until one knows. Waits for ever
/// while nobody answers at all.
pub(crate) async fn find_own_id(config: &Config) -> Result<NodeId, NodeError> {
    let own = &config.own().peer;
    let others = config.members.iter().map(|member| member.peer.clone());
    let mut contacts: BTreeSet<String> = others.filter(|peer| peer != own).collect();
    let mut first_no = None;
    let mut taken_says = None;
    let mut told = false;
    loop {
        for contact in contacts.clone() {
            match ask(&contact, config, own).await {
                Ok(Found { id: Some(id), .. }) => {
                    tracing::info!(by = contact, id = format!("{id:016x}"), "known as a member");
                    return Ok(id);
                }
                Ok(Found { id: None, peers, started }) => {
                    first_no.get_or_insert_with(Instant::now);
                    taken_says = started.then(|| contact.clone());
                    contacts.extend(peers.into_iter().filter(|peer| peer != own));
                }
                Err(Unanswered::Refused(reason)) => {
                    return Err(NodeError::Refused { peer: contact, reason });
                }
                Err(Unanswered::Silent(reason)) if !told => {
                    told = true;
                    tracing::warn!(contact, reason, "no answer yet");
                }
                Err(Unanswered::Silent(_)) => {}
            }
        }
        if first_no.is_some_and(|since: Instant| since.elapsed() > PATIENCE) {
            if let Some(peer) = taken_says {
                let reason = format!(
                    "the member at {own} has started before, with a data directory that is not \
                     here: start this node with it, or remove that member and add it again",
                );
                return Err(NodeError::Refused { peer, reason });
            }
            let asked: Vec<_> = contacts.into_iter().collect();
            return Err(NodeError::NotAdded {
                peer: own.clone(),
                name: config.name.clone(),
                asked: asked.join(", "),
            });
        }
        tokio::time::sleep(RETRY).await;
    }
}

struct Found {
    id: Option<NodeId>,
    peers: Vec<String>,
    /// There is one at this address that has started.
    started: bool,
}

enum Unanswered {
    /// It does not belong with us.
    Refused(String),
    Silent(String),
}

async fn ask(contact: &str, config: &Config, own: &str) -> Result<Found, Unanswered> {
    let silent = |error: &dyn std::error::Error| Unanswered::Silent(full(error));
    let endpoint =
        endpoint(contact, keep_alive(config.election_timeout)).map_err(|e| silent(&e))?;
    let channel = endpoint.connect().await.map_err(|e| silent(&e))?;
    let request = FindMemberRequest { cluster_id: config.cluster_id(), peer: own.to_owned() };
    let mut client = PeerClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.find_member(request)).await;
    match answer {
        Err(_) => Err(Unanswered::Silent("it takes too long".to_owned())),
        Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
            Err(Unanswered::Refused(status.message().to_owned()))
        }
        Ok(Err(status)) => Err(silent(&status)),
        Ok(Ok(found)) => {
            let FindMemberResponse { id, peers, started } = found.into_inner();
            Ok(Found { id: Some(id).filter(|id| *id != 0), peers, started })
        }
    }
}
