//! Conditions that are laid over those that a link has, and taken away again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Conditions, Direction, Loss, Share, Spread};

/// What is given takes the place of what the link has; the rest stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// See [`Conditions::delay`].
    pub delay: Option<Duration>,
    /// See [`Conditions::jitter`].
    pub jitter: Option<Duration>,
    /// See [`Conditions::spread`].
    pub spread: Option<Spread>,
    /// See [`Conditions::loss`].
    pub loss: Option<Loss>,
    /// See [`Conditions::duplicate`].
    pub duplicate: Option<Share>,
    /// See [`Conditions::reorder`].
    pub reorder: Option<Share>,
    /// See [`Conditions::corrupt`].
    pub corrupt: Option<Share>,
    /// See [`Conditions::rate_bits_per_second`].
    pub rate_bits_per_second: Option<u64>,
}

impl Overlay {
    /// What a link with `conditions` is like under it.
    pub fn over(&self, conditions: Conditions) -> Conditions {
        Conditions {
            delay: self.delay.unwrap_or(conditions.delay),
            jitter: self.jitter.unwrap_or(conditions.jitter),
            spread: self.spread.unwrap_or(conditions.spread),
            loss: self.loss.unwrap_or(conditions.loss),
            duplicate: self.duplicate.unwrap_or(conditions.duplicate),
            reorder: self.reorder.unwrap_or(conditions.reorder),
            corrupt: self.corrupt.unwrap_or(conditions.corrupt),
            rate_bits_per_second: self.rate_bits_per_second.or(conditions.rate_bits_per_second),
        }
    }
}

/// Which others are meant, at the far end of a victim's links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// Peers and clients.
    #[default]
    All,
    /// The other nodes.
    Peers,
    /// Where the load comes from.
    Clients,
}

/// Which way, seen from a victim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Out and in.
    #[default]
    Both,
    /// What the victim sends.
    Out,
    /// What is sent to it.
    In,
}

impl Others {
    /// Whether `host` is one of them.
    pub fn has(self, host: &str) -> bool {
        match self {
            Others::All => true,
            Others::Peers => super::partition::is_peer(host),
            Others::Clients => !super::partition::is_peer(host),
        }
    }

    /// As profiles have it.
    pub fn name(self) -> &'static str {
        match self {
            Others::All => "all",
            Others::Peers => "peers",
            Others::Clients => "clients",
        }
    }
}

impl Way {
    /// As profiles have it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Both => "both",
            Way::Out => "out",
            Way::In => "in",
        }
    }
}

/// The directions between each of `victims` and the `others`, in their `way`.
pub fn directions(
    hosts: &[String],
    victims: &[String],
    others: Others,
    way: Way,
) -> BTreeSet<Direction> {
    let mut directions = BTreeSet::new();
    for victim in victims {
        for other in hosts.iter().filter(|host| *host != victim && others.has(host)) {
            if way != Way::In {
                directions.insert(Direction { from: victim.clone(), to: other.clone() });
            }
            if way != Way::Out {
                directions.insert(Direction { from: other.clone(), to: victim.clone() });
            }
        }
    }
    directions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victims_links_are_those_to_the_others_in_the_way_that_is_meant() {
        let hosts = ["n1", "n2", "n3", "c1"].map(str::to_owned);
        let of = |victims: &[&str], others, way| -> String {
            let victims: Vec<String> = victims.iter().map(|name| (*name).to_owned()).collect();
            let all = directions(&hosts, &victims, others, way);
            all.iter().map(|d| format!("{}>{} ", d.from, d.to)).collect()
        };
        assert_eq!(of(&["n2"], Others::Peers, Way::Both), "n1>n2 n2>n1 n2>n3 n3>n2 ");
        assert_eq!(of(&["n2"], Others::Clients, Way::In), "c1>n2 ");
        assert_eq!(
            of(&["n1", "n2"], Others::All, Way::Out),
            "n1>c1 n1>n2 n1>n3 n2>c1 n2>n1 n2>n3 "
        );
    }

    #[test]
    fn what_is_not_given_stays() {
        let delay = Duration::from_millis(40);
        let link = Conditions { delay, ..Default::default() };
        let loss = Loss::Independent(Share::ALL);
        let under = Overlay { loss: Some(loss), ..Default::default() }.over(link);
        assert_eq!(under, Conditions { loss, ..link });
    }
}
