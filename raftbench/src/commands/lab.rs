//! `raftbench lab`: runs a command on a host of a lab: of one made for it, or of a run's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use chaos::lab::{Passport, join};

use super::resolve::ProfileArgs;
use crate::conductor::lab::{LaidLab, passport, run_inside};
use crate::folder::RunFolder;
use crate::keeper::{Keeper, MARK};
use crate::plan::{DiskPlan, NetworkPlan};

/// Arguments of `lab`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "raftbench lab PROFILE [OPTIONS] -- COMMAND...\n       \
                            raftbench lab --join RUN [--host NAME] -- COMMAND...")]
pub(super) struct Args {
    #[command(flatten)]
    profile: Option<ProfileArgs>,
    /// On which host: n1, n2, ... or c1
    #[arg(long, value_name = "NAME", default_value = "c1")]
    host: String,
    /// Enter the lab of this run, which goes on: its folder
    #[arg(long, value_name = "RUN", conflicts_with = "profile")]
    join: Option<PathBuf>,
    /// Where the hosts' folders are made [default: results/local/<time>-lab-<profile>; removed
    /// where nothing was left in it]
    #[arg(long, value_name = "DIR", conflicts_with = "join")]
    out: Option<PathBuf>,
    /// What to run there, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    if let Some(run) = &args.join {
        return join_run(run, &args.host, &mut command);
    }
    let profile = args.profile.context("give a profile, or --join RUN")?;
    let cluster = profile.plan()?.cluster;
    let network = match cluster.network {
        Some(network) => network,
        None => NetworkPlan::plain(cluster.nodes)?,
    };
    // Before anything is made.
    network.ensure_host(&args.host)?;
    if let Some(code) = run_inside(&network, cluster.disk.is_some())? {
        return Ok(code);
    }
    let is_default = args.out.is_none();
    let path = args.out.unwrap_or_else(|| RunFolder::default_path("lab", profile.name()));
    let folder = RunFolder::create(&path)?;
    let ran = run_here(&network, cluster.disk.as_ref(), &folder, &args.host, command);
    if is_default {
        folder.remove_unless_used();
    }
    ran
}

fn run_here(
    network: &NetworkPlan,
    disk: Option<&DiskPlan>,
    folder: &RunFolder,
    host: &str,
    mut command: Command,
) -> anyhow::Result<ExitCode> {
    let mut lab = LaidLab::lay(network, folder)?;
    let own = std::path::absolute(folder.data().join(host))?;
    match disk {
        Some(disk) => lab = lab.with_disks(disk, &[host.to_owned()])?,
        None => {
            let made = std::fs::create_dir(&own);
            made.with_context(|| format!("cannot make {}", own.display()))?;
        }
    }
    let mut child = lab.host(host)?.spawn(command.current_dir(own))?;
    let status = child.wait().context("cannot wait for the command")?;
    Ok(code(status))
}

fn join_run(run: &std::path::Path, host: &str, command: &mut Command) -> anyhow::Result<ExitCode> {
    let passport = Passport::read(&passport(run))?;
    // The folder's name there is the same: the lab has mounts of its own, but no other root.
    let own = std::path::absolute(run)?.join("data").join(host);
    std::fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    let keeper = Keeper::start()?;
    command.current_dir(own).env(MARK, keeper.mark());
    Ok(join(&passport, host, command)?)
}

/// As a shell tells it.
fn code(status: std::process::ExitStatus) -> ExitCode {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
