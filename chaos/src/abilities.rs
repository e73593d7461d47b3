//! What this host can do of what faults and labs need, found by doing it.
//!
//! Invariant: nothing is taken from a version or a setting that can be tried; what is tried is
//! undone, or lies in namespaces of a process of its own that end with it.

mod probe;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

pub(crate) use probe::{PROBE, work};

/// One thing that a host can do, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// What.
    pub name: String,
    /// It was tried, and worked.
    pub works: bool,
    /// What was seen: where it failed, the kernel's word and, where one is known, the remedy.
    pub seen: String,
    /// What it is needed for, or what is missing without it.
    pub serves: String,
}

impl Ability {
    fn of(name: &str, serves: &str, tried: Result<String, String>) -> Self {
        let (works, seen) = match tried {
            Ok(seen) => (true, seen),
            Err(seen) => (false, seen),
        };
        Self { name: name.into(), works, seen, serves: serves.into() }
    }
}

/// Tries everything.
pub fn examine() -> Vec<Ability> {
    let mut abilities = vec![Ability::of(
        "pidfd",
        "faults of processes, and the keeper that ends what a run started; nothing runs without",
        pidfd(),
    )];
    abilities.extend(probe::ask());
    abilities.extend([
        Ability::of("cgroup v2, io", "limits of a real device's rate (io.max)", cgroup_v2()),
        Ability::of(
            "cgroup v1, blkio",
            "the same where there is no v2 (blkio.throttle)",
            cgroup_v1(),
        ),
        Ability::of(
            "io_uring",
            "the fastest way to a log on disk; without it, blocking calls",
            io_uring::IoUring::new(2).map(|_| "a ring was set up".into()).map_err(|error| {
                format!(
                    "{error} (a container's seccomp filter, or sysctl kernel.io_uring_disabled)"
                )
            }),
        ),
        Ability::of("etcd", "--target etcd", version("etcd", "apt-get install etcd-server")),
    ]);
    abilities
}

fn pidfd() -> Result<String, String> {
    let own = rustix::process::getpid();
    let opened = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty());
    opened.map(|_| "opened".into()).map_err(|errno| format!("{errno}; Linux 5.4 or later has it"))
}

fn version(program: &str, remedy: &str) -> Result<String, String> {
    let run = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    match run {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or("it runs").trim().to_owned())
        }
        Err(error) => Err(format!("{error} ({remedy})")),
    }
}

/// Where a cgroup hierarchy of that type (and with that option) is mounted.
fn mounted(kind: &str, option: &str) -> Option<String> {
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    let found = mounts.into_iter().find(|mount| {
        mount.fs_type == kind && (option.is_empty() || mount.super_options.contains_key(option))
    })?;
    Some(found.mount_point.to_string_lossy().into_owned())
}

fn cgroup_v2() -> Result<String, String> {
    let root = mounted("cgroup2", "").ok_or("no cgroup2 file system is mounted")?;
    let controllers = fs::read_to_string(format!("{root}/cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|controller| controller == "io") {
        return Err(format!("{root} has no io controller (it has: {})", controllers.trim()));
    }
    make_and_remove(&root)
}

fn cgroup_v1() -> Result<String, String> {
    let root = mounted("cgroup", "blkio").ok_or("no cgroup v1 hierarchy has blkio")?;
    let throttle = Path::new(&root).join("blkio.throttle.write_bps_device");
    if !throttle.exists() {
        return Err(format!("{root} has no blkio.throttle"));
    }
    make_and_remove(&root)
}

fn make_and_remove(root: &str) -> Result<String, String> {
    let own = format!("{root}/raftbench-doctor-{}", std::process::id());
    fs::create_dir(&own).map_err(|error| format!("no group can be made in {root}: {error}"))?;
    fs::remove_dir(&own).map_err(|error| format!("{own} cannot be removed: {error}"))?;
    Ok(format!("a group was made in {root}, and removed"))
}
