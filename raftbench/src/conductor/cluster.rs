//! The cluster under test: its members and, where it is ours, its processes.
//!
//! Invariant: a process of ours is started with the run's mark, under a keeper that already
//! watches, in a process group of its own (the terminal's Ctrl-C is the program's to handle), and
//! ends with this value at the latest.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chaos::{Restarter, Victim};
use loadgen::clock::RunClock;

use super::disks::LaidDisks;
use super::door::Door;
use super::lab::LaidLab;
use super::place::{Place, Site};
use super::process::{Node, log_tail};
use super::status::{self, Asked, View};
use super::targets::bench_node::BenchNode;
use super::targets::etcd::Etcd;
use super::targets::{Launcher, Member, Role, external};
use crate::evidence::{DiskRecord, NetworkRecord, NodeRecord};
use crate::keeper::Keeper;
use crate::plan::{ClusterPlan, Target};

/// How often a whole start is tried when another program takes one of the ports meanwhile.
const START_TRIES: usize = 5;

/// From SIGTERM to SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How long a member may take to give its Status.
pub(super) const STATUS_TIMEOUT: Duration = Duration::from_millis(300);

/// A cluster that runs.
pub struct Cluster {
    /// Whom clients and the observer reach.
    nodes: Vec<NodeRecord>,
    version: String,
    own: Option<Own>,
}

/// The part of a cluster that is ours.
pub(super) struct Own {
    pub(super) members: Vec<Member>,
    pub(super) launcher: Box<dyn Launcher>,
    place: Place,
    mark: String,
    running: Mutex<Running>,
}

struct Running {
    /// No node is started any more.
    stopping: bool,
    nodes: Vec<Node>,
    /// Sent away last, after all nodes have ended.
    keeper: Option<Keeper>,
}

impl Cluster {
    /// Starts the plan's cluster in `place` with data under `data` and logs under `logs` (or finds
    /// an external one), and waits until its processes run and listen.
    pub(super) async fn start(
        plan: &ClusterPlan,
        place: Place,
        data: &Path,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        if let Target::External { endpoints } = &plan.target {
            let (found, version) = external::find(endpoints).await?;
            let nodes = found
                .into_iter()
                .map(|member| NodeRecord { name: member.name, client: member.client })
                .collect();
            return Ok(Self { nodes, version, own: None });
        }
        let keeper = Keeper::start()?;
        let launcher: Box<dyn Launcher> = match plan.target {
            Target::Etcd => Box::new(Etcd::find(plan)?),
            _ => Box::new(BenchNode::new(plan, keeper.mark())?),
        };
        let folders = (absolute(data)?, absolute(logs)?);
        let mark = keeper.mark().to_owned();
        let running = Running { stopping: false, nodes: Vec::new(), keeper: Some(keeper) };
        let mut own =
            Own { members: Vec::new(), launcher, place, mark, running: Mutex::new(running) };
        let mut tries = START_TRIES;
        loop {
            tries -= 1;
            match own.launch(plan.nodes, &folders.0, &folders.1).await {
                Ok(()) => break,
                Err(Failed::PortTaken(_)) if tries > 0 => own.clear()?,
                Err(Failed::PortTaken(error) | Failed::Other(error)) => return Err(error),
            }
        }
        let nodes = own
            .members
            .iter()
            .map(|member| NodeRecord { name: member.name.clone(), client: member.client.clone() })
            .collect();
        Ok(Self { nodes, version: own.launcher.version().to_owned(), own: Some(own) })
    }

    /// The members, in the order of their names.
    pub fn nodes(&self) -> &[NodeRecord] {
        &self.nodes
    }

    /// Where clients reach each member.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// The target's own word on its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The members that are ours, with the ids of their processes.
    pub fn processes(&self) -> Vec<(Member, i32)> {
        let Some(own) = &self.own else { return Vec::new() };
        let running = own.lock();
        own.members
            .iter()
            .zip(&running.nodes)
            .map(|(member, node)| (member.clone(), node.victim.pid()))
            .collect()
    }

