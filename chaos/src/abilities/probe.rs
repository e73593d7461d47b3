//! What can only be tried in namespaces: a process of its own makes them as a lab does, tries, says
//! what it saw, and ends.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::process::{ExitCode, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use thread_priority::unix::{ScheduleParams, set_thread_priority_and_policy, thread_native_id};
use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use super::Ability;
use crate::Error;
use crate::lab::{Tool, take_the_right, this_program, try_tun};

/// What the first argument of that process is.
pub(crate) const PROBE: &str = "lab-probe";

const NAMESPACES: (&str, &str) =
    ("namespaces", "labs: hosts of their own, their links and disks; loopback runs need none");

/// Starts that process, and gives what it saw.
pub(super) fn ask() -> Vec<Ability> {
    let mut command = this_program();
    command.arg(PROBE).stdin(Stdio::null()).stderr(Stdio::piped());
    let failed = |why: String| vec![Ability::of(NAMESPACES.0, NAMESPACES.1, Err(why))];
    match command.output() {
        Err(error) => failed(error.to_string()),
        Ok(output) => serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// That process.
pub(crate) fn work() -> Result<ExitCode, Error> {
    let abilities = try_all();
    let text = serde_json::to_string(&abilities)
        .map_err(|error| Error::Lab { what: "tell what it saw", problem: error.into() })?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn try_all() -> Vec<Ability> {
    let realtime = real_time();
    let as_whom = match nix::unistd::geteuid().is_root() {
        true => "made as root",
        false => "made as an ordinary user",
    };
    let made = take_the_right().map_err(|error| error.to_string()).and_then(|()| {
        let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(own).map_err(|errno| format!("no network or mounts of its own: {errno}"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|errno| format!("its mounts cannot be kept to itself: {errno}"))
    });
    let inside = made.is_ok();
    let there = |tried: fn() -> Result<String, String>| match inside {
        true => tried(),
        false => Err("not tried: there are no namespaces to try it in".into()),
    };
    let mut abilities = vec![
        Ability::of("iproute2", "links between a lab's hosts, of both kinds", there(iproute)),
        Ability::of("netem", "links by the kernel; without it, by a switch of ours", there(netem)),
        Ability::of("TUN", "links by the switch, where there is no netem", there(try_tun)),
        Ability::of(
            "sock_diag",
            "the proof that faults of links bit, which are invalid without",
            there(|| {
                let flows = crate::lab::dump_flows(crate::lab::Family::V4)
                    .map_err(|error| error.to_string())?;
                Ok(format!("asked, {} connections", flows.len()))
            }),
        ),
        Ability::of("FUSE", "emulated disks", there(fuse)),
        Ability::of(
            "real-time priority",
            "a generator and a switch on time beside busy nodes; without it, their lag is reported",
            realtime,
        ),
    ];
    // The last: its first child would be the first process there, and no other could follow it.
    let made = made.and_then(|()| {
        unshare(CloneFlags::CLONE_NEWPID)
            .map(|()| as_whom.to_owned())
            .map_err(|errno| format!("no view of processes of its own: {errno}"))
    });
    abilities.insert(0, Ability::of(NAMESPACES.0, NAMESPACES.1, made));
    abilities
}

/// Before there is a user namespace, in which nobody may.
fn real_time() -> Result<String, String> {
    let lowest = ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 });
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), lowest, fifo)
        .map(|()| "given to a thread".to_owned())
        .map_err(|error| format!("refused: {error} (root may, or a user with `ulimit -r`)"))
}

fn iproute() -> Result<String, String> {
    Tool::Ip.batch(&["link set lo up".into()]).map_err(|error| error.to_string())?;
    Ok("`ip` works".into())
}

/// All that links by netem are made of.
fn netem() -> Result<String, String> {
    let links = [
        "link add bridge type bridge".to_owned(),
        "link add probe type veth peer name other".into(),
        "link add way type ifb".into(),
        "link set way up".into(),
    ];
    let said = |error: Error| error.to_string();
    Tool::Ip.batch(&links).map_err(said)?;
    let rules = [
        "qdisc add dev probe ingress".to_owned(),
        "filter add dev probe parent ffff: protocol ip prio 1 u32 match ip dst 10.0.0.1/32 action \
         mirred egress redirect dev way"
            .into(),
        "qdisc add dev way root netem delay 1ms".into(),
    ];
    Tool::Tc.batch(&rules).map_err(said).map_err(|said| {
        match said.contains("kind is unknown") {
            true => "this kernel has no sch_netem (as root: modprobe sch_netem)".into(),
            false => said,
        }
    })?;
    Ok("a delay was set on a link".into())
}

fn fuse() -> Result<String, String> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|error| {
        format!("/dev/fuse: {error} (modprobe fuse; root can open it to all: chmod 0666 /dev/fuse)")
    })?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let target = "/mnt";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("raftbench"), target, Some("fuse"), flags, Some(&*options))
        .map_err(|errno| format!("cannot be mounted: {errno}"))?;
    umount2(target, MntFlags::MNT_DETACH)
        .map_err(|errno| format!("cannot be unmounted: {errno}"))?;
    Ok("mounted, and unmounted".into())
}
