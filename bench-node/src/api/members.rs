//! Changes of the members, brought to the leader: those that clients ask for, and what this member
//! says of itself.
//!
//! Invariant: as for writes (see `super::kv`): an ask goes to another member again only after a proof
//! that it was not taken. Who is answered that a change is done sees it in this member's own list.

use std::sync::Arc;
use std::time::Duration;

use api::members::change_request::Ask as WireAsk;
use api::members::{Add, ChangeRequest, ChangeResponse, List, Publish, Replace, Update};
use api::peer::peer_client::PeerClient;
use raft::Index;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};

use super::forward::is_not_taken;
use super::leader::{Place, Way};
use super::{Shared, connection_lost};
use crate::driver::{Changed, Input, NoChange, Refusal};
use crate::error::NodeError;
use crate::members::{Added, Ask, MembersError, Record, Roster, RostersSeen};
use crate::membership;

/// How long the member that passed a change on waits until its own log has it.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Between attempts to be heard.
const RETRY: Duration = Duration::from_millis(100);

/// What is asked of the leader.
#[derive(Clone, Debug)]
pub(super) enum MembersAsk {
    Change(Ask),
    List,
}

/// Where the members are changed, if this one leads.
#[derive(Clone)]
pub(crate) struct MembersDesk {
    inputs: mpsc::UnboundedSender<Input>,
    rosters: RostersSeen,
}

impl MembersDesk {
    /// Of this member.
    pub(crate) fn new(inputs: mpsc::UnboundedSender<Input>, rosters: RostersSeen) -> Self {
        Self { inputs, rosters }
    }

    /// As another member asks.
    pub(crate) async fn change_here(
        &self,
        request: ChangeRequest,
    ) -> Result<ChangeResponse, Status> {
        let ask = request.ask.ok_or_else(|| {
            Status::unimplemented("an ask of an unknown kind: do all members run the same version?")
        })?;
        let (index, roster) = self.here(of_wire(ask)).await.map_err(Status::from)?;
        let (membership, mut bytes) = (roster.membership(), Vec::new());
        membership::put(&mut bytes, &membership);
        Ok(ChangeResponse { index, membership: bytes.into() })
    }

    async fn here(&self, ask: MembersAsk) -> Result<Changed, NoChange> {
        let stopped = || NoChange::Request(Refusal::Stopped);
        match ask {
            MembersAsk::Change(ask) => {
                let (reply, answer) = oneshot::channel();
                let input = Input::ChangeMembers(ask, reply);
                self.inputs.send(input).map_err(|_| stopped())?;
                answer.await.map_err(|_| stopped())?
            }
            MembersAsk::List => {
                let (reply, answer) = oneshot::channel();
                self.inputs.send(Input::Read(reply)).map_err(|_| stopped())?;
                answer.await.map_err(|_| stopped())?.map_err(NoChange::Request)?;
                let rosters = self.rosters.borrow();
                Ok((rosters.committed_at, Arc::clone(&rosters.committed)))
            }
        }
    }
}

impl Shared {
    /// Brings an ask to the leader; the members when it was answered.
    pub(super) async fn ask_of_leader(&self, ask: MembersAsk) -> Result<Arc<Roster>, Status> {
        let mut way = Way::new(self, true);
        loop {
            match way.next().await? {
                Place::Here => match self.desk.here(ask.clone()).await {
                    Err(NoChange::Request(Refusal::NotLeader)) => {}
                    answer => return Ok(answer.map_err(Status::from)?.1),
                },
                Place::There(route) => {
                    let request = ChangeRequest { ask: Some(to_wire(&ask)) };
                    match PeerClient::new(route.channel).change_members(request).await {
                        Err(status) if is_not_taken(&status) => {}
                        Err(status) if std::error::Error::source(&status).is_some() => {
                            return Err(connection_lost());
                        }
                        Err(status) => return Err(status),
                        Ok(response) => return self.caught_up(response.into_inner()).await,
                    }
                }
            }
        }
    }

    /// The members as of a leader's answer, once this member's own log has them, too.
    async fn caught_up(&self, response: ChangeResponse) -> Result<Arc<Roster>, Status> {
        let garbled = || Status::internal("the leader's answer holds no members");
        let membership = membership::take(&mut response.membership.clone()).ok_or_else(garbled)?;
        let roster = Arc::new(Roster::of(&membership).map_err(|_| garbled())?);
        let mut rosters = self.rosters.clone();
        let (index, told): (Index, _) = (response.index, Arc::clone(&roster));
        // A snapshot tells the members without saying where in the log they came from.
        let seen = rosters.wait_for(move |rosters| {
            rosters.settled && (rosters.committed_at >= index || rosters.committed == told)
        });
        // One that lags for so long answers all the same: the change is done.
        let _ = tokio::time::timeout(CATCH_UP, seen).await;
        Ok(roster)
    }
}

