//! What is asked for, checked against the list and made into values that cannot be wrong.
//!
//! Invariant: an [`Order`] names only what is on the list, and conditions that have a meaning.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::agent::{self as wire, Way};
use wire::fault::Kind;

use super::config::Allowed;
use super::process::Named;
use crate::Error;
use crate::lab::links::{Bursts, Conditions, Loss, Share, Spread, millis};

/// A fault that may be.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Netem { interface: String, conditions: Conditions },
    Partition { interface: String, peers: Vec<IpAddr>, way: Way },
    Io { cgroup: String, device: Device, limits: IoLimits },
    Cpu { cgroup: String, cpus: f64 },
    Memory { cgroup: String, max_bytes: Option<u64>, high_bytes: Option<u64> },
    Process { deed: Deed, named: Named },
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Kill,
    Pause,
    Restart,
}

/// A disk.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) path: PathBuf,
    /// `MAJOR:MINOR`.
    pub(super) numbers: String,
}

/// Per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct IoLimits {
    pub(super) read_bytes: Option<u64>,
    pub(super) write_bytes: Option<u64>,
    pub(super) reads: Option<u64>,
    pub(super) writes: Option<u64>,
}

impl Order {
    /// Checks what came over the wire.
    pub(super) fn check(fault: Option<wire::Fault>, allowed: &Allowed) -> Result<Self, Error> {
        let kind = fault.and_then(|fault| fault.kind).ok_or_else(|| {
            wrong("the fault", "is of no kind that this agent knows; is it older than its client?")
        })?;
        match kind {
            Kind::Netem(netem) => {
                let interface = listed("interface", &netem.interface, &allowed.interfaces)?;
                Ok(Self::Netem { interface, conditions: conditions(&netem)? })
            }
            Kind::Partition(partition) => {
                let interface = listed("interface", &partition.interface, &allowed.interfaces)?;
                let way = Way::try_from(partition.way)
                    .map_err(|_| wrong("way", "is none of both, in and out"))?;
                Ok(Self::Partition { interface, peers: peers(&partition.peers)?, way })
            }
            Kind::IoLimit(limit) => {
                let cgroup = listed("cgroup", &limit.cgroup, &allowed.cgroups)?;
                let paths: Vec<_> = allowed.block_devices.iter().map(|p| p.display()).collect();
                let path = PathBuf::from(listed("block device", &limit.device, &paths)?);
                let some = |rate: u64| (rate > 0).then_some(rate);
                let limits = IoLimits {
                    read_bytes: some(limit.read_bytes_per_second),
                    write_bytes: some(limit.write_bytes_per_second),
                    reads: some(limit.reads_per_second),
                    writes: some(limit.writes_per_second),
                };
                if limits.each().iter().all(|(_, limit)| limit.is_none()) {
                    return Err(wrong("an IO limit", "limits nothing; give at least one rate"));
                }
                Ok(Self::Io { cgroup, device: Device::at(&path)?, limits })
            }
            Kind::CpuLimit(limit) => {
                let cgroup = listed("cgroup", &limit.cgroup, &allowed.cgroups)?;
                match (0.01..=1024.0).contains(&limit.cpus) {
                    true => Ok(Self::Cpu { cgroup, cpus: limit.cpus }),
                    false => {
                        Err(wrong("cpus", &format!("is {}; it must be from 0.01", limit.cpus)))
                    }
                }
            }
            Kind::MemoryLimit(limit) => {
                let cgroup = listed("cgroup", &limit.cgroup, &allowed.cgroups)?;
                let some = |bytes: u64| (bytes > 0).then_some(bytes);
                let (max_bytes, high_bytes) = (some(limit.max_bytes), some(limit.high_bytes));
                match max_bytes.or(high_bytes) {
                    Some(_) => Ok(Self::Memory { cgroup, max_bytes, high_bytes }),
                    None => Err(wrong(
                        "a memory limit",
                        "limits nothing; give max_bytes, high_bytes or both",
                    )),
                }
            }
            Kind::Kill(process) => Self::process(Deed::Kill, process, allowed),
            Kind::Pause(process) => Self::process(Deed::Pause, process, allowed),
            Kind::Restart(process) => Self::process(Deed::Restart, process, allowed),
        }
    }

    fn process(deed: Deed, process: wire::Process, allowed: &Allowed) -> Result<Self, Error> {
        use wire::process::Named as Asked;
        let named = match process.named {
            Some(Asked::Unit(unit)) => Named::Unit(listed("unit", &unit, &allowed.units)?),
            Some(Asked::Process(name)) => {
                let names: Vec<&str> = allowed.processes.iter().map(|p| &*p.name).collect();
                let name = listed("process", &name, &names)?;
                let found = allowed.processes.iter().find(|process| process.name == name);
                Named::by_pid_file(found.ok_or_else(|| wrong("process", "is not on the list"))?)
            }
            None => return Err(wrong("the process", "is not named; give a unit or a process")),
        };
        if deed != Deed::Pause && !named.can_be_started() {
            let reason = format!(
                "the agent cannot start {named} again; add `start` to it in the agent's configuration"
            );
            return Err(wrong("the process", &reason));
        }
        if deed == Deed::Restart && !matches!(named, Named::Unit(_)) {
            return Err(wrong(
                "restart",
                "is for units of systemd; kill it, and it is started again",
            ));
        }
        Ok(Self::Process { deed, named })
    }

