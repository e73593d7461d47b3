//! Where the nodes of a cluster run, and at which addresses: all on this machine's loopback, or
//! each on a host of its own in a lab.
//!
//! Invariant: the rest of the conductor does not ask which; it has addresses that it can reach, and
//! processes that are its children.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command};

use anyhow::Context;
use chaos::Victim;

use super::disks::LaidDisks;
use super::door::Door;
use super::lab::LaidLab;
use super::ports::{self, HeldPort};
use super::round_trips;
use crate::evidence::NetworkRecord;
use crate::folder::RunFolder;
use crate::plan::ClusterPlan;

/// What a node listens on: for clients, for peers, for metrics. On a host of its own a node has
/// etcd's ports.
const LAB_PORTS: [u16; 3] = [2379, 2380, 2381];

/// Where nodes run.
pub(super) enum Place {
    /// This machine's own network.
    Loopback,
    /// `nN` on the host of that name, the generator on `c1`.
    Lab(Box<LaidLab>),
}

/// A node's addresses, free until they are let go of.
pub(super) struct Site {
    pub(super) client: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) metrics: SocketAddr,
    /// Held until the node is about to bind them.
    _held: Vec<HeldPort>,
}

impl Place {
    /// Where `plan` has it; the lab around this process is laid for it.
    pub(super) fn of(plan: &ClusterPlan, folder: &RunFolder) -> anyhow::Result<Self> {
        match &plan.network {
            None => Ok(Place::Loopback),
            Some(network) => {
                let lab = LaidLab::lay(network, folder)?;
                Ok(Place::Lab(Box::new(match &plan.disk {
                    None => lab,
                    Some(disk) => lab.with_disks(disk, &plan.node_names())?,
                })))
            }
        }
    }

    /// The addresses of nodes `n1` to `nCOUNT`.
    pub(super) fn sites(&self, count: usize) -> anyhow::Result<Vec<Site>> {
        let site = |address: Ipv4Addr, ports: [u16; 3], held| {
            let [client, peer, metrics] =
                ports.map(|port| SocketAddr::new(IpAddr::V4(address), port));
            Site { client, peer, metrics, _held: held }
        };
        match self {
            Place::Loopback => {
                let mut held = ports::hold(3 * count)?;
                let sites = (0..count).map(|_| {
                    let held: Vec<HeldPort> = held.drain(..3).collect();
                    let ports = [held[0].number, held[1].number, held[2].number];
                    site(Ipv4Addr::LOCALHOST, ports, held)
                });
                Ok(sites.collect())
            }
            Place::Lab(lab) => (1..=count)
                .map(|number| {
                    let host = lab.host(&format!("n{number}"))?;
                    Ok(site(host.address(), LAB_PORTS, Vec::new()))
                })
                .collect(),
        }
    }

    /// Starts `command` where `node` runs.
    pub(super) fn spawn(&self, node: &str, command: &mut Command) -> anyhow::Result<Child> {
        match self {
            Place::Loopback => {
                let program = command.get_program().to_string_lossy().into_owned();
                command.spawn().with_context(|| format!("cannot start {node} as `{program}`"))
            }
            Place::Lab(lab) => {
                let started = lab.host(node)?.spawn(command);
                started.with_context(|| format!("cannot start {node} on its host"))
            }
        }
    }

    /// A hold on the process of `node`, which listens on `ports`.
    pub(super) fn victim(&self, node: &str, pid: i32, ports: Vec<u16>) -> anyhow::Result<Victim> {
        let victim = Victim::of(node, pid, ports)?;
        Ok(match self {
            Place::Loopback => victim,
            Place::Lab(lab) => victim.in_lab(lab.lab().clone()),
        })
    }

    /// The way to `node` for those who observe.
    pub(super) fn door(&self, node: &str) -> Door {
        match self {
            Place::Loopback => Door::Here,
            Place::Lab(lab) => lab.host(node).map_or(Door::Here, |host| Door::Of(host.clone())),
        }
    }

    /// The lab, if it is one.
    pub(super) fn lab(&self) -> Option<&LaidLab> {
        match self {
            Place::Loopback => None,
            Place::Lab(lab) => Some(lab),
        }
    }

    /// What the links are, with the round trips between all hosts that talk; their nodes must
    /// listen at `sites`. `None`: there are no links.
    pub(super) fn look(
        &self,
        nodes: &[(String, SocketAddr)],
    ) -> anyhow::Result<Option<NetworkRecord>> {
        let Place::Lab(lab) = self else { return Ok(None) };
        let implementation = lab.network().implementation();
        Ok(Some(NetworkRecord {
            name: lab.plan().name.clone(),
            links: implementation.name().to_owned(),
            about: String::new(),
            round_trips: round_trips::measure(lab, nodes)?,
        }))
    }

    /// The emulated disks under the nodes, where there are any.
    pub(super) fn disks(&self) -> Option<&LaidDisks> {
        match self {
            Place::Loopback => None,
            Place::Lab(lab) => lab.disks(),
        }
    }

    /// What the links say of themselves at the end.
    pub(super) fn about_links(&self) -> anyhow::Result<String> {
        match self {
            Place::Loopback => Ok(String::new()),
            Place::Lab(lab) => Ok(lab.network().about()?),
        }
    }
}
