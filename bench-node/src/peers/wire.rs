//! Messages between members, and batches of them, to and from protobuf.
//!
//! Invariant: lossless both ways; what does not make sense is an error, never a guess.

use api::peer::{self, message::Body as WireBody};
use bytes::Bytes;
use raft::{Body, Entry, Message, NodeId, Payload};

use crate::members::Roster;
use crate::store::{Batch, Heartbeat, HeartbeatAnswer};
use crate::{GroupId, membership};

/// A message that no member of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No body that this version knows.
    #[error("a message of an unknown kind: do all members run the same version?")]
    UnknownMessage,
    /// No entry kind that this version knows.
    #[error("an entry of unknown kind {0}: do all members run the same version?")]
    UnknownEntry(i32),
    /// A membership that ends early, or goes on behind its end, or whose records are not ours.
    #[error("a membership that makes no sense: do all members run the same version?")]
    Membership,
}

/// A batch as it is received by `to` on the stream of `from`. What another one claims to have sent, or
/// is for another one, is left out.
pub fn decode_batch(from: NodeId, to: NodeId, batch: peer::PeerBatch) -> Result<Batch, WireError> {
    let peer::PeerBatch { messages, heartbeats, answers } = batch;
    let mut decoded = Vec::with_capacity(messages.len());
    for message in messages {
        let (group, message) = decode(message)?;
        if message.from == from && message.to == to {
            decoded.push((group, message));
        }
    }
    let heartbeats = heartbeats.into_iter().map(|heartbeat| {
        let peer::Heartbeat { group, term, prev_index, prev_term, commit, read_round } = heartbeat;
        Heartbeat { group, term, prev_index, prev_term, commit, read_round }
    });
    let answers = answers.into_iter().map(|answer| {
        let peer::HeartbeatAnswer { group, term, match_index, read_round } = answer;
        HeartbeatAnswer { group, term, match_index, read_round }
    });
    let (heartbeats, answers) = (heartbeats.collect(), answers.collect());
    Ok(Batch { from, to, messages: decoded, heartbeats, answers })
}

/// For sending.
pub fn encode_heartbeat(heartbeat: Heartbeat) -> peer::Heartbeat {
    let Heartbeat { group, term, prev_index, prev_term, commit, read_round } = heartbeat;
    peer::Heartbeat { group, term, prev_index, prev_term, commit, read_round }
}

/// For sending.
pub fn encode_answer(answer: HeartbeatAnswer) -> peer::HeartbeatAnswer {
    let HeartbeatAnswer { group, term, match_index, read_round } = answer;
    peer::HeartbeatAnswer { group, term, match_index, read_round }
}

/// For sending.
pub fn encode(group: GroupId, message: Message<Bytes>) -> peer::Message {
    let Message { from, to, term, body } = message;
    let body = match body {
        Body::Vote { pre_vote, transfer, last_index, last_term } => {
            WireBody::Vote(peer::VoteRequest { pre_vote, transfer, last_index, last_term })
        }
        Body::VoteReply { pre_vote, granted } => {
            WireBody::VoteReply(peer::VoteReply { pre_vote, granted })
        }
        Body::Append { prev_index, prev_term, entries, commit, read_round } => {
            let entries = entries.into_iter().map(encode_entry).collect();
            WireBody::Append(peer::Append { prev_index, prev_term, commit, read_round, entries })
        }
        Body::AppendAccepted { match_index, read_round } => {
            WireBody::AppendReply(peer::AppendReply {
                accepted: true,
                index: match_index,
                read_round,
                ..Default::default()
            })
        }
        Body::AppendRejected { prev_index, hint_index, hint_term, read_round } => {
            WireBody::AppendReply(peer::AppendReply {
                accepted: false,
                index: prev_index,
                hint_index,
                hint_term,
                read_round,
            })
        }
        Body::TimeoutNow => WireBody::TimeoutNow(peer::TimeoutNow {}),
        Body::InstallSnapshot(_) => unreachable!("a snapshot goes its own way, see `snapshots`"),
    };
    peer::Message { from, to, term, body: Some(body), group }
}

/// As received; entries are slices of what was received.
fn decode(message: peer::Message) -> Result<(GroupId, Message<Bytes>), WireError> {
    let peer::Message { from, to, term, body, group } = message;
    let body = match body.ok_or(WireError::UnknownMessage)? {
        WireBody::Vote(peer::VoteRequest { pre_vote, transfer, last_index, last_term }) => {
            Body::Vote { pre_vote, transfer, last_index, last_term }
        }
        WireBody::VoteReply(peer::VoteReply { pre_vote, granted }) => {
            Body::VoteReply { pre_vote, granted }
        }
        WireBody::Append(append) => {
            let peer::Append { prev_index, prev_term, commit, read_round, entries } = append;
            let indexes = prev_index.saturating_add(1)..;
            let entries = indexes.zip(entries).map(|(index, entry)| decode_entry(index, entry));
            let entries = entries.collect::<Result<_, _>>()?;
            Body::Append { prev_index, prev_term, entries, commit, read_round }
        }
        WireBody::AppendReply(reply) => {
            let peer::AppendReply { accepted, index, hint_index, hint_term, read_round } = reply;
            if accepted {
                Body::AppendAccepted { match_index: index, read_round }
            } else {
                Body::AppendRejected { prev_index: index, hint_index, hint_term, read_round }
            }
        }
        WireBody::TimeoutNow(peer::TimeoutNow {}) => Body::TimeoutNow,
    };
    Ok((group, Message { from, to, term, body }))
}

