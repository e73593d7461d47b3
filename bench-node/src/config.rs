//! The node's configuration file: TOML, parsed once into a value that cannot be wrong.
//!
//! Invariant: a [`Config`] that exists was checked whole; every refusal names file, line and key,
//! and says what is allowed.
//!
//! ```toml
//! name = "n1"                      # one of the members
//! cluster = "quickstart-7"         # a token: members of another cluster are refused
//! data_dir = "data/n1"
//! client_listen = "127.0.0.1:2379"
//! peer_listen = "127.0.0.1:2380"
//! metrics_listen = "127.0.0.1:2381"
//! heartbeat_ms = 100
//! election_timeout_ms = 1000       # the lower bound; drawn from [1x, 2x)
//!
//! [[members]]
//! name = "n1"
//! peer = "127.0.0.1:2380"
//! client = "127.0.0.1:2379"
//!
//! [settings]                       # all optional
//! pre_vote = true
//! ```
//!
//! `[[members]]` and `join` count once, when the data directory is made. From then on who the
//! members are is in the log, and changes by the cluster API alone.
//!
//! A node that joins a cluster that is there has `join = true`; its `[[members]]` are itself, with
//! the peer address under which it was added, and any members that it may ask who it is.

use std::collections::HashMap;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft::NodeId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use crate::disk::LogDisk;

/// What one node is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the members this one is.
    pub name: String,
    /// The cluster's token.
    pub cluster: String,
    /// Belongs to this member alone.
    pub data_dir: PathBuf,
    /// `host:port` for clients.
    pub client_listen: String,
    /// `host:port` for the other members.
    pub peer_listen: String,
    /// `host:port` for `/metrics`.
    pub metrics_listen: String,
    /// The founders, this one too, in the order of the file; with `join`, members to ask.
    pub members: Vec<Member>,
    /// It is added to a cluster that is there, instead of founding one.
    pub join: bool,
    /// How often an idle leader is heard from.
    pub heartbeat: Duration,
    /// The lower bound of the randomized timeout.
    pub election_timeout: Duration,
    /// What an experiment varies.
    pub settings: Settings,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Made from the cluster's token and the name, so that all founders agree on it.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: String,
    /// `host:port` where the other members reach it.
    pub peer: String,
    /// `host:port` where clients reach it.
    pub client: String,
}

/// What an experiment varies; a profile's `[cluster.bench_node]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Ask whether an election could be won before disturbing the term.
    pub pre_vote: bool,
    /// A leader that loses touch with a majority steps down.
    pub check_quorum: bool,
    /// A leader answers reads without asking a majority while one promised to elect nobody else.
    pub lease_reads: bool,
    /// The most that a member's clock may run fast or slow, for leases.
    pub max_clock_drift_percent: u32,
    /// Members that lose their connection to the leader ask at once whether they could win.
    pub failover_hint: bool,
    /// How far apart members act on that hint.
    pub failover_step_ms: u64,
    /// A rejected append skips a whole term per round trip.
    pub conflict_hints: bool,
    /// Entries in one append, at most.
    pub max_append_entries: NonZeroUsize,
    /// Payload bytes in one append, at most.
    pub max_append_bytes: NonZeroUsize,
    /// Appends with entries on their way to one follower, at most.
    pub max_inflight_appends: NonZeroUsize,
    /// How long an idle pipeline waits before it tells a follower of a new commit index.
    pub commit_notice_ms: u64,
    /// A snapshot is taken, and the log cut, when so many entries were applied since the last one,
    pub snapshot_entries: NonZeroU64,
    /// or entries with so many bytes.
    pub snapshot_bytes: NonZeroU64,
    /// Entries before a snapshot that stay in the log, for members that lag a little; fewer where they
    /// take more than a quarter of `snapshot_bytes`.
    pub snapshot_keep_entries: u64,
    /// Size of a log segment.
    pub segment_bytes: NonZeroU64,
    /// How the log is written: `blocking`, `io_uring`, or `auto` (with io_uring where that works).
    pub log_disk: LogDisk,
    /// Batches of the log that are on their way to the disk at once, at most, with io_uring.
    #[serde(deserialize_with = "inflight_log_batches")]
    pub max_inflight_log_batches: NonZeroUsize,
    /// Threads that serve requests and run the protocol; the log has its own.
    pub worker_threads: NonZeroUsize,
    /// Writes are not synced: a power failure, and only that, loses acknowledged writes.
    pub unsafe_no_fsync: bool,
    /// One member's idea of who the members are may be changed around the protocol.
    pub unsafe_configuration_swap: bool,
    /// One member's store may be written to around the log.
    pub unsafe_local_write: bool,
    /// A planted bug, which the checkers must catch.
    #[cfg(feature = "seeded-bugs")]
    pub seeded_bug: Option<SeededBug>,
}