    /// What only one fault may hold at a time.
    pub(super) fn holds(&self) -> Option<String> {
        match self {
            Self::Netem { interface, .. } => Some(format!("interface {interface}")),
            Self::Partition { .. } => None,
            Self::Io { cgroup, device, .. } => {
                Some(format!("the IO of cgroup {cgroup} on {}", device.path.display()))
            }
            Self::Cpu { cgroup, .. } => Some(format!("the CPU of cgroup {cgroup}")),
            Self::Memory { cgroup, .. } => Some(format!("the memory of cgroup {cgroup}")),
            Self::Process { named, .. } => Some(named.to_string()),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netem { interface, .. } => write!(f, "netem on {interface}"),
            Self::Partition { interface, peers, way } => {
                let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
                let way = match way {
                    Way::Both => "from and to",
                    Way::In => "from",
                    Way::Out => "to",
                };
                write!(f, "no packets {way} {} on {interface}", peers.join(", "))
            }
            Self::Io { cgroup, device, .. } => {
                write!(f, "IO limit of cgroup {cgroup} on {}", device.path.display())
            }
            Self::Cpu { cgroup, cpus } => write!(f, "cgroup {cgroup} has {cpus} CPUs"),
            Self::Memory { cgroup, max_bytes, high_bytes } => {
                write!(f, "memory of cgroup {cgroup}:")?;
                max_bytes.map_or(Ok(()), |bytes| write!(f, " {bytes} bytes at most"))?;
                high_bytes.map_or(Ok(()), |bytes| write!(f, " slow from {bytes} bytes"))
            }
            Self::Process { deed, named } => match deed {
                Deed::Kill => write!(f, "{named} is killed"),
                Deed::Pause => write!(f, "{named} is paused"),
                Deed::Restart => write!(f, "{named} is restarted"),
            },
        }
    }
}

impl Device {
    fn at(path: &Path) -> Result<Self, Error> {
        let doing = || format!("look at {}", path.display());
        let failed = |problem| Error::Host { doing: doing(), problem };
        if !std::fs::metadata(path).map_err(failed)?.file_type().is_block_device() {
            return Err(wrong("the device", &format!("{} is no block device", path.display())));
        }
        let numbers = rustix::fs::stat(path).map_err(|errno| failed(errno.into()))?.st_rdev;
        let (major, minor) = (rustix::fs::major(numbers), rustix::fs::minor(numbers));
        Ok(Self { path: path.to_owned(), numbers: format!("{major}:{minor}") })
    }
}

impl IoLimits {
    /// With the words that cgroup v2 has for them.
    pub(super) fn each(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("rbps", self.read_bytes),
            ("wbps", self.write_bytes),
            ("riops", self.reads),
            ("wiops", self.writes),
        ]
    }
}

fn wrong(what: &'static str, reason: &str) -> Error {
    Error::Order { what, reason: reason.into() }
}

/// `asked`, if it is on the list.
fn listed<T: ToString>(what: &'static str, asked: &str, list: &[T]) -> Result<String, Error> {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    match list.iter().any(|allowed| allowed == asked) {
        true => Ok(asked.to_owned()),
        false => Err(Error::NotAllowed {
            what,
            asked: asked.to_owned(),
            allowed: if list.is_empty() { "none".into() } else { list.join(", ") },
        }),
    }
}

fn peers(asked: &[String]) -> Result<Vec<IpAddr>, Error> {
    if asked.is_empty() {
        return Err(wrong("a partition", "names no peer; give their IP addresses"));
    }
    let address = |text: &String| {
        let parsed = text.parse::<IpAddr>();
        parsed.map_err(|_| wrong("a peer", &format!("`{text}` is no IP address")))
    };
    asked.iter().map(address).collect()
}

fn conditions(netem: &wire::Netem) -> Result<Conditions, Error> {
    let spread = match wire::Spread::try_from(netem.spread) {
        Ok(wire::Spread::Normal) => Spread::Normal,
        Ok(wire::Spread::Uniform) => Spread::Uniform,
        Ok(wire::Spread::Pareto) => Spread::Pareto,
        Err(_) => return Err(wrong("spread", "is none of normal, uniform and pareto")),
    };
    let loss = match &netem.loss_bursts {
        None if netem.loss_percent == 0.0 => Loss::None,
        None => Loss::Independent(Share::percent("loss", netem.loss_percent)?),
        Some(_) if netem.loss_percent != 0.0 => {
            return Err(wrong("loss", "is given as a share and in bursts; give one of them"));
        }
        Some(bursts) => Loss::Bursts(Bursts {
            turns_bad: Share::percent("turns_bad", bursts.turns_bad_percent)?,
            turns_good: Share::percent("turns_good", bursts.turns_good_percent)?,
            loss_while_bad: Share::percent("loss_while_bad", bursts.loss_while_bad_percent)?,
            loss_while_good: Share::percent("loss_while_good", bursts.loss_while_good_percent)?,
        }),
    };
    let rate = netem.rate_bits_per_second;
    let conditions = Conditions {
        delay: millis("delay", netem.delay_ms)?,
        jitter: millis("jitter", netem.jitter_ms)?,
        spread,
        loss,
        duplicate: Share::percent("duplicate", netem.duplicate_percent)?,
        reorder: Share::percent("reorder", netem.reorder_percent)?,
        corrupt: Share::percent("corrupt", netem.corrupt_percent)?,
        rate_bits_per_second: (rate > 0).then_some(rate),
    };
    conditions.check()?;
    let spread_alone = Conditions { spread, ..Conditions::default() };
    match conditions == spread_alone {
        true => Err(wrong("netem", "changes nothing; give a delay, a loss, or another condition")),
        false => Ok(conditions),
    }
}

/// How long it takes until what was under way is gone.
pub(super) fn longest(conditions: &Conditions) -> Duration {
    conditions.delay + 4 * conditions.jitter
}