/// Keeps this member's record as its configuration has it, for as long as it runs. An error ends the
/// node.
pub(crate) async fn publish(
    shared: Arc<Shared>,
    own: crate::config::Member,
    incarnation: u64,
) -> NodeError {
    let mut rosters = shared.rosters.clone();
    let mut told = None;
    loop {
        let is_due = |record: &Record| {
            (&record.name, &record.client) != (&own.name, &own.client)
                || record.incarnation != incarnation
        };
        let due = rosters.wait_for(|rosters| {
            rosters.in_force.member(shared.id).is_some_and(|record| {
                if record.peer != own.peer && told.as_ref() != Some(&record.peer) {
                    tracing::warn!(
                        configured = own.peer,
                        known = record.peer,
                        "others reach this member at another address than it is configured with; \
                         tell them: etcdctl member update"
                    );
                    told = Some(record.peer.clone());
                }
                is_due(record)
            })
        });
        if due.await.is_err() {
            // The loop has ended, and so will the node.
            return std::future::pending().await;
        }
        let (name, client) = (own.name.clone(), own.client.clone());
        let ask = Ask::Publish { id: shared.id, name, client, incarnation };
        match shared.ask_of_leader(MembersAsk::Change(ask)).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::FailedPrecondition => {
                return NodeError::NotTaken(status.message().to_owned());
            }
            Err(status) => {
                tracing::debug!(reason = status.message(), "not published yet");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl From<NoChange> for Status {
    fn from(no_change: NoChange) -> Self {
        let error = match no_change {
            NoChange::Request(refusal) => return refusal.into(),
            NoChange::Refused(error) => error,
        };
        let code = match error {
            MembersError::NotFound => Code::NotFound,
            MembersError::Unhealthy | MembersError::VoterNotBound => Code::Unavailable,
            MembersError::NamedTwice(_) => Code::InvalidArgument,
            // etcd means FailedPrecondition, and sends its error without a code (3.4, 3.5).
            MembersError::NotEnoughStarted => Code::Unknown,
            MembersError::IdExists
            | MembersError::PeerExists
            | MembersError::NotLearner
            | MembersError::LearnerNotReady
            | MembersError::TooManyLearners
            | MembersError::NotBound(_)
            | MembersError::NameTaken(_)
            | MembersError::Stranger(_) => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    }
}

fn to_wire(ask: &MembersAsk) -> WireAsk {
    let add =
        |added: &Added| Add { id: added.id, peer: added.peer.clone(), learner: added.learner };
    match ask {
        MembersAsk::List => WireAsk::List(List {}),
        MembersAsk::Change(Ask::Add(added)) => WireAsk::Add(add(added)),
        MembersAsk::Change(Ask::Remove(id)) => WireAsk::Remove(*id),
        MembersAsk::Change(Ask::Promote(id)) => WireAsk::Promote(*id),
        MembersAsk::Change(Ask::Update { id, peer }) => {
            WireAsk::Update(Update { id: *id, peer: peer.clone() })
        }
        MembersAsk::Change(Ask::Publish { id, name, client, incarnation }) => {
            WireAsk::Publish(Publish {
                id: *id,
                name: name.clone(),
                client: client.clone(),
                incarnation: *incarnation,
            })
        }
        MembersAsk::Change(Ask::Replace { voters, learners, added }) => WireAsk::Replace(Replace {
            voters: voters.clone(),
            learners: learners.clone(),
            added: added.iter().map(add).collect(),
        }),
    }
}

fn of_wire(ask: WireAsk) -> MembersAsk {
    let added = |add: Add| Added { id: add.id, peer: add.peer, learner: add.learner };
    MembersAsk::Change(match ask {
        WireAsk::List(List {}) => return MembersAsk::List,
        WireAsk::Add(add) => Ask::Add(added(add)),
        WireAsk::Remove(id) => Ask::Remove(id),
        WireAsk::Promote(id) => Ask::Promote(id),
        WireAsk::Update(Update { id, peer }) => Ask::Update { id, peer },
        WireAsk::Publish(Publish { id, name, client, incarnation }) => {
            Ask::Publish { id, name, client, incarnation }
        }
        WireAsk::Replace(Replace { voters, learners, added: new }) => {
            Ask::Replace { voters, learners, added: new.into_iter().map(added).collect() }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_is_asked_is_passed_on_unchanged() {
        let added = Added { id: 4, peer: "h:4".into(), learner: true };
        let asks = [
            Ask::Add(added.clone()),
            Ask::Remove(1),
            Ask::Promote(4),
            Ask::Update { id: 1, peer: "h:5".into() },
            Ask::Publish { id: 1, name: "n".into(), client: "h:6".into(), incarnation: 7 },
            Ask::Replace { voters: vec![1, 2], learners: vec![3], added: vec![added] },
        ];
        for ask in asks {
            let passed_on = of_wire(to_wire(&MembersAsk::Change(ask.clone())));
            assert!(
                matches!(&passed_on, MembersAsk::Change(same) if *same == ask),
                "{passed_on:?}"
            );
        }
        assert!(matches!(of_wire(to_wire(&MembersAsk::List)), MembersAsk::List));
    }

    /// Nothing else of a membership is looked at by clients.
    #[test]
    fn a_garbled_answer_is_no_list() {
        assert!(membership::take(&mut Bytes::from_static(b"short")).is_none());
    }
}
