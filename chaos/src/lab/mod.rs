//! The lab: private hosts on one machine, each with its own network, joined by [`links`].
//!
//! A program that wants a lab calls [`enter`] while it has one thread: this runs the program's
//! command line again inside, and gives back how that ended. There [`Lab::inside`] knows the hosts.
//! Three processes make a lab: the one that entered (outside, for the user's signals), the lab's
//! first process (`init`), and the program again. What they need of a program is that its `main`
//! begins with [`role`].
//!
//! ```text
//! outside   enter ---- pipe, death signal ----.
//! inside               init (pid 1) --- the program again, on host c1 --- what it starts on n1, n2
//!                        holds a network namespace for each host
//! ```
//!
//! Invariant: everything of a lab lives in a pid namespace whose first process dies with the one
//! that entered; the kernel then ends the others, and takes down namespaces, mounts and interfaces.
//! Nothing is made outside of them. No setuid helper is needed: an ordinary user gets a user
//! namespace, and is root in the lab alone.

pub mod disks;
mod enter;
mod flows;
mod init;
mod inside;
mod iproute;
mod join;
mod layout;
pub(crate) mod ledger;
pub mod links;
mod passport;
mod permission;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

pub use enter::{enter, enter_with_disks};
pub use flows::Flow;
pub use inside::{Host, Lab};
pub use join::join;
pub use layout::{HostAddress, Layout};
pub use passport::Passport;

// For those who try what a host can do.
pub(crate) use enter::take_the_right;
pub(crate) use flows::{Family, dump as dump_flows};
pub(crate) use iproute::Tool;
pub(crate) use links::switch::try_tun;

/// What the first argument of a lab's own processes is.
const INIT: &str = "lab-init";
/// See [`links::switch`].
const SWITCH: &str = "lab-switch";
/// See [`disks`].
const DISKS: &str = "lab-disks";

/// Does the work of a lab's own process, if this process was started as one; `None`: it is the
/// program itself. To be called first of all: namespaces are entered by a process with one thread.
pub fn role() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    let worked = match role.to_str()? {
        INIT => init::work(arguments),
        SWITCH => links::switch::process::work(),
        DISKS => disks::server::work(),
        crate::abilities::PROBE => crate::abilities::work(),
        _ => return None,
    };
    Some(worked.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    }))
}

/// This program, to be started again. By its open file, which is the same also after a newer build
/// took its name.
pub(crate) fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(std::env::args_os().next().unwrap_or_default());
    command
}
