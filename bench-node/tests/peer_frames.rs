//! Bytes from a peer: whatever a frame holds, decoding it ends in messages or in an error, never in a
//! panic; and what is a batch says the same after it was sent on.
//!
//! The corpus is batches of every kind of message, changed by a seeded generator.

use std::panic::catch_unwind;

use api::peer::PeerBatch;
use bench_node::store::{Heartbeat, HeartbeatAnswer};
use bench_node::wire::{decode_batch, encode, encode_answer, encode_heartbeat};
use bytes::Bytes;
use prost::Message as _;
use raft::{Body, Entry, Membership, Message, Payload};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// `FRAME_ROUNDS=10000000` goes further, `FRAME_ROUND=7` does one again.
const ROUNDS: u64 = 200_000;
const FROM: u64 = 1;
const TO: u64 = 2;

#[test]
fn changed_frames_are_batches_or_refused() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let rounds = match number("FRAME_ROUND") {
        Some(round) => round..round + 1,
        None => 0..number("FRAME_ROUNDS").unwrap_or(ROUNDS),
    };
    let corpus: Vec<Vec<u8>> = corpus().iter().map(PeerBatch::encode_to_vec).collect();
    let (mut unreadable, mut refused, mut messages) = (0_u64, 0_u64, 0_usize);
    for round in rounds.clone() {
        let bytes = changed(&corpus, round);
        let outcome = catch_unwind(|| read(&bytes)).unwrap_or_else(|_| {
            panic!("FRAME_ROUND={round} cargo test --release -p bench-node --test peer_frames")
        });
        match outcome {
            Read::Unreadable => unreadable += 1,
            Read::Refused => refused += 1,
            Read::Messages(count) => messages += count,
        }
    }
    println!("{messages} messages; {refused} batches refused, {unreadable} frames unreadable");
    // The changes reach all there is to reach.
    let whole = rounds.end - rounds.start;
    let enough = messages as u64 > whole / 10 && refused > whole / 200 && unreadable > whole / 20;
    assert!(whole == 1 || enough, "{messages}, {refused}, {unreadable}");
}

#[test]
fn what_is_sent_is_received() {
    for batch in corpus() {
        let again = PeerBatch::decode(&*batch.encode_to_vec()).expect("as encoded");
        assert_eq!(again, batch);
        decode_batch(FROM, TO, again).expect("every message is known");
    }
}

enum Read {
    Unreadable,
    Refused,
    Messages(usize),
}

fn read(bytes: &[u8]) -> Read {
    let Ok(frame) = PeerBatch::decode(bytes) else { return Read::Unreadable };
    let Ok(batch) = decode_batch(FROM, TO, frame) else { return Read::Refused };
    let count = batch.messages.len() + batch.heartbeats.len() + batch.answers.len();
    let sent = PeerBatch {
        messages: batch.messages.iter().cloned().map(|(g, message)| encode(g, message)).collect(),
        heartbeats: batch.heartbeats.iter().copied().map(encode_heartbeat).collect(),
        answers: batch.answers.iter().copied().map(encode_answer).collect(),
    };
    let sent = PeerBatch::decode(&*sent.encode_to_vec()).expect("as encoded");
    assert_eq!(decode_batch(FROM, TO, sent).expect("it was a batch"), batch);
    Read::Messages(count)
}

fn corpus() -> Vec<PeerBatch> {
    let entry = |index, payload| Entry { term: 3, index, payload };
    let membership = Membership {
        voters: vec![1, 2, 3],
        outgoing: vec![1, 4],
        learners: vec![5],
        context: Bytes::new(),
    };
    let entries = vec![
        entry(8, Payload::Noop),
        entry(9, Payload::Data(Bytes::from_static(b"a command"))),
        entry(10, Payload::Membership(membership)),
    ];
    let empty = Vec::new();
    let bodies = [
        Body::Append { prev_index: 7, prev_term: 2, entries, commit: 6, read_round: 5 },
        Body::Append { prev_index: 7, prev_term: 2, entries: empty, commit: 6, read_round: 5 },
        Body::AppendAccepted { match_index: 9, read_round: 5 },
        Body::AppendRejected { prev_index: 7, hint_index: 4, hint_term: 1, read_round: 5 },
        Body::Vote { pre_vote: true, transfer: false, last_index: 1, last_term: 2 },
        Body::Vote { pre_vote: false, transfer: true, last_index: 1, last_term: 2 },
        Body::VoteReply { pre_vote: false, granted: true },
        Body::TimeoutNow,
    ];
    let message = |body: Body<Bytes>| Message { from: FROM, to: TO, term: 3, body };
    let each = bodies.iter().enumerate().map(|(group, body)| PeerBatch {
        messages: vec![encode(group as u64, message(body.clone()))],
        ..PeerBatch::default()
    });
    let heartbeat =
        Heartbeat { group: 4, term: 3, prev_index: 7, prev_term: 2, commit: 6, read_round: 5 };
    let answer = HeartbeatAnswer { group: 4, term: 3, match_index: 7, read_round: 5 };
    let all = PeerBatch {
        messages: bodies.iter().cloned().map(|body| encode(0, message(body))).collect(),
        heartbeats: vec![encode_heartbeat(heartbeat); 3],
        answers: vec![encode_answer(answer); 3],
    };
    each.chain([all]).collect()
}

fn changed(corpus: &[Vec<u8>], round: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(round);
    let mut bytes = corpus.choose(&mut rng).expect("some").clone();
    for _ in 0..rng.random_range(1..=2) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(0..12)).min(bytes.len());
        match rng.random_range(0..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, rng.random()),
            3 => {
                let other = corpus.choose(&mut rng).expect("some");
                let from = rng.random_range(0..=other.len());
                let to = rng.random_range(from..=other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            // Small numbers, where kinds, lengths and counts are.
            4 if at < bytes.len() => bytes[at] = rng.random_range(0..16),
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ => {}
        }
    }
    bytes
}