    /// Ends every process of ours: SIGTERM, and SIGKILL for what has not ended by itself in time;
    /// those are named in the answer.
    pub fn stop(&self) -> Vec<String> {
        let Some(own) = &self.own else { return Vec::new() };
        if let Some(disks) = own.disks() {
            disks.mend();
        }
        let mut running = own.lock();
        running.stopping = true;
        for node in &mut running.nodes {
            node.ask_to_end();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        let late = running.nodes.iter_mut().filter_map(|node| node.end_by(deadline)).collect();
        running.nodes.clear();
        running.keeper = None;
        late
    }

    pub(super) fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// The members as they are asked for Status, without those in `except`.
    pub(super) fn asked(&self, except: &[String]) -> Vec<Asked> {
        let asked = self.nodes.iter().filter(|node| !except.contains(&node.name));
        asked
            .map(|node| Asked {
                node: node.name.clone(),
                client: node.client.clone(),
                door: self.door(&node.name),
            })
            .collect()
    }

    /// Status of all members.
    pub(super) async fn view(&self, clock: &RunClock) -> View {
        status::view(&self.asked(&[]), clock, STATUS_TIMEOUT).await
    }

    /// The way to `node` for those who observe.
    pub(super) fn door(&self, node: &str) -> Door {
        self.own.as_ref().map_or(Door::Here, |own| own.place.door(node))
    }

    /// Its nodes are on hosts of a lab: who is not, does not reach them.
    pub fn is_in_a_lab(&self) -> bool {
        self.own.as_ref().is_some_and(|own| matches!(own.place, Place::Lab(_)))
    }

    /// The links between the nodes, and their round trips; `None`: loopback.
    pub(super) fn look_at_network(&self) -> anyhow::Result<Option<NetworkRecord>> {
        let Some(own) = &self.own else { return Ok(None) };
        let address = |member: &Member| {
            let address = member.client.parse().context("a node's address is not one")?;
            Ok((member.name.clone(), address))
        };
        let nodes = own.members.iter().map(address).collect::<anyhow::Result<Vec<_>>>()?;
        own.place.look(&nodes)
    }

    /// The emulated disks under the nodes, and what they did; `None`: there are none.
    pub(super) fn look_at_disks(&self) -> anyhow::Result<Option<DiskRecord>> {
        let disks = self.own.as_ref().and_then(|own| own.place.disks());
        disks.map(LaidDisks::record).transpose()
    }

    /// What the links say of themselves at the end.
    pub(super) fn about_links(&self) -> anyhow::Result<String> {
        self.own.as_ref().map_or(Ok(String::new()), |own| own.place.about_links())
    }

    /// The members' names by the ids that Status and logs have.
    pub(super) async fn names_by_id(&self, clock: &RunClock) -> HashMap<u64, String> {
        let view = self.view(clock).await;
        view.answers.into_iter().map(|answer| (answer.member_id, answer.node)).collect()
    }
}

enum Failed {
    PortTaken(anyhow::Error),
    Other(anyhow::Error),
}

impl Own {
    /// Starts `count` members on fresh ports.
    async fn launch(&mut self, count: usize, data: &Path, logs: &Path) -> Result<(), Failed> {
        let mut sites = self.place.sites(count).map_err(Failed::Other)?;
        self.members = sites
            .iter()
            .enumerate()
            .map(|(index, site)| member(index + 1, site, data, logs))
            .collect();
        for index in 0..count {
            let member = &self.members[index];
            // Let go of just before they are bound.
            drop(sites.remove(0));
            let mut running = self.lock();
            let node = self.spawn(member, 1, Role::Founder).map_err(Failed::Other)?;
            running.nodes.push(node);
        }
        for index in 0..count {
            let listens = || self.lock().nodes[index].listens();
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                match listens() {
                    Ok(true) => break,
                    Ok(false) if Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Ok(false) => return Err(Failed::Other(self.not_listening(index))),
                    Err(exit) => return Err(self.why_ended(index, &exit)),
                }
            }
        }
        Ok(())
    }

    /// Ends what `launch` started, and removes its data.
    fn clear(&mut self) -> anyhow::Result<()> {
        let mut running = self.lock();
        running.nodes.iter_mut().for_each(Node::kill);
        running.nodes.clear();
        drop(running);
        for member in &self.members {
            if member.data_dir.exists() {
                std::fs::remove_dir_all(&member.data_dir)
                    .with_context(|| format!("cannot remove {}", member.data_dir.display()))?;
            }
        }
        Ok(())
    }

    fn not_listening(&self, index: usize) -> anyhow::Error {
        let member = &self.members[index];
        let tail = log_tail(&member.log);
        anyhow::anyhow!("{} did not listen within 20 s; its log ends:\n{tail}", member.name)
    }

    fn why_ended(&self, index: usize, exit: &chaos::Exit) -> Failed {
        let member = &self.members[index];
        let tail = log_tail(&member.log);
        let error = anyhow::anyhow!("{} did not start: {exit}; its log ends:\n{tail}", member.name);
        let taken = tail.to_ascii_lowercase().contains("address already in use");
        if taken { Failed::PortTaken(error) } else { Failed::Other(error) }
    }

