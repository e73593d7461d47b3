//! `raftbench up`: a cluster to play with, until Ctrl-C.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::resolve::ProfileArgs;
use super::{say, show};
use crate::conductor::{self, Cluster, Watch};
use crate::folder::RunFolder;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Print one line of JSON once the cluster serves
    #[arg(long)]
    json: bool,
    /// Where the nodes' data and logs go [default: results/local/<time>-up-<profile>-<target>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let plan = args.profile.plan()?;
    conductor::ensure_startable(&plan.cluster)?;
    if let Some(network) = &plan.cluster.network
        && let Some(code) = conductor::lab::run_inside(network, plan.cluster.disk.is_some())?
    {
        return Ok(code);
    }
    let name = format!("up-{}", plan.profile);
    let path =
        args.out.unwrap_or_else(|| RunFolder::default_path(&name, plan.cluster.target.name()));
    let folder = RunFolder::create(&path)?;
    let mut watch = Watch::quiet();
    if std::io::stderr().is_terminal() {
        watch.says = Arc::new(say);
    }
    let ready = |cluster: &Cluster| {
        let text = if args.json { json(cluster) } else { text(cluster, &folder) };
        // The cluster stays up for whoever finds it in another way.
        show(&(text + "\n")).unwrap_or_else(|error| say(&format!("{error:#}")));
    };
    match conductor::keep_up(&plan.cluster, &folder, &watch, ready, say) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if folder.discard_unless_logged() => Err(error),
        Err(error) => {
            let logs = folder.logs();
            Err(error.context(format!("the cluster is not up; logs are in {}", logs.display())))
        }
    }
}

/// The line that scripts read.
#[derive(Serialize)]
struct Up {
    endpoints: Vec<String>,
    nodes: Vec<UpNode>,
}

#[derive(Serialize)]
struct UpNode {
    name: String,
    pid: i32,
    client: String,
    peer: String,
    metrics: String,
    data_dir: PathBuf,
}

fn json(cluster: &Cluster) -> String {
    let nodes = cluster.processes().into_iter().map(|(member, pid)| UpNode {
        name: member.name,
        pid,
        client: member.client,
        peer: member.peer,
        metrics: member.metrics,
        data_dir: member.data_dir,
    });
    let up = Up { endpoints: cluster.endpoints(), nodes: nodes.collect() };
    serde_json::to_string(&up).unwrap_or_default()
}

fn text(cluster: &Cluster, folder: &RunFolder) -> String {
    let mut text = format!("{} serves:\n", cluster.version());
    for (member, pid) in cluster.processes() {
        let (client, metrics) = (member.client, member.metrics);
        text += &format!("  {}  {client}  pid {pid}  http://{metrics}/metrics\n", member.name);
    }
    let enter = match cluster.is_in_a_lab() {
        true => format!("raftbench lab --join {} -- ", folder.path().display()),
        false => String::new(),
    };
    let endpoints = cluster.endpoints().join(",");
    text += &format!("  {enter}etcdctl --endpoints={endpoints} get --prefix ''\n");
    text += &format!("data and logs are in {}; Ctrl-C ends it", folder.path().display());
    text
}
