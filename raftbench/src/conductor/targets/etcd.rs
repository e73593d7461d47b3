//! etcd as found on the PATH: 3.4 and later.

use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{Launcher, Member, Role};
use crate::conductor::events::{LogLine, Who, unix_ns};
use crate::evidence::EventRole;
use crate::plan::ClusterPlan;

/// etcd with one run's settings.
pub(in crate::conductor) struct Etcd {
    version: String,
    heartbeat_ms: u64,
    election_timeout_ms: u64,
    flags: Vec<String>,
}

impl Etcd {
    /// Asks the etcd on the PATH for its version.
    pub(in crate::conductor) fn find(plan: &ClusterPlan) -> anyhow::Result<Self> {
        let output = match Command::new("etcd").arg("--version").output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "there is no `etcd` on the PATH; install it (on Debian and Ubuntu: \
                 apt-get install etcd-server), or use --target bench-node"
            ),
            Err(error) => return Err(error).context("cannot run `etcd --version`"),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        let Some(version) = version else {
            bail!("`etcd --version` does not tell its version; it printed: {}", text.trim())
        };
        Ok(Self {
            version: format!("etcd {}", version.trim()),
            heartbeat_ms: plan.heartbeat_ms,
            election_timeout_ms: plan.election_timeout_ms,
            flags: plan.etcd_flags.clone(),
        })
    }
}

impl Launcher for Etcd {
    fn version(&self) -> &str {
        &self.version
    }

    fn command(&self, member: &Member, all: &[Member], role: Role) -> anyhow::Result<Command> {
        let url = |address: &str| format!("http://{address}");
        let cluster: Vec<_> =
            all.iter().map(|member| format!("{}=http://{}", member.name, member.peer)).collect();
        let state = match role {
            Role::Founder => "new",
            Role::Added => "existing",
        };
        let mut command = Command::new("etcd");
        // Settings of the user's own etcd are not this cluster's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command
            .env("TZ", "UTC")
            .args(["--name", &member.name])
            .arg("--data-dir")
            .arg(&member.data_dir)
            .args(["--listen-client-urls", &url(&member.client)])
            .args(["--advertise-client-urls", &url(&member.client)])
            .args(["--listen-peer-urls", &url(&member.peer)])
            .args(["--initial-advertise-peer-urls", &url(&member.peer)])
            .args(["--listen-metrics-urls", &url(&member.metrics)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-state", state])
            .args(["--heartbeat-interval", &self.heartbeat_ms.to_string()])
            .args(["--election-timeout", &self.election_timeout_ms.to_string()])
            .args(["--logger", "zap", "--log-outputs", "stderr"])
            .args(&self.flags);
        Ok(command)
    }

    fn read_log_line(&self, line: &str) -> Option<LogLine> {
        read(line)
    }
}

/// A zap line.
#[derive(Deserialize)]
struct Zap {
    ts: String,
    msg: String,
}

/// zap rounds down to the millisecond.
const RESOLUTION_US: u64 = 1000;

/// Reads raft's own lines: `ID became leader at term T` and
/// `raft.node: ID elected leader ID at term T`.
fn read(line: &str) -> Option<LogLine> {
    // Nearly all lines are about something else.
    if !line.contains(" at term ") {
        return None;
    }
    let zap: Zap = serde_json::from_str(line).ok()?;
    let (said, term) = zap.msg.rsplit_once(" at term ")?;
    let term = term.parse().ok()?;
    let said = said.strip_prefix("raft.node: ").unwrap_or(said);
    let words: Vec<_> = said.split(' ').collect();
    let (role, leader) = match words[..] {
        [_, "became", role] => (*ROLES.iter().find(|(name, _)| *name == role)?, None),
        // The leader itself has said so already.
        [me, "elected", "leader", leader] if me != leader => {
            (("elected leader", EventRole::Follower), Some(id(leader)?))
        }
        _ => return None,
    };
    let ((reason, role), own) = (role, id(words[0])?);
    let leader = leader.or((role == EventRole::Leader).then_some(own)).map(Who::Id);
    let reason =
        if reason == "elected leader" { reason.to_owned() } else { format!("became {reason}") };
    Some(LogLine {
        unix_ns: unix_ns(&zap.ts)?,
        role,
        term,
        leader,
        reason,
        resolution_us: RESOLUTION_US,
    })
}

static ROLES: LazyLock<[(&str, EventRole); 4]> = LazyLock::new(|| {
    [
        ("leader", EventRole::Leader),
        ("follower", EventRole::Follower),
        ("candidate", EventRole::Candidate),
        ("pre-candidate", EventRole::PreCandidate),
    ]
});

fn id(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(msg: &str) -> String {
        format!(
            r#"{{"level":"info","ts":"2026-11-23T18:14:24.789Z","caller":"raft/raft.go:771","msg":"{msg}"}}"#
        )
    }

    #[test]
    fn raft_lines_of_3_4_and_3_5_are_read() {
        let won = read(&line("69b38ac7138de88d became leader at term 2")).expect("an event");
        assert_eq!((won.role, won.term), (EventRole::Leader, 2));
        assert_eq!(won.leader, Some(Who::Id(0x69b3_8ac7_138d_e88d)));
        assert_eq!(won.unix_ns, 1_795_457_664_789_000_000);
        let follows = "raft.node: 61f97220ab052a12 elected leader 9e737febb6b99eee at term 3";
        let follows = read(&line(follows)).expect("an event");
        assert_eq!((follows.role, follows.term), (EventRole::Follower, 3));
        assert_eq!(follows.leader, Some(Who::Id(0x9e73_7feb_b6b9_9eee)));
        let newer = r#"{"level":"info","ts":"2026-11-23T18:14:24.789Z","logger":"raft","caller":"etcdserver/zap_raft.go:77","msg":"61f97220ab052a12 became pre-candidate at term 3"}"#;
        assert_eq!(read(newer).expect("an event").role, EventRole::PreCandidate);
    }

    #[test]
    fn other_lines_are_not_events() {
        for msg in [
            "raft.node: 61f97220ab052a12 lost leader 69b38ac7138de88d at term 3",
            "raft.node: 69b38ac7138de88d elected leader 69b38ac7138de88d at term 2",
            "peer became active",
            "61f97220ab052a12 is starting a new election at term 2",
        ] {
            assert_eq!(read(&line(msg)), None, "{msg}");
        }
        assert_eq!(read("not JSON at term 3"), None);
    }
}
