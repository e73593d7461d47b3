//! A plan's lab: the way in, its links under the plan's conditions, and what was measured of them.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use chaos::lab::links::{self, Network};
use chaos::lab::{Host, Lab, enter, enter_with_disks};

use super::disks::LaidDisks;
use crate::folder::RunFolder;
use crate::keeper::{Keeper, MARK};
use crate::plan::{DiskPlan, NetworkPlan};

/// In a run's folder while its lab runs, for those who join.
const PASSPORT: &str = "lab.json";

/// Runs this same command line again in a lab with the plan's hosts, and gives the code that it
/// ended with; `None`: this process is in it already. To be called before any thread is started.
pub fn run_inside(network: &NetworkPlan, with_disks: bool) -> anyhow::Result<Option<ExitCode>> {
    if Lab::inside().is_some() {
        return Ok(None);
    }
    let keeper = Keeper::start()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mark = (MARK, keeper.mark());
    let status = match with_disks {
        false => enter(&network.layout, &arguments, mark)?,
        true => enter_with_disks(&network.layout, &arguments, mark)?,
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Some(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))))
}

/// The lab around this process, with its links laid.
pub struct LaidLab {
    lab: Lab,
    network: Arc<Mutex<Network>>,
    plan: NetworkPlan,
    folder: RunFolder,
    disks: Option<LaidDisks>,
}

impl LaidLab {
    /// Lays the links that `plan` asks for; `folder` tells others where the lab is, until this
    /// value ends.
    pub fn lay(plan: &NetworkPlan, folder: &RunFolder) -> anyhow::Result<Self> {
        let lab = Lab::inside().context("this process is not in a lab")?;
        let links = links::lay(&lab, plan.links, plan.seed)?;
        let names = lab.hosts().iter().map(|host| host.name().to_owned()).collect();
        let mut network = Network::new(links, names);
        network.set(&plan.conditions)?;
        lab.passport().write(&folder.file(PASSPORT))?;
        let (network, plan, folder) = (Arc::new(Mutex::new(network)), plan.clone(), folder.clone());
        Ok(Self { lab, network, plan, folder, disks: None })
    }

    /// Lays a disk under the folder of each of `hosts`, which is made.
    pub fn with_disks(mut self, plan: &DiskPlan, hosts: &[String]) -> anyhow::Result<Self> {
        self.disks = Some(LaidDisks::lay(&self.lab, plan, hosts, &self.folder)?);
        Ok(self)
    }

    pub(super) fn disks(&self) -> Option<&LaidDisks> {
        self.disks.as_ref()
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> anyhow::Result<&Host> {
        Ok(self.lab.host(name)?)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    /// For faults, which look after its links on threads of their own.
    pub(super) fn shared_network(&self) -> Arc<Mutex<Network>> {
        self.network.clone()
    }

    pub(super) fn network(&self) -> std::sync::MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LaidLab {
    fn drop(&mut self) {
        std::fs::remove_file(self.folder.file(PASSPORT)).ok();
    }
}

/// Where the lab of the run in `folder` is.
pub fn passport(folder: &std::path::Path) -> std::path::PathBuf {
    folder.join(PASSPORT)
}
