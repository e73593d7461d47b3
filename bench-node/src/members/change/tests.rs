//! What is planned, and what is refused, of memberships made by hand.

use raft::Membership;

use super::*;
use crate::members::tests::founders;

/// Three founders, all bound.
fn bound() -> Roster {
    let mut roster = Roster::founding(&founders(3));
    roster.records.values_mut().for_each(|record| record.incarnation = record.id * 10);
    roster
}

/// What the leader, 1, makes of an ask while it hears these.
fn ask(roster: &Roster, hears: &[NodeId], ask: Ask) -> Result<Roster, MembersError> {
    let standing = Standing { us: 1, hears: &|id| hears.contains(&id) };
    match plan(roster, &standing, &ask)? {
        Planned::Nothing => Ok(roster.clone()),
        Planned::Change(Change { voters, learners, context }) => {
            let outgoing = Vec::new();
            let next = Membership { voters, outgoing, learners, context };
            Ok(Roster::of(&next).expect("it is canonical"))
        }
    }
}

fn add(id: NodeId, learner: bool) -> Ask {
    Ask::Add(Added { id, peer: format!("h{id}:2380"), learner })
}

fn publish(id: NodeId, name: &str, incarnation: u64) -> Ask {
    Ask::Publish { id, name: name.to_owned(), client: format!("h{id}:2379"), incarnation }
}

#[test]
fn who_is_added_to_vote_learns_until_its_directory_is_known() {
    let all = [2, 3];
    let added = ask(&bound(), &all, add(4, false)).expect("it is added");
    assert_eq!((&added.voters[..], &added.learners[..]), (&[1, 2, 3][..], &[4][..]));
    assert!(!added.is_learner(4), "it is listed as what it was added as");
    assert_eq!(promotion(&added).count(), 0, "nobody has said who it is");
    let known = ask(&added, &all, publish(4, "n4", 40)).expect("it says so");
    let promoted: Vec<_> = promotion(&known).collect();
    assert_eq!(promoted.len(), 1);
    assert_eq!((&promoted[0].voters[..], &promoted[0].learners[..]), (&[1, 2, 3, 4][..], &[][..]));
    // One that came to learn gets its vote only when it is asked for.
    let learner = ask(&bound(), &all, add(4, true)).expect("it is added");
    assert!(learner.is_learner(4));
    let early = ask(&learner, &all, Ask::Promote(4));
    assert_eq!(early, Err(MembersError::LearnerNotReady));
    let known = ask(&learner, &all, publish(4, "n4", 40)).expect("it says so");
    assert_eq!(promotion(&known).count(), 0);
    let promoted = ask(&known, &all, Ask::Promote(4)).expect("the protocol knows the rest");
    assert!(promoted.is_voter(4));
}

#[test]
fn an_id_belongs_to_one_directory_and_is_never_given_twice() {
    let all = [2, 3];
    let stranger = ask(&bound(), &all, publish(2, "n2", 21));
    assert_eq!(stranger, Err(MembersError::Stranger(2)));
    assert!(bound().is_stranger(2, 21) && !bound().is_stranger(2, 20));
    assert!(!bound().is_stranger(4, 1), "who is not known is not known to be another");
    let removed = ask(&bound(), &all, Ask::Remove(2)).expect("it is removed");
    assert!(removed.is_removed(2) && !removed.is_member(2));
    assert_eq!(removed.name(2), "n2", "it is called by its name until the next change");
    assert_eq!(ask(&removed, &[3], add(2, true)), Err(MembersError::IdExists));
    let later = ask(&removed, &[3], add(4, true)).expect("another one may come");
    assert!(later.is_removed(2));
    assert_eq!(ask(&later, &[3], add(2, false)), Err(MembersError::IdExists));
    assert_eq!(ask(&later, &[3], publish(2, "n2", 20)), Err(MembersError::NotFound));
}

#[test]
fn no_voter_comes_or_goes_before_all_are_bound() {
    let mut roster = bound();
    roster.records.get_mut(&3).expect("it is there").incarnation = 0;
    let all = [2, 3];
    assert_eq!(ask(&roster, &all, Ask::Remove(2)), Err(MembersError::VoterNotBound));
    assert!(ask(&roster, &all, Ask::Remove(3)).is_ok(), "then all are");
    assert!(ask(&roster, &all, add(4, true)).is_ok(), "a learner changes no voter");
    let voters = vec![1, 2, 3];
    let all_anew = Ask::Replace { voters, learners: vec![], added: vec![] };
    assert!(ask(&roster, &all, all_anew).is_ok());
}

#[test]
fn what_would_cost_the_quorum_is_refused() {
    // 3 is down: nobody may be added, and nobody else removed; but 3 may.
    assert_eq!(ask(&bound(), &[2], add(4, false)), Err(MembersError::Unhealthy));
    assert_eq!(ask(&bound(), &[2], Ask::Remove(2)), Err(MembersError::Unhealthy));
    assert_eq!(ask(&bound(), &[2], Ask::Remove(1)), Err(MembersError::Unhealthy));
    assert!(ask(&bound(), &[2], Ask::Remove(3)).is_ok());
    let one = {
        let mut roster = Roster::founding(&founders(1));
        roster.records.get_mut(&1).expect("it is there").incarnation = 10;
        roster
    };
    assert_eq!(ask(&one, &[], Ask::Remove(1)), Err(MembersError::NotEnoughStarted));
    let two = ask(&one, &[], add(2, false)).expect("whoever is alone may be joined");
    assert_eq!(ask(&two, &[], add(3, false)), Err(MembersError::NotEnoughStarted));
    assert!(ask(&two, &[], Ask::Remove(2)).is_ok(), "it never came");
}

#[test]
fn several_change_at_once_and_who_is_in_no_list_is_removed() {
    let all = [2, 3, 4, 5];
    let mut roster = ask(&bound(), &all, add(4, true)).expect("it is added");
    let unknown = Ask::Replace { voters: vec![2, 3, 4], learners: vec![], added: vec![] };
    assert_eq!(ask(&roster, &all, unknown.clone()), Err(MembersError::NotBound(4)));
    roster = ask(&roster, &all, publish(4, "n4", 40)).expect("it says so");
    let next = ask(&roster, &all, unknown).expect("it is bound");
    assert_eq!(next.voters, [2, 3, 4]);
    assert!(next.is_removed(1));
    let twice = Ask::Replace { voters: vec![2, 3], learners: vec![3], added: vec![] };
    assert_eq!(ask(&roster, &all, twice), Err(MembersError::NamedTwice(3)));
    let nobody = Ask::Replace { voters: vec![2, 9], learners: vec![], added: vec![] };
    assert_eq!(ask(&roster, &all, nobody), Err(MembersError::NotFound));
    // A voter may learn again; that it was to vote once is forgotten.
    let learns = Ask::Replace { voters: vec![1, 2], learners: vec![3, 4], added: vec![] };
    let learns = ask(&roster, &all, learns).expect("it is done");
    assert!(learns.is_learner(3) && learns.is_learner(4));
    assert_eq!(promotion(&learns).count(), 0);
}
