//! Shapes of partitions, as the directions that they cut.

use std::collections::BTreeSet;

use super::{Direction, check_hosts};
use crate::Error;

/// Who cannot reach whom. Hosts whose names begin with `n` are peers, the others clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Each of these is cut off from everyone, in both directions.
    Isolate(Vec<String>),
    /// These peers on one side, the other peers on the other; clients reach all.
    Halves(Vec<String>),
    /// Nothing arrives from these at those; the other direction is open.
    OneWay {
        /// Who is not heard.
        from: Vec<String>,
        /// Who does not hear.
        to: Vec<String>,
    },
    /// The peers fall into two halves, and only this one reaches both.
    Bridge(String),
    /// Each peer reaches only the two beside it, in the order of their numbers.
    Ring,
    /// These peers and the clients do not reach each other.
    FromClients(Vec<String>),
    /// Each of these peers is cut off from all other peers; clients reach it.
    FromPeers(Vec<String>),
}

impl Partition {
    /// The directions that it cuts between `hosts`. One that names a host which is not there, or
    /// cuts nothing, is refused.
    pub fn cuts(&self, hosts: &[String]) -> Result<BTreeSet<Direction>, Error> {
        check_hosts(self.named(), hosts)?;
        let peers: Vec<&String> = hosts.iter().filter(|name| is_peer(name)).collect();
        let cut = |from: &String, to: &String| match self {
            Partition::Isolate(names) => names.contains(from) || names.contains(to),
            Partition::Halves(names) => {
                is_peer(from) && is_peer(to) && names.contains(from) != names.contains(to)
            }
            Partition::OneWay { from: unheard, to: deaf } => {
                unheard.contains(from) && deaf.contains(to)
            }
            Partition::Bridge(bridge) => {
                let half = |name| {
                    let others = peers.iter().filter(|peer| **peer != bridge);
                    let position = others.clone().position(|peer| *peer == name);
                    position.map(|position| 2 * position < others.count())
                };
                matches!((half(from), half(to)), (Some(a), Some(b)) if a != b)
            }
            Partition::Ring => {
                let place = |name| peers.iter().position(|peer| *peer == name);
                match (place(from), place(to)) {
                    (Some(a), Some(b)) => {
                        let apart = a.abs_diff(b);
                        apart != 1 && apart != peers.len() - 1
                    }
                    _ => false,
                }
            }
            Partition::FromClients(names) => {
                let parts = |peer, client| names.contains(peer) && !is_peer(client);
                parts(from, to) || parts(to, from)
            }
            Partition::FromPeers(names) => {
                is_peer(from) && is_peer(to) && (names.contains(from) || names.contains(to))
            }
        };
        let mut cuts = BTreeSet::new();
        for from in hosts {
            for to in hosts.iter().filter(|to| *to != from) {
                if cut(from, to) {
                    cuts.insert(Direction { from: from.clone(), to: to.clone() });
                }
            }
        }
        match cuts.is_empty() {
            false => Ok(cuts),
            true => Err(Error::Condition {
                what: "a partition",
                value: format!("{self:?}, which cuts nothing here"),
                wanted: "between hosts of this lab (a ring needs four peers, a bridge three)",
            }),
        }
    }

    fn named(&self) -> Vec<&String> {
        match self {
            Partition::Isolate(names)
            | Partition::Halves(names)
            | Partition::FromClients(names)
            | Partition::FromPeers(names) => names.iter().collect(),
            Partition::OneWay { from, to } => from.iter().chain(to).collect(),
            Partition::Bridge(name) => vec![name],
            Partition::Ring => Vec::new(),
        }
    }
}

pub(super) fn is_peer(name: &str) -> bool {
    name.starts_with('n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(partition: Partition, peers: usize) -> Result<Vec<String>, Error> {
        let mut hosts: Vec<String> = (1..=peers).map(|number| format!("n{number}")).collect();
        hosts.push("c1".into());
        let cuts = partition.cuts(&hosts)?;
        Ok(cuts.iter().map(|cut| format!("{}>{}", cut.from, cut.to)).collect())
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn every_shape_cuts_what_it_says() {
        for (partition, peers, wanted) in [
            (Partition::Isolate(words("n1")), 3, "c1>n1 n1>c1 n1>n2 n1>n3 n2>n1 n3>n1"),
            (Partition::Halves(words("n1")), 3, "n1>n2 n1>n3 n2>n1 n3>n1"),
            (Partition::OneWay { from: words("n1"), to: words("n2 n3") }, 3, "n1>n2 n1>n3"),
            (Partition::Bridge("n3".into()), 3, "n1>n2 n2>n1"),
            (Partition::Bridge("n3".into()), 5, "n1>n4 n1>n5 n2>n4 n2>n5 n4>n1 n4>n2 n5>n1 n5>n2"),
            (Partition::Ring, 4, "n1>n3 n2>n4 n3>n1 n4>n2"),
            (Partition::FromClients(words("n1 n2")), 3, "c1>n1 c1>n2 n1>c1 n2>c1"),
            (Partition::FromPeers(words("n2")), 3, "n1>n2 n2>n1 n2>n3 n3>n2"),
        ] {
            let told = format!("{partition:?}");
            assert_eq!(cuts(partition, peers).expect("cuts"), words(wanted), "{told}");
        }
    }

    #[test]
    fn one_that_names_nobody_or_cuts_nothing_is_refused() {
        let unknown = cuts(Partition::Isolate(words("n9")), 3).expect_err("unknown").to_string();
        assert_eq!(unknown, "no host is called `n9`; the lab has n1, n2, n3, c1");
        for nothing in [
            Partition::Ring,
            Partition::Halves(words("n1 n2 n3")),
            Partition::OneWay { from: words("n1"), to: words("n1") },
        ] {
            let refused = cuts(nothing, 3);
            assert!(matches!(refused, Err(Error::Condition { .. })), "{refused:?}");
        }
    }
}
