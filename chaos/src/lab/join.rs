//! Enters a lab that runs, from outside.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};

use super::enter::{take_signals, wait};
use super::init::{code, spawn_unblocked};
use super::inside::names;
use super::passport::Passport;
use crate::Error;

/// Runs `command` on `host` of the lab, in its view of processes and files; it ends with the lab at
/// the latest. This process must have one thread, and is in the lab afterwards.
pub fn join(passport: &Passport, host: &str, command: &mut Command) -> Result<ExitCode, Error> {
    let doing = |what| move |source: std::io::Error| Error::Lab { what, problem: source };
    let entry = passport.hosts.iter().find(|entry| entry.name == host).ok_or_else(|| {
        let known = names(passport.hosts.iter().map(|entry| entry.name.as_str()));
        Error::UnknownHost { name: host.to_owned(), known }
    })?;
    let of_init = |name: &str| PathBuf::from(format!("/proc/{}/ns/{name}", passport.init_pid));
    let is_other_user = namespace(&of_init("user")) != namespace(&"/proc/self/ns/user".into());
    let mut doors = Vec::new();
    // The user namespace first: it gives the right to the others. Mounts last: paths change then.
    if is_other_user {
        doors.push((of_init("user"), CloneFlags::CLONE_NEWUSER));
    }
    doors.push((Passport::file(passport.init_pid, entry.netns_fd), CloneFlags::CLONE_NEWNET));
    doors.push((of_init("pid"), CloneFlags::CLONE_NEWPID));
    doors.push((of_init("mnt"), CloneFlags::CLONE_NEWNS));
    let opened: Vec<_> = doors
        .into_iter()
        .map(|(path, kind)| Ok((File::open(path)?, kind)))
        .collect::<std::io::Result<_>>()
        .map_err(doing("be opened (it belongs to another user, or is about to end)"))?;
    let signals = take_signals().map_err(doing("take signals"))?;
    for (file, kind) in opened {
        setns(file, kind).map_err(|errno| doing("be joined")(errno.into()))?;
    }
    let mut child = spawn_unblocked(command).map_err(|source| Error::Command {
        program: command.get_program().to_string_lossy().into_owned(),
        problem: source,
    })?;
    let status = wait(&mut child, &signals).map_err(doing("wait for a command"))?;
    Ok(ExitCode::from(code(status)))
}

fn namespace(path: &PathBuf) -> Option<PathBuf> {
    std::fs::read_link(path).ok()
}
