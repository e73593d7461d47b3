//! `raftbench members`: who the members of a bench-node cluster are, and several changes of them at
//! once. (One at a time is `etcdctl member`.)

use std::fmt::Write as _;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use api::admin::admin_client::AdminClient;
use api::admin::{ChangeMembershipRequest, ListMembershipRequest, Member};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{say, show};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between looks at whether the new members have caught up.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `members`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A member's client address, HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    endpoint: String,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show them (what `members` alone does, too)
    List,
    /// Add and remove several in one change, through joint consensus
    ///
    /// New ones are added as learners. Once all of them were started (with join = true in their
    /// configuration) and have caught up, they get their votes, and those to be removed lose
    /// theirs, in one step. Stopped before that, it can be asked again.
    Change(Change),
}

#[derive(Debug, clap::Args)]
struct Change {
    /// A new member, by its peer address; may be given several times
    #[arg(long, value_name = "NAME=HOST:PORT")]
    add: Vec<New>,
    /// A member to remove, by name or by id; may be given several times
    #[arg(long, value_name = "NAME|ID")]
    remove: Vec<String>,
    /// How long the new ones may take to start and catch up
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait_s: u64,
}

#[derive(Clone, Debug)]
struct New {
    name: String,
    peer: String,
}

impl FromStr for New {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, peer) = text.split_once('=').ok_or("it is not NAME=HOST:PORT")?;
        Ok(Self { name: name.to_owned(), peer: peer.to_owned() })
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let members = runtime.block_on(async {
        let admin = connect(&args.endpoint).await?;
        match args.what {
            None | Some(What::List) => list(admin).await,
            Some(What::Change(change)) => change.make(admin).await,
        }
    })?;
    show(&table(&members))?;
    Ok(ExitCode::SUCCESS)
}

async fn connect(endpoint: &str) -> anyhow::Result<AdminClient<Channel>> {
    let address = Endpoint::from_shared(format!("http://{endpoint}"));
    let address = address.with_context(|| format!("--endpoint {endpoint}: not HOST:PORT"))?;
    let channel = address.connect_timeout(CONNECT_TIMEOUT).connect().await;
    Ok(AdminClient::new(channel.with_context(|| format!("--endpoint {endpoint}: no answer"))?))
}

async fn list(mut admin: AdminClient<Channel>) -> anyhow::Result<Vec<Member>> {
    let listed = admin.list_membership(ListMembershipRequest {}).await.map_err(in_words)?;
    Ok(listed.into_inner().members)
}

impl Change {
    async fn make(self, mut admin: AdminClient<Channel>) -> anyhow::Result<Vec<Member>> {
        let mut members = list(admin.clone()).await?;
        let removed = self.removed(&members)?;
        let is_there = |members: &[Member], new: &New| members.iter().any(|m| m.peer == new.peer);
        let missing: Vec<_> =
            self.add.iter().filter(|new| !is_there(&members, new)).cloned().collect();
        if !missing.is_empty() {
            let ids = |voter| members.iter().filter(move |m| m.voter == voter).map(|m| m.id);
            let request = ChangeMembershipRequest {
                voters: ids(true).collect(),
                learners: ids(false).collect(),
                added_learners: missing.iter().map(|new| new.peer.clone()).collect(),
            };
            let changed = admin.change_membership(request).await.map_err(in_words)?;
            members = changed.into_inner().members;
            for New { name, peer } in &missing {
                say(&format!(
                    "{name} is added, and learns. Start it with join = true in its configuration, \
                     and among its [[members]] itself (peer = \"{peer}\") and any other member"
                ));
            }
        }
        let stays = |member: &&Member| !removed.contains(&member.id);
        let is_new = |member: &Member| self.add.iter().any(|new| new.peer == member.peer);
        let (voters, learners): (Vec<_>, Vec<_>) =
            members.iter().filter(stays).partition(|member| member.voter || is_new(member));
        let ids = |members: Vec<&Member>| members.into_iter().map(|member| member.id).collect();
        let whole = ChangeMembershipRequest {
            voters: ids(voters),
            learners: ids(learners),
            added_learners: Vec::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(self.wait_s);
        let mut told = None;
        loop {
            match admin.change_membership(whole.clone()).await {
                Ok(changed) => return Ok(changed.into_inner().members),
                Err(status) if may_pass(&status) && Instant::now() < deadline => {
                    if told.as_deref() != Some(status.message()) {
                        say(&format!("waiting: {}", status.message()));
                        told = Some(status.message().to_owned());
                    }
                }
                Err(status) => return Err(in_words(status)),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn removed(&self, members: &[Member]) -> anyhow::Result<Vec<u64>> {
        let find = |wanted: &String| {
            let is_it = |m: &&Member| m.name == *wanted || format!("{:x}", m.id) == *wanted;
            members.iter().find(is_it).map(|member| member.id).ok_or_else(|| {
                anyhow!(
                    "--remove {wanted}: no member has this name or id; there are:\n{}",
                    table(members)
                )
            })
        };
        if self.add.is_empty() && self.remove.is_empty() {
            bail!("nothing to change: give --add NAME=HOST:PORT or --remove NAME");
        }
        self.remove.iter().map(find).collect()
    }
}

/// Whether the same ask may be granted later: new members have not started, or lag.
fn may_pass(status: &Status) -> bool {
    let lags = ["no data directory yet", "which is in sync with leader"];
    status.code() == Code::Unavailable || lags.iter().any(|text| status.message().contains(text))
}

fn in_words(status: Status) -> anyhow::Error {
    match status.code() {
        Code::Unimplemented => {
            anyhow!("this is no bench-node: its API has no members of this kind")
        }
        _ => anyhow!("{}", status.message().to_owned()),
    }
}

fn table(members: &[Member]) -> String {
    let mut text = format!("{:<18}{:<10}{:<9}{:<24}{}\n", "id", "name", "part", "peer", "client");
    for Member { id, name, peer, client, voter } in members {
        let name = if name.is_empty() { "unstarted" } else { name };
        let part = if *voter { "voter" } else { "learner" };
        let id = format!("{id:016x}");
        // To a string, that does not fail.
        let _ = writeln!(text, "{id:<18}{name:<10}{part:<9}{peer:<24}{client}");
    }
    text
}
