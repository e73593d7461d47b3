//! Which hosts a lab has, and their names and addresses: `n1`, `n2`, ... for nodes and `c1`, ...
//! for clients.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Of all hosts together. netem has a device for each direction: 210 of them.
pub(crate) const MAX_HOSTS: usize = 15;

/// Every host's network: `10.73.0.N` for `nN`, `10.73.1.N` for `cN`.
pub(crate) const PREFIX_BITS: u8 = 16;

/// How many hosts of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    nodes: u8,
    clients: u8,
}

/// A host's name and its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAddress {
    /// `n1`, ..., `c1`, ...
    pub name: String,
    /// On its one interface, `eth0`.
    pub address: Ipv4Addr,
}

impl Layout {
    /// At least one host of each kind.
    pub fn new(nodes: usize, clients: usize) -> Result<Self, Error> {
        let fits = nodes >= 1 && clients >= 1 && nodes + clients <= MAX_HOSTS;
        match (u8::try_from(nodes), u8::try_from(clients)) {
            (Ok(nodes), Ok(clients)) if fits => Ok(Self { nodes, clients }),
            _ => Err(Error::LabSize { nodes, clients, most: MAX_HOSTS }),
        }
    }

    /// All hosts, nodes first.
    pub fn hosts(&self) -> Vec<HostAddress> {
        let hosts = |kind: char, network: u8, count: u8| {
            (1..=count).map(move |number| HostAddress {
                name: format!("{kind}{number}"),
                address: Ipv4Addr::new(10, 73, network, number),
            })
        };
        hosts('n', 0, self.nodes).chain(hosts('c', 1, self.clients)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_and_addresses_of_their_kind() {
        let hosts = Layout::new(2, 1).expect("fits").hosts();
        let told: Vec<_> = hosts.iter().map(|h| format!("{} {}", h.name, h.address)).collect();
        assert_eq!(told, ["n1 10.73.0.1", "n2 10.73.0.2", "c1 10.73.1.1"]);
    }

    #[test]
    fn a_lab_without_nodes_or_with_too_many_hosts_is_refused() {
        for (nodes, clients) in [(0, 1), (3, 0), (15, 1), (300, 1)] {
            assert!(Layout::new(nodes, clients).is_err(), "{nodes} + {clients}");
        }
    }
}
