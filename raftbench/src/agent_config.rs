//! The configuration of an agent on a real host (`raftbench chaos agent --config FILE`): TOML, parsed
//! once into a value that cannot be wrong. Read as profiles are, so each refusal names file, line and
//! key, and says what to do.
//!
//! ```toml
//! listen = "10.0.0.1:7979"
//! state_dir = "/var/lib/raftbench-agent"    # what is left to undo; the default
//! longest_lease_s = 60                      # the default
//!
//! [tls]                                     # PEM; relative to this file
//! certificate = "agent.pem"
//! key = "agent.key"
//! client_ca = "ca.pem"
//!
//! [allow]                                   # all else is refused
//! interfaces = ["eth1"]
//! block_devices = ["/dev/nvme1n1"]
//! cgroups = ["system.slice/etcd.service"]
//! units = ["etcd.service"]
//!
//! [[allow.processes]]                       # where there is no systemd
//! name = "etcd"
//! pid_file = "/run/etcd.pid"
//! start = ["/etc/init.d/etcd", "start"]     # without it, it cannot be killed
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos::agent::{Allowed, Config, PidFile, Tls, check_cgroup, check_interface, check_unit};

use crate::profile::ProfileError;
use crate::profile::document::Document;
use crate::profile::section::Section;

/// Where an agent keeps what it has to undo, unless it is told otherwise.
pub const STATE_DIR: &str = "/var/lib/raftbench-agent";

const LONGEST_LEASE_S: u64 = 60;

/// Parses the file at `path`, whose text is `text`.
pub fn parse(path: &Path, text: &str) -> Result<Config, ProfileError> {
    let document = Document::parse(&path.display().to_string(), text)?;
    let keys = ["listen", "state_dir", "longest_lease_s", "tls", "allow"];
    let root = Section::root(&document, &keys)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let tls_keys = ["certificate", "key", "client_ca"];
    let tls = root.section("tls", &tls_keys)?;
    let lists = ["interfaces", "block_devices", "cgroups", "units", "processes"];
    let allow = root.section("allow", &lists)?;
    let listen = root
        .text("listen")?
        .ok_or_else(|| root.missing("listen", "an address, as in listen = \"10.0.0.1:7979\""))?;
    let no_address = |_| {
        let message = format!("`{listen}` is no IP address with a port, such as 10.0.0.1:7979");
        root.error_at("listen", message)
    };
    Ok(Config {
        listen: listen.parse::<SocketAddr>().map_err(no_address)?,
        tls: match root.value("tls") {
            None => None,
            Some(_) => Some(Tls {
                certificate: file(&tls, "certificate", folder)?,
                key: file(&tls, "key", folder)?,
                client_ca: file(&tls, "client_ca", folder)?,
            }),
        },
        state_dir: folder.join(root.text("state_dir")?.unwrap_or(STATE_DIR)),
        longest_lease: Duration::from_secs(
            root.integer("longest_lease_s", 1..=3600)?.unwrap_or(LONGEST_LEASE_S),
        ),
        allowed: Allowed {
            interfaces: names(&allow, "interfaces", check_interface)?,
            block_devices: names(&allow, "block_devices", check_device)?
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            cgroups: names(&allow, "cgroups", check_cgroup)?,
            units: names(&allow, "units", check_unit)?,
            processes: processes(&allow)?,
        },
    })
}

fn file(tls: &Section<'_>, key: &str, folder: &Path) -> Result<PathBuf, ProfileError> {
    let name = tls.text(key)?.ok_or_else(|| tls.missing(key, "the path of a PEM file"))?;
    let path = folder.join(name);
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            Err(tls.error_at(key, message))
        }
    }
}

fn names(
    allow: &Section<'_>,
    key: &str,
    check: fn(&str) -> Result<(), &'static str>,
) -> Result<Vec<String>, ProfileError> {
    let names = allow.texts(key)?.unwrap_or_default();
    for name in &names {
        check(name).map_err(|why| allow.error_at(key, format!("`{name}` {why}")))?;
    }
    Ok(names)
}

fn check_device(path: &str) -> Result<(), &'static str> {
    match path.starts_with("/dev/") {
        true => Ok(()),
        false => Err("is no path of a disk, such as /dev/nvme1n1; `lsblk` shows those that there \
                      are"),
    }
}

fn processes(allow: &Section<'_>) -> Result<Vec<PidFile>, ProfileError> {
    let mut processes: Vec<PidFile> = Vec::new();
    for (index, value) in allow.array("processes")?.iter().enumerate() {
        let path = format!("allow.processes[{index}]");
        let section = Section::of(allow.file(), path, value, &["name", "pid_file", "start"])?;
        let name = section.text("name")?.ok_or_else(|| section.missing("name", "a name"))?;
        if processes.iter().any(|process| process.name == name) {
            return Err(section.error_at("name", format!("`{name}` is there twice")));
        }
        let pid_file = section.text("pid_file")?;
        let pid_file =
            pid_file.ok_or_else(|| section.missing("pid_file", "the path of its pid file"))?;
        let start = section.texts("start")?.unwrap_or_default();
        for (key, path) in [("pid_file", Some(pid_file)), ("start", start.first().map(|s| &**s))] {
            if path.is_some_and(|path| !path.starts_with('/')) {
                let message = "is no absolute path; give it in full, for the agent's own folder may \
                               be another";
                return Err(section.error_at(key, message.into()));
            }
        }
        processes.push(PidFile { name: name.into(), pid_file: pid_file.into(), start });
    }
    Ok(processes)
}
