//! What a member refuses: settings that contradict each other, a log that nobody can have written,
//! and messages that no correct peer sends.

use std::time::Duration;

use raft::{
    Body, Config, ConfigError, Entry, HardState, Membership, Message, Payload, Raft, Recovered,
    Role, Status,
};

type Data = Vec<u8>;

fn settings() -> Config {
    Config::new(1, 7)
}

fn founding() -> Recovered<Data> {
    Recovered::founding(vec![1, 2, 3], Data::new())
}

fn start(config: Config, recovered: Recovered<Data>) -> Result<Raft<Data>, ConfigError> {
    Raft::new(config, recovered, Duration::ZERO)
}

fn log(terms: &[u64]) -> Vec<Entry<Data>> {
    let entry = |(position, &term): (usize, &u64)| Entry {
        term,
        index: position as u64 + 1,
        payload: Payload::Noop,
    };
    terms.iter().enumerate().map(entry).collect()
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = settings();
        change(&mut config);
        start(config, founding()).err()
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|config| config.id = 0), Some(ConfigError::BadMember(0)));
    assert_eq!(
        refused(|config| (config.lease_reads, config.check_quorum) = (true, false)),
        Some(ConfigError::LeaseWithoutCheckQuorum)
    );
    assert_eq!(
        refused(|config| (config.lease_reads, config.failover_hint) = (true, true)),
        Some(ConfigError::LeaseWithFailoverHint)
    );
    assert_eq!(
        refused(|config| config.max_clock_drift_percent = 50),
        Some(ConfigError::BadClockDrift)
    );
    assert_eq!(
        refused(|config| config.heartbeat = Duration::ZERO),
        Some(ConfigError::BadHeartbeat)
    );
    assert_eq!(
        refused(|config| config.heartbeat = config.election_timeout / 2),
        Some(ConfigError::BadHeartbeat)
    );
    assert_eq!(
        refused(|config| config.max_inflight_appends = 0),
        Some(ConfigError::ZeroLimit("max_inflight_appends"))
    );
}

#[test]
fn members_that_contradict_each_other_are_refused() {
    let refused = |voters: &[u64], outgoing: &[u64], learners: &[u64]| {
        let mut recovered = founding();
        recovered.snapshot.membership = Membership {
            voters: voters.to_vec(),
            outgoing: outgoing.to_vec(),
            learners: learners.to_vec(),
            context: Data::new(),
        };
        start(settings(), recovered).err()
    };
    assert_eq!(refused(&[1, 2], &[2, 3], &[3]), None, "a voter on its way to be a learner");
    assert_eq!(refused(&[], &[], &[]), None, "one that waits to be let in");
    assert_eq!(refused(&[1, 2, 2], &[], &[]), Some(ConfigError::BadMember(2)));
    assert_eq!(refused(&[1, 0], &[], &[]), Some(ConfigError::BadMember(0)));
    assert_eq!(refused(&[1, 2], &[3, 3], &[]), Some(ConfigError::BadMember(3)));
    assert_eq!(refused(&[1, 2], &[], &[2]), Some(ConfigError::BadMember(2)));
}

#[test]
fn a_log_that_nobody_can_have_written_is_refused() {
    let refused = |term: u64, entries: Vec<Entry<Data>>| {
        let hard_state = HardState { term, voted_for: None };
        start(settings(), Recovered { hard_state, entries, ..founding() }).err()
    };
    assert_eq!(refused(2, log(&[1, 1, 2])), None);
    assert_eq!(refused(2, log(&[2, 1])), Some(ConfigError::RecoveredTerm(2)));
    assert_eq!(refused(1, log(&[1, 2])), Some(ConfigError::RecoveredTerm(2)));
    assert_eq!(refused(2, log(&[1, 1, 2])[1..].to_vec()), Some(ConfigError::RecoveredGap(1)));
    let text = ConfigError::RecoveredGap(1).to_string();
    assert!(text.contains("index 1"), "{text}");
}

