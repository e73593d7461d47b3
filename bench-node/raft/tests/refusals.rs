//! What a member refuses: settings that contradict each other, a log that nobody can have written,
//! and messages that no correct peer sends.

use std::time::Duration;

use raft::{
    Body, Config, ConfigError, Entry, HardState, Message, Payload, Raft, Recovered, Role, Status,
};

type Data = Vec<u8>;

fn settings() -> Config {
    Config::new(1, vec![1, 2, 3], 7)
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
        start(config, Recovered::default()).err()
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|config| config.id = 4), Some(ConfigError::NotAVoter(4)));
    assert_eq!(refused(|config| config.voters.clear()), Some(ConfigError::NotAVoter(1)));
    assert_eq!(refused(|config| config.voters.push(2)), Some(ConfigError::BadVoter(2)));
    assert_eq!(refused(|config| config.voters.push(0)), Some(ConfigError::BadVoter(0)));
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
fn a_log_that_nobody_can_have_written_is_refused() {
    let refused = |term: u64, entries: Vec<Entry<Data>>| {
        let hard_state = HardState { term, voted_for: None };
        start(settings(), Recovered { hard_state, entries }).err()
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
    let recovered = Recovered { hard_state, entries: log(&[1, 1]) };
    let mut raft = start(settings(), recovered).expect("a good start");
    let before = raft.status();
    for message in [
        append(9, 1, 3, 2, vec![]),                     // from a stranger
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
    let mut raft = start(Config::new(1, vec![1, 2, 3], 7), Recovered::default()).expect("starts");
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