/// The planted bugs.
#[cfg(feature = "seeded-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeededBug {
    /// What was written counts as durable before it is.
    AcknowledgeBeforeSync,
    /// Votes count before term and vote are durable.
    VoteNotPersisted,
    /// A leader answers reads from its own belief that it leads.
    ReadWithoutMajority,
    /// A leader commits entries of earlier terms by counting.
    CommitEarlierTerm,
    /// One acknowledged put in a hundred is not applied, on no member.
    LoseAcknowledgedWrite,
}

#[cfg(feature = "seeded-bugs")]
impl SeededBug {
    /// The protocol's name for it, where the protocol has it.
    pub(crate) fn of_raft(self) -> Option<raft::SeededBug> {
        match self {
            Self::AcknowledgeBeforeSync => Some(raft::SeededBug::AcknowledgeBeforePersist),
            Self::VoteNotPersisted => Some(raft::SeededBug::VoteNotPersisted),
            Self::ReadWithoutMajority => Some(raft::SeededBug::ReadWithoutMajority),
            Self::CommitEarlierTerm => Some(raft::SeededBug::CommitEarlierTermByCounting),
            Self::LoseAcknowledgedWrite => None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let some = |n| NonZeroUsize::new(n).expect("not 0");
        Self {
            pre_vote: true,
            check_quorum: true,
            lease_reads: false,
            max_clock_drift_percent: 10,
            failover_hint: false,
            failover_step_ms: 10,
            conflict_hints: true,
            max_append_entries: some(4096),
            max_append_bytes: some(1024 * 1024),
            max_inflight_appends: some(64),
            commit_notice_ms: 1,
            snapshot_entries: NonZeroU64::new(100_000).expect("not 0"),
            snapshot_bytes: NonZeroU64::new(256 * 1024 * 1024).expect("not 0"),
            snapshot_keep_entries: 5_000,
            segment_bytes: NonZeroU64::new(64 * 1024 * 1024).expect("not 0"),
            log_disk: LogDisk::Blocking,
            max_inflight_log_batches: some(8),
            worker_threads: some(1),
            unsafe_no_fsync: false,
            unsafe_configuration_swap: false,
            unsafe_local_write: false,
            #[cfg(feature = "seeded-bugs")]
            seeded_bug: None,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Counted from 1, where the problem has a place.
    pub line: Option<usize>,
    /// What is wrong, with the key in it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.problem),
            None => write!(f, "{}: {}", self.path.display(), self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.to_owned(),
            line: None,
            problem: format!("cannot read the configuration: {error}"),
        })?;
        Self::parse(&text, path)
    }

    /// Checks a text; `path` is only for the errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let refuse = |problem: Problem| ConfigError {
            path: path.to_owned(),
            line: problem.at.map(|at| text[..at.min(text.len())].matches('\n').count() + 1),
            problem: problem.text,
        };
        let document: Document = toml::from_str(text).map_err(|error| {
            refuse(Problem {
                at: error.span().map(|span| span.start),
                text: with_key(text, error.span(), error.message()),
            })
        })?;
        document.check().map_err(refuse)
    }

    /// This member's id, if it is a founder.
    pub fn id(&self) -> NodeId {
        member_id(&self.cluster, &self.name)
    }

    /// What this member was told of itself.
    pub fn own(&self) -> &Member {
        let own = self.members.iter().find(|member| member.name == self.name);
        own.expect("checked when it was read")
    }

    /// The cluster's id, made from its token.
    pub fn cluster_id(&self) -> u64 {
        fnv1a(&[self.cluster.as_bytes()])
    }

    /// All members but this one.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.name != self.name)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: Spanned<String>,
    cluster: Spanned<String>,
    data_dir: PathBuf,
    client_listen: Spanned<String>,
    peer_listen: Spanned<String>,
    metrics_listen: Spanned<String>,
    heartbeat_ms: NonZeroU64,
    election_timeout_ms: Spanned<NonZeroU64>,
    members: Vec<MemberEntry>,
    #[serde(default)]
    join: bool,
    #[serde(default)]
    settings: Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    name: Spanned<String>,
    peer: Spanned<String>,
    client: Spanned<String>,
}

struct Problem {
    /// Byte offset in the text.
    at: Option<usize>,
    text: String,
}

/// More than a disk serves at once; a ring has room for them all.
const MOST_INFLIGHT_LOG_BATCHES: usize = 1024;

fn inflight_log_batches<'de, D: Deserializer<'de>>(value: D) -> Result<NonZeroUsize, D::Error> {
    let batches = NonZeroUsize::deserialize(value)?;
    match batches.get() <= MOST_INFLIGHT_LOG_BATCHES {
        true => Ok(batches),
        false => Err(D::Error::custom(format!(
            "invalid value: {batches}, expected 1 to {MOST_INFLIGHT_LOG_BATCHES}"
        ))),
    }
}

