//! `manifest.toml`: what a reader needs to weigh a run, and to repeat it.
//!
//! Invariant: no absolute path. Of one that the command named, the last part is kept.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use toml::{Table, Value};

use super::host::host;
use crate::evidence::Observed;
use crate::plan::Plan;

/// Its text. `arguments` are the command line's, without the program.
pub(super) fn manifest(plan: &Plan, observed: &Observed, arguments: &[String]) -> Table {
    let zero_unix_ns = u64::try_from(observed.zero_unix_ns).unwrap_or(0);
    let time_zero = UNIX_EPOCH + Duration::from_nanos(zero_unix_ns);
    let mut run = Table::new();
    run.insert("profile".into(), plan.profile.clone().into());
    run.insert("target".into(), plan.cluster.target.name().into());
    run.insert("seed".into(), i64::try_from(plan.seed).unwrap_or(i64::MAX).into());
    run.insert("command".into(), command(arguments).into());
    run.insert("time_zero".into(), humantime::format_rfc3339_micros(time_zero).to_string().into());
    run.insert("time_zero_unix_ns".into(), i64::try_from(zero_unix_ns).unwrap_or(0).into());
    run.insert("key_prefix".into(), plan.load.keys.prefix.clone().into());

    let mut versions = Table::new();
    versions.insert("raftbench".into(), env!("CARGO_PKG_VERSION").into());
    versions.insert("target".into(), observed.target_version.clone().into());

    let mut host = host();
    if let Some(data_dir) = &observed.data_dir {
        host.insert("data_filesystem".into(), data_dir.filesystem.clone().into());
        host.insert("data_on_tmpfs".into(), data_dir.tmpfs.into());
    }

    let node = |node: &crate::evidence::NodeRecord| {
        let mut table = Table::new();
        table.insert("name".into(), node.name.clone().into());
        table.insert("client".into(), node.client.clone().into());
        Value::Table(table)
    };
    let mut manifest = Table::new();
    manifest.insert("run".into(), Value::Table(run));
    manifest.insert("versions".into(), Value::Table(versions));
    manifest.insert("host".into(), Value::Table(host));
    manifest.insert("nodes".into(), Value::Array(observed.nodes.iter().map(node).collect()));
    manifest.insert("profile".into(), Value::Table(plan.to_profile()));
    manifest
}

fn command(arguments: &[String]) -> Vec<String> {
    let relative = |argument: &String| {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (format!("{flag}="), value),
            _ => (String::new(), argument.as_str()),
        };
        let path = Path::new(value);
        let kept = match path.is_absolute() {
            true => path.file_name().unwrap_or_default().to_string_lossy(),
            false => value.into(),
        };
        format!("{flag}{kept}")
    };
    std::iter::once("raftbench".to_owned()).chain(arguments.iter().map(relative)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_keeps_no_absolute_path() {
        let arguments = ["run", "/home/me/p.toml", "--out=/tmp/x", "--set", "load.timeout_ms=5"];
        let kept = command(&arguments.map(str::to_owned));
        assert_eq!(kept, ["raftbench", "run", "p.toml", "--out=x", "--set", "load.timeout_ms=5"]);
    }
}