#[test]
fn messages_that_no_correct_peer_sends_change_nothing() {
    let append = |from, to, term, prev_index, entries| Message {
        from,
        to,
        term,
        body: Body::Append { prev_index, prev_term: 1, entries, commit: 9, read_round: 0 },
    };
    let hard_state = HardState { term: 3, voted_for: None };
    let recovered = Recovered { hard_state, entries: log(&[1, 1]), ..founding() };
    let mut raft = start(settings(), recovered).expect("a good start");
    let before = raft.status();
    for message in [
        append(0, 1, 3, 2, vec![]),                     // from nobody
        append(1, 1, 3, 2, vec![]),                     // from itself
        append(2, 3, 3, 2, vec![]),                     // to another
        append(2, 1, 3, 2, log(&[1, 1])),               // indexes that do not follow
        append(2, 1, 3, 1, log(&[1, 4])[1..].to_vec()), // an entry of a later term
        append(2, 1, 3, 0, log(&[3, 2])),               // terms that go down
    ] {
        raft.receive(Duration::ZERO, message);
        assert_eq!(raft.status(), before);
    }
    let effects = raft.ready(Duration::ZERO);
    assert!(effects.write.is_none() && effects.messages.is_empty());
}

#[test]
fn a_leader_ignores_answers_to_what_it_never_sent() {
    let mut raft = start(settings(), founding()).expect("starts");
    let mut now = Duration::ZERO;
    for body in [
        Body::VoteReply { pre_vote: true, granted: true },
        Body::VoteReply { pre_vote: false, granted: true },
    ] {
        if raft.status().role == Role::Follower {
            now = raft.deadline();
            raft.tick(now);
        }
        if let Some(write) = raft.ready(now).write {
            raft.persisted(write.id);
            raft.ready(now);
        }
        raft.receive(now, Message { from: 2, to: 1, term: 1, body });
        if let Some(write) = raft.ready(now).write {
            raft.persisted(write.id);
            raft.ready(now);
        }
    }
    assert_eq!(raft.status().role, Role::Leader);
    for match_index in [2, u64::MAX] {
        let body = Body::AppendAccepted { match_index, read_round: 99 };
        raft.receive(now, Message { from: 2, to: 1, term: 1, body });
    }
    raft.read(5).expect("it leads");
    let effects = raft.ready(now);
    assert!(effects.committed.is_empty() && effects.reads.is_empty());
    let Status { commit_index, .. } = raft.status();
    assert_eq!(commit_index, 0);
}

#[test]
fn a_tick_before_the_deadline_changes_nothing() {
    let mut raft = start(settings(), founding()).expect("starts");
    let deadline = raft.deadline();
    let early = deadline - Duration::from_micros(1);
    raft.tick(early);
    assert_eq!(raft.status().role, Role::Follower);
    assert_eq!(raft.deadline(), deadline);
    assert!(raft.ready(early).messages.is_empty());
    raft.tick(deadline);
    assert_eq!(raft.status().role, Role::PreCandidate);
}

/// It may have promised, before it went down, to elect nobody else; that nobody has its vote in this
/// term says nothing about the leader of an earlier one.
#[test]
fn a_vote_is_refused_while_a_lease_may_rest_on_this_member() {
    let hard_state = HardState { term: 2, voted_for: None };
    let mut config = settings();
    (config.check_quorum, config.lease_reads) = (true, true);
    let over = config.election_timeout;
    let mut raft = start(config, Recovered { hard_state, ..founding() }).expect("starts");
    let body = Body::Vote { pre_vote: false, transfer: false, last_index: 0, last_term: 0 };
    let vote = Message { from: 2, to: 1, term: 2, body };
    let early = over - Duration::from_micros(1);
    raft.receive(early, vote.clone());
    let effects = raft.ready(early);
    assert!(effects.write.is_none() && effects.messages.is_empty());
    raft.receive(over, vote.clone());
    let write = raft.ready(over).write.expect("the vote is written down");
    raft.persisted(write.id);
    let granted = Body::VoteReply { pre_vote: false, granted: true };
    assert_eq!(raft.ready(over).messages[0].body, granted);
    // The candidate may not have heard of it.
    raft.receive(over, vote);
    assert_eq!(raft.ready(over).messages[0].body, granted);
}