impl Problem {
    fn at<T>(value: &Spanned<T>, text: impl Into<String>) -> Self {
        Self { at: Some(value.span().start), text: text.into() }
    }
}

impl Document {
    fn check(self) -> Result<Config, Problem> {
        check_not_empty("cluster", &self.cluster)?;
        check_address("client_listen", &self.client_listen)?;
        check_address("peer_listen", &self.peer_listen)?;
        check_address("metrics_listen", &self.metrics_listen)?;
        let heartbeat_ms = self.heartbeat_ms.get();
        if heartbeat_ms.saturating_mul(2) >= self.election_timeout_ms.get_ref().get() {
            return Err(Problem::at(
                &self.election_timeout_ms,
                format!(
                    "election_timeout_ms must be more than twice heartbeat_ms ({heartbeat_ms}): \
                     one late heartbeat must not cost an election"
                ),
            ));
        }
        let members = self.check_members()?;
        if !members.iter().any(|member| member.name == *self.name.get_ref()) {
            let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            return Err(Problem::at(
                &self.name,
                format!(
                    "name = {:?} is not among [[members]]: {}",
                    self.name.get_ref(),
                    names.join(", ")
                ),
            ));
        }
        if self.join && members.len() < 2 {
            return Err(Problem::at(
                &self.name,
                "join = true needs a member of the cluster among [[members]], to ask who this one \
                 is",
            ));
        }
        Ok(Config {
            join: self.join,
            name: self.name.into_inner(),
            cluster: self.cluster.into_inner(),
            data_dir: self.data_dir,
            client_listen: self.client_listen.into_inner(),
            peer_listen: self.peer_listen.into_inner(),
            metrics_listen: self.metrics_listen.into_inner(),
            members,
            heartbeat: Duration::from_millis(heartbeat_ms),
            election_timeout: Duration::from_millis(self.election_timeout_ms.into_inner().get()),
            settings: self.settings,
        })
    }

    fn check_members(&self) -> Result<Vec<Member>, Problem> {
        let mut ids: HashMap<NodeId, &str> = HashMap::new();
        let mut peers: HashMap<&str, &str> = HashMap::new();
        let mut members = Vec::with_capacity(self.members.len());
        for entry in &self.members {
            check_not_empty("name", &entry.name)?;
            check_address("peer", &entry.peer)?;
            check_address("client", &entry.client)?;
            let name = entry.name.get_ref();
            let id = member_id(self.cluster.get_ref(), name);
            if let Some(other) = ids.insert(id, name) {
                let problem = if other == name {
                    format!("member {name:?} is named twice")
                } else {
                    format!("members {name:?} and {other:?} get the same id; rename one")
                };
                return Err(Problem::at(&entry.name, problem));
            }
            if let Some(other) = peers.insert(entry.peer.get_ref(), name) {
                let problem = format!("members {other:?} and {name:?} have the same peer address");
                return Err(Problem::at(&entry.peer, problem));
            }
            members.push(Member {
                id,
                name: name.clone(),
                peer: entry.peer.get_ref().clone(),
                client: entry.client.get_ref().clone(),
            });
        }
        Ok(members)
    }
}

fn check_not_empty(key: &str, value: &Spanned<String>) -> Result<(), Problem> {
    if value.get_ref().is_empty() {
        return Err(Problem::at(value, format!("{key} must not be empty")));
    }
    Ok(())
}

fn check_address(key: &str, value: &Spanned<String>) -> Result<(), Problem> {
    let address = value.get_ref();
    if is_address(address) {
        return Ok(());
    }
    Err(Problem::at(value, format!("{key} = {address:?} is not HOST:PORT (127.0.0.1:2379)")))
}

/// Whether it is `HOST:PORT`.
pub(crate) fn is_address(text: &str) -> bool {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !text.contains(forbidden) && port.parse::<u16>().is_ok()
    })
}

/// serde says what it found and what it expected, but not always for which key.
fn with_key(text: &str, span: Option<std::ops::Range<usize>>, message: &str) -> String {
    let key = span.and_then(|span| {
        let line = text.get(span.start..)?.lines().next()?;
        let start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let whole = format!("{}{line}", &text[start..span.start]);
        let (key, _) = whole.split_once('=')?;
        Some(key.trim().to_owned())
    });
    match key {
        Some(key) if !message.contains(&format!("`{key}`")) => format!("{key}: {message}"),
        _ => message.to_owned(),
    }
}

