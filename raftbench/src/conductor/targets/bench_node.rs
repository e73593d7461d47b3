//! The reference node: this program itself, as `raftbench node`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{Launcher, Member, Role};
use crate::conductor::events::{LogLine, Who, unix_ns};
use crate::evidence::EventRole;
use crate::plan::ClusterPlan;

/// bench-node with one run's settings.
pub(in crate::conductor) struct BenchNode {
    program: PathBuf,
    version: String,
    cluster: String,
    heartbeat_ms: u64,
    election_timeout_ms: u64,
    settings: toml::Table,
}

impl BenchNode {
    /// Of the cluster that `mark` names.
    pub(in crate::conductor) fn new(plan: &ClusterPlan, mark: &str) -> anyhow::Result<Self> {
        Ok(Self {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            version: format!("bench-node {}", env!("CARGO_PKG_VERSION")),
            cluster: format!("raftbench-{mark}"),
            heartbeat_ms: plan.heartbeat_ms,
            election_timeout_ms: plan.election_timeout_ms,
            settings: plan.bench_node.clone(),
        })
    }
}

/// What `raftbench node --config` reads.
#[derive(Serialize)]
struct Config<'a> {
    name: &'a str,
    data_dir: &'a PathBuf,
    client_listen: &'a str,
    peer_listen: &'a str,
    metrics_listen: &'a str,
    cluster: &'a str,
    heartbeat_ms: u64,
    election_timeout_ms: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    join: bool,
    members: Vec<ConfigMember<'a>>,
    settings: &'a toml::Table,
}

#[derive(Serialize)]
struct ConfigMember<'a> {
    name: &'a str,
    peer: &'a str,
    client: &'a str,
}

impl Launcher for BenchNode {
    fn version(&self) -> &str {
        &self.version
    }

    fn command(&self, member: &Member, all: &[Member], role: Role) -> anyhow::Result<Command> {
        let config = Config {
            name: &member.name,
            data_dir: &member.data_dir,
            client_listen: &member.client,
            peer_listen: &member.peer,
            metrics_listen: &member.metrics,
            cluster: &self.cluster,
            heartbeat_ms: self.heartbeat_ms,
            election_timeout_ms: self.election_timeout_ms,
            join: role == Role::Added,
            members: all
                .iter()
                .map(|m| ConfigMember { name: &m.name, peer: &m.peer, client: &m.client })
                .collect(),
            settings: &self.settings,
        };
        // Beside the data directory, which is the node's alone.
        let path = member.data_dir.with_extension("toml");
        let text = toml::to_string(&config).context("cannot write a node's config as TOML")?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(&self.program);
        command.args(["node", "--config"]).arg(path);
        Ok(command)
    }

    fn read_log_line(&self, line: &str) -> Option<LogLine> {
        read(line)
    }
}

#[derive(Deserialize)]
struct Line {
    timestamp: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    message: String,
    role: EventRole,
    term: u64,
    leader: Option<String>,
    reason: String,
}

fn read(line: &str) -> Option<LogLine> {
    if !line.contains("leadership") {
        return None;
    }
    let Line { timestamp, fields } = serde_json::from_str(line).ok()?;
    (fields.message == "leadership").then_some(())?;
    Some(LogLine {
        unix_ns: unix_ns(&timestamp)?,
        role: fields.role,
        term: fields.term,
        leader: fields.leader.filter(|name| !name.is_empty()).map(Who::Name),
        reason: fields.reason,
        resolution_us: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_lines_are_read_to_the_microsecond() {
        let line = r#"{"timestamp":"2026-11-23T18:14:24.789012Z","level":"INFO","fields":{"message":"leadership","role":"leader","term":5,"leader":"n1","reason":"vote_won"},"target":"bench_node"}"#;
        let event = read(line).expect("an event");
        assert_eq!(event.unix_ns, 1_795_457_664_789_012_000);
        assert_eq!((event.role, event.term), (EventRole::Leader, 5));
        assert_eq!(event.leader, Some(Who::Name("n1".into())));
        assert_eq!(read(&line.replace("\"leadership\"", "\"about leadership\"")), None);
    }
}
