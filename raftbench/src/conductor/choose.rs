//! Whom a fault strikes: chosen when it starts, from what the nodes say then, by the seed.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::plan::FaultTarget;

/// What a choice is made from.
pub(super) struct Field<'a> {
    /// All members.
    pub(super) members: &'a [String],
    /// The present leader, if there is one.
    pub(super) leader: Option<&'a str>,
    /// Those that another fault holds now; only a target by name strikes them.
    pub(super) held: &'a [String],
}

/// Why there is nobody to strike.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// The target needs a leader: ask again later.
    NoLeader,
    /// As told.
    Impossible(String),
}

/// The victims of `target`.
pub(super) fn choose(
    target: &FaultTarget,
    field: &Field<'_>,
    random: &mut StdRng,
) -> Result<Vec<String>, NoChoice> {
    let free = |node: &&String| !field.held.contains(node);
    let others = |leader: &str| -> Vec<String> {
        field.members.iter().filter(free).filter(|node| *node != leader).cloned().collect()
    };
    let leader = || field.leader.ok_or(NoChoice::NoLeader);
    let everyone: Vec<String> = field.members.iter().filter(free).cloned().collect();
    let quorum = field.members.len() / 2 + 1;
    match target {
        FaultTarget::Leader => Ok(vec![leader()?.to_owned()]),
        FaultTarget::Follower => some(others(leader()?), 1, random),
        FaultTarget::Followers => at_least(others(leader()?), 1),
        FaultTarget::One => some(everyone, 1, random),
        FaultTarget::Minority => some(everyone, field.members.len() - quorum, random),
        FaultTarget::Majority => some(everyone, field.members.len() - quorum + 1, random),
        FaultTarget::All => at_least(everyone, field.members.len()),
        FaultTarget::Names(names) => match names.iter().find(|n| !field.members.contains(n)) {
            Some(unknown) => Err(NoChoice::Impossible(format!("there is no node {unknown}"))),
            None => Ok(names.clone()),
        },
    }
}

fn some(mut from: Vec<String>, count: usize, random: &mut StdRng) -> Result<Vec<String>, NoChoice> {
    if count == 1 {
        let one = from.choose(random).cloned();
        return one.map(|node| vec![node]).ok_or_else(|| too_few(&from, 1));
    }
    if count == 0 {
        return Err(NoChoice::Impossible("so small a cluster has no minority to strike".into()));
    }
    from.shuffle(random);
    let mut chosen = at_least(from, count)?;
    chosen.truncate(count);
    chosen.sort();
    Ok(chosen)
}

fn at_least(from: Vec<String>, count: usize) -> Result<Vec<String>, NoChoice> {
    if from.len() < count { Err(too_few(&from, count)) } else { Ok(from) }
}

fn too_few(free: &[String], count: usize) -> NoChoice {
    NoChoice::Impossible(format!("{count} needed, but no other fault holds only {free:?}"))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn chosen(
        target: FaultTarget,
        leader: Option<&str>,
        held: &[&str],
        count: usize,
        seed: u64,
    ) -> Result<Vec<String>, NoChoice> {
        let members: Vec<_> = (1..=count).map(|number| format!("n{number}")).collect();
        let held: Vec<_> = held.iter().map(|node| (*node).to_owned()).collect();
        let field = Field { members: &members, leader, held: &held };
        choose(&target, &field, &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn each_target_names_the_right_nodes() {
        let of = |target, count| chosen(target, Some("n2"), &[], count, 7).expect("a choice");
        assert_eq!(of(FaultTarget::Leader, 3), ["n2"]);
        assert_eq!(of(FaultTarget::Followers, 3), ["n1", "n3"]);
        assert_eq!(of(FaultTarget::All, 3), ["n1", "n2", "n3"]);
        assert_eq!(of(FaultTarget::Names(vec!["n3".into()]), 3), ["n3"]);
        for (count, minority, majority) in [(3, 1, 2), (4, 1, 2), (5, 2, 3), (7, 3, 4)] {
            assert_eq!(of(FaultTarget::Minority, count).len(), minority, "of {count}");
            assert_eq!(of(FaultTarget::Majority, count).len(), majority, "of {count}");
        }
    }

    #[test]
    fn the_seed_decides_and_every_node_has_its_turn() {
        let with = |seed| chosen(FaultTarget::Follower, Some("n2"), &[], 3, seed).expect("one");
        assert_eq!(with(1), with(1));
        let all: std::collections::BTreeSet<_> = (0..50).map(with).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [["n1"], ["n3"]]);
    }

    #[test]
    fn what_another_fault_holds_is_not_chosen() {
        let follower = chosen(FaultTarget::Follower, Some("n2"), &["n1"], 3, 7);
        assert_eq!(follower, Ok(vec!["n3".to_owned()]));
        let majority = chosen(FaultTarget::Majority, Some("n2"), &["n1", "n3"], 3, 7);
        assert!(matches!(majority, Err(NoChoice::Impossible(_))), "{majority:?}");
        assert_eq!(chosen(FaultTarget::Leader, None, &[], 3, 7), Err(NoChoice::NoLeader));
        let tiny = chosen(FaultTarget::Minority, None, &[], 2, 7);
        assert!(matches!(tiny, Err(NoChoice::Impossible(_))), "{tiny:?}");
        let stranger = chosen(FaultTarget::Names(vec!["n9".into()]), None, &[], 3, 7);
        assert!(matches!(stranger, Err(NoChoice::Impossible(_))), "{stranger:?}");
    }
}