fn member_id(cluster: &str, name: &str) -> NodeId {
    // A separator that no token or name contains by accident; 0 is no id.
    fnv1a(&[cluster.as_bytes(), &[0], name.as_bytes()]).max(1)
}

/// The id of a member that is added: `nonce` is drawn at random, so that none comes twice.
pub(crate) fn added_member_id(cluster_id: u64, peer: &str, nonce: u64) -> NodeId {
    fnv1a(&[&cluster_id.to_le_bytes(), &[1], peer.as_bytes(), &nonce.to_le_bytes()]).max(1)
}

/// FNV-1a, 64 bits: small, and the same in every version.
fn fnv1a(parts: &[&[u8]]) -> u64 {
    parts.iter().flat_map(|part| part.iter()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "n1"
cluster = "test"
data_dir = "data/n1"
client_listen = "127.0.0.1:1"
peer_listen = "127.0.0.1:2"
metrics_listen = "127.0.0.1:3"
heartbeat_ms = 100
election_timeout_ms = 1000

[[members]]
name = "n1"
peer = "127.0.0.1:2"
client = "127.0.0.1:1"

[settings]
pre_vote = false
"#;

    fn refusal(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from:?} is not in the good file");
        let text = GOOD.replacen(from, to, 1);
        Config::parse(&text, Path::new("n1.toml")).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_good_file_is_taken_and_what_it_leaves_out_has_defaults() {
        let config = Config::parse(GOOD, Path::new("n1.toml")).expect("good");
        assert!(!config.settings.pre_vote);
        assert!(config.settings.check_quorum);
        assert_eq!(config.election_timeout, Duration::from_secs(1));
        assert_eq!(config.members[0].id, config.id());
    }

    #[test]
    fn refusals_name_file_line_key_and_what_is_allowed() {
        let cases = [
            ("pre_vote = false", "prevote = false", "n1.toml:16: ", "unknown field `prevote`"),
            ("pre_vote = false", "prevote = false", "n1.toml:16: ", "`pre_vote`"),
            ("pre_vote = false", "max_inflight_log_batches = 1025", "n1.toml:16: ", "1 to 1024"),
            (
                "heartbeat_ms = 100",
                "heartbeat_ms = \"100\"",
                "n1.toml:7: heartbeat_ms: ",
                "expected a nonzero u64",
            ),
            ("heartbeat_ms = 100", "heartbeat_ms = 0", "n1.toml:7: heartbeat_ms: ", "nonzero"),
            ("heartbeat_ms = 100", "heartbeat_ms = -1", "n1.toml:7: heartbeat_ms: ", "-1"),
            ("heartbeat_ms = 100", "heartbeat_ms = 500", "n1.toml:8: ", "more than twice"),
            ("name = \"n1\"", "name = \"n9\"", "n1.toml:1: ", "not among [[members]]: n1"),
            ("127.0.0.1:2\"", "127.0.0.1\"", "n1.toml:5: peer_listen", "HOST:PORT"),
            ("cluster = \"test\"", "cluster = \"\"", "n1.toml:2: cluster", "empty"),
            ("data_dir = \"data/n1\"\n", "", "n1.toml:1: ", "missing field `data_dir`"),
            (
                "[[members]]",
                "join = true\n[[members]]",
                "n1.toml:1: ",
                "join = true needs a member",
            ),
            ("pre_vote = false", "pre_vote = 1", "n1.toml:16: pre_vote: ", "boolean"),
            ("pre_vote = false", "log_disk = \"ssd\"", "n1.toml:16: log_disk: ", "`io_uring`"),
            ("pre_vote = false", "segment_bytes = 0", "n1.toml:16: segment_bytes: ", "nonzero"),
            (
                "[settings]",
                "[[members]]\nname = \"n1\"\npeer = \"h:1\"\nclient = \"h:2\"\n[settings]",
                "n1.toml:16: ",
                "named twice",
            ),
        ];
        for (from, to, place, what) in cases {
            let error = refusal(from, to);
            assert!(error.starts_with(place) && error.contains(what), "{to:?}: {error}");
        }
    }

    #[cfg(not(feature = "seeded-bugs"))]
    #[test]
    fn a_seeded_bug_is_an_unknown_key_without_the_feature() {
        let error = refusal("pre_vote = false", "seeded_bug = \"vote-not-persisted\"");
        assert!(error.contains("unknown field `seeded_bug`"), "{error}");
    }

    #[cfg(feature = "seeded-bugs")]
    #[test]
    fn seeded_bugs_are_chosen_by_name() {
        let text = GOOD.replace("pre_vote = false", "seeded_bug = \"vote-not-persisted\"");
        let config = Config::parse(&text, Path::new("n1.toml")).expect("good");
        assert_eq!(config.settings.seeded_bug, Some(SeededBug::VoteNotPersisted));
    }
}