fn encode_entry(entry: Entry<Bytes>) -> peer::Entry {
    let (kind, data) = match entry.payload {
        Payload::Noop => (peer::EntryKind::Noop, Bytes::new()),
        Payload::Data(data) => (peer::EntryKind::Data, data),
        Payload::Membership(membership) => {
            let mut data = Vec::with_capacity(membership::encoded_bytes(&membership));
            membership::put(&mut data, &membership);
            (peer::EntryKind::Membership, data.into())
        }
    };
    peer::Entry { term: entry.term, kind: kind.into(), data }
}

fn decode_entry(index: raft::Index, entry: peer::Entry) -> Result<Entry<Bytes>, WireError> {
    let payload = match peer::EntryKind::try_from(entry.kind) {
        Ok(peer::EntryKind::Noop) => Payload::Noop,
        Ok(peer::EntryKind::Data) => Payload::Data(entry.data),
        Ok(peer::EntryKind::Membership) => {
            let mut data = entry.data;
            let membership = membership::take(&mut data).filter(|_| data.is_empty());
            let membership = membership.ok_or(WireError::Membership)?;
            Roster::of(&membership).map_err(|_| WireError::Membership)?;
            Payload::Membership(membership)
        }
        Err(_) => return Err(WireError::UnknownEntry(entry.kind)),
    };
    Ok(Entry { term: entry.term, index, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let entry = |index, payload| Entry { term: 3, index, payload };
        let entries =
            vec![entry(8, Payload::Noop), entry(9, Payload::Data(Bytes::from_static(b"x")))];
        let membership = raft::Membership {
            voters: vec![1, 2],
            outgoing: vec![1, 3],
            learners: vec![4],
            context: Roster::founding(&[]).context(),
        };
        let members = vec![entry(8, Payload::Membership(membership))];
        let bodies = [
            Body::TimeoutNow,
            Body::Append {
                prev_index: 7,
                prev_term: 2,
                entries: members,
                commit: 6,
                read_round: 5,
            },
            Body::Vote { pre_vote: false, transfer: true, last_index: 1, last_term: 2 },
            Body::Vote { pre_vote: true, transfer: false, last_index: 1, last_term: 2 },
            Body::VoteReply { pre_vote: false, granted: true },
            Body::Append { prev_index: 7, prev_term: 2, entries, commit: 6, read_round: 5 },
            Body::AppendAccepted { match_index: 9, read_round: 5 },
            Body::AppendRejected { prev_index: 7, hint_index: 4, hint_term: 1, read_round: 5 },
        ];
        for body in bodies {
            let message = Message { from: 1, to: 2, term: 3, body };
            assert_eq!(decode(encode(7, message.clone())), Ok((7, message)));
        }
    }

    #[test]
    fn a_batch_takes_what_its_stream_is_for() {
        let message = |from, to| Message { from, to, term: 3, body: Body::TimeoutNow };
        let heartbeat =
            Heartbeat { group: 1, term: 2, prev_index: 3, prev_term: 4, commit: 5, read_round: 6 };
        let answer = HeartbeatAnswer { group: 1, term: 2, match_index: 3, read_round: 4 };
        let batch = peer::PeerBatch {
            messages: [(1, 2), (3, 2), (1, 3)]
                .map(|(from, to)| encode(9, message(from, to)))
                .into(),
            heartbeats: vec![encode_heartbeat(heartbeat)],
            answers: vec![encode_answer(answer)],
        };
        let expected = Batch {
            from: 1,
            to: 2,
            messages: vec![(9, message(1, 2))],
            heartbeats: vec![heartbeat],
            answers: vec![answer],
        };
        assert_eq!(decode_batch(1, 2, batch), Ok(expected));
    }

    #[test]
    fn what_this_version_does_not_know_is_refused() {
        let empty = peer::Message { from: 1, to: 2, term: 3, body: None, group: 0 };
        assert_eq!(decode(empty), Err(WireError::UnknownMessage));
        let entries = vec![peer::Entry { term: 1, kind: 7, data: Bytes::new() }];
        let append = peer::Append { entries, ..Default::default() };
        let message = peer::Message { body: Some(WireBody::Append(append)), ..Default::default() };
        assert_eq!(decode(message), Err(WireError::UnknownEntry(7)));
    }
}