    fn spawn(&self, member: &Member, start: u32, role: Role) -> anyhow::Result<Node> {
        let command = self.launcher.command(member, &self.members, role)?;
        Node::spawn(command, member, &self.place, &self.mark, start, role)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The emulated disks under the nodes, where there are any.
    pub(super) fn disks(&self) -> Option<&LaidDisks> {
        self.place.disks()
    }

    /// The lab that it runs in, if it does.
    pub(super) fn lab(&self) -> Option<&LaidLab> {
        self.place.lab()
    }

    /// A handle on the running process of `node`.
    pub(super) fn victim(&self, node: &str) -> Option<Victim> {
        let index = self.index(node)?;
        Some(self.lock().nodes.get(index)?.victim.clone())
    }

    /// Says whether the end of `node` is meant.
    pub(super) fn expect_down(&self, node: &str, expected: bool) {
        if let Some(index) = self.index(node)
            && let Some(node) = self.lock().nodes.get_mut(index)
        {
            node.down_is_meant = expected;
        }
    }

    /// Removes the data directory of `node`, which must be down and is never started as a founder
    /// again; the bytes that it held.
    pub(super) fn wipe(&self, name: &str) -> anyhow::Result<u64> {
        let index = self.index(name).context("no such node")?;
        let mut running = self.lock();
        let node = running.nodes.get_mut(index).context("it was never started")?;
        ensure!(node.victim.exit().is_some(), "{name} still runs");
        node.role = Role::Added;
        let path = &self.members[index].data_dir;
        let bytes = bytes_under(path)?;
        // What is in it: the directory itself may be where an emulated disk is mounted.
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let removed = match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
            removed.with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
        Ok(bytes)
    }

    /// Where the peers of `node` reach it.
    pub(super) fn peer(&self, node: &str) -> Option<&str> {
        Some(&self.members[self.index(node)?].peer)
    }

    /// The process and the count of starts of each member, for the observer.
    pub(super) fn starts(&self) -> Vec<(String, i32, u32)> {
        let running = self.lock();
        let nodes = self.members.iter().zip(&running.nodes);
        nodes.map(|(member, n)| (member.name.clone(), n.victim.pid(), n.start)).collect()
    }

    /// The nodes that are down, meant or not.
    pub(super) fn down(&self) -> Vec<String> {
        let running = self.lock();
        let nodes = self.members.iter().zip(&running.nodes);
        nodes.filter(|(_, n)| n.victim.exit().is_some()).map(|(m, _)| m.name.clone()).collect()
    }

    /// The nodes that ended though nothing was done to them, each told once.
    pub(super) fn unexpected_ends(&self) -> Vec<String> {
        let mut running = self.lock();
        let mut ended = Vec::new();
        for (member, node) in self.members.iter().zip(&mut running.nodes) {
            if let Some(exit) = node.victim.exit()
                && !std::mem::replace(&mut node.down_is_meant, true)
            {
                let pid = node.victim.pid();
                let tail = log_tail(&member.log);
                ended.push(format!("{} (pid {pid}) {exit}; its log ends:\n{tail}", member.name));
            }
        }
        ended
    }

    fn index(&self, node: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == node)
    }

    fn try_restart(&self, name: &str) -> anyhow::Result<Victim> {
        let index = self.index(name).context("no such node")?;
        let member = &self.members[index];
        for _ in 0..START_TRIES {
            {
                let mut running = self.lock();
                ensure!(!running.stopping, "the cluster is being stopped");
                let node = running.nodes.get_mut(index).context("it was never started")?;
                ensure!(node.victim.exit().is_some(), "it still runs");
                node.reap();
                *node = self.spawn(member, node.start + 1, node.role)?;
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            let ended = loop {
                let running = self.lock();
                let node = running.nodes.get(index).context("the cluster is being stopped")?;
                match node.listens() {
                    Ok(true) => return Ok(node.victim.clone()),
                    Ok(false) => ensure!(Instant::now() < deadline, self.not_listening(index)),
                    Err(exit) => break exit,
                }
                drop(running);
                std::thread::sleep(Duration::from_millis(5));
            };
            if let Failed::Other(error) = self.why_ended(index, &ended) {
                return Err(error);
            }
        }
        bail!("its ports were taken by another program at each of {START_TRIES} tries")
    }
}

impl Restarter for Own {
    fn restart(&self, node: &str) -> Result<Victim, chaos::Error> {
        let started = self.try_restart(node);
        if started.is_ok() {
            self.expect_down(node, false);
        }
        started.map_err(|error| chaos::Error::Restart {
            node: node.to_owned(),
            reason: format!("{error:#}"),
        })
    }
}

fn member(number: usize, site: &Site, data: &Path, logs: &Path) -> Member {
    let name = format!("n{number}");
    Member {
        client: site.client.to_string(),
        peer: site.peer.to_string(),
        metrics: site.metrics.to_string(),
        data_dir: data.join(&name),
        log: logs.join(format!("{name}.log")),
        name,
    }
}

fn bytes_under(path: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let read =
        std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in read {
        let entry = entry?;
        bytes += match entry.metadata()? {
            folder if folder.is_dir() => bytes_under(&entry.path())?,
            file => file.len(),
        };
    }
    Ok(bytes)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}
