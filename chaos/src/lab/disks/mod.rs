//! Emulated disks: a file system (FUSE) under a directory, which takes the time that the volume of a
//! [`DiskSpec`] would, fails as it is told, and forgets what was not synced when its power goes.
//!
//! ```text
//! host n1:  node --- kernel --- /dev/fuse ---.
//! host n2:  node --- kernel --- /dev/fuse ---+--- the server of disks: one process, outside of the
//! c1:       Disks ------ a socket -----------'    lab's pid namespace, with mounts of its own
//! ```
//!
//! From the pure to the outside: [`latency`](Latency), `bucket` and `volume` say when a request is
//! done; `ledger` what a sync covers and what a loss of power takes; `backing` holds the files;
//! `disk` brings these together; `breaker` takes the power of several; `filesystem` is what the kernel calls; `server` the process. This
//! file is the side that uses it.
//!
//! Invariant: a mount is made in the lab's own mount namespace, and ends with it. The server ends
//! with the program, however that dies; requests that it has not answered then fail.

mod backing;
mod breaker;
mod bucket;
mod disk;
mod figures;
mod filesystem;
mod latency;
mod ledger;
mod pace;
mod planted;
pub(in crate::lab) mod server;
mod volume;
mod wire;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub use breaker::Moment;
pub use bucket::{Burst, Rate};
pub use disk::Trouble;
pub use figures::{Figures, Times};
pub use latency::Latency;
pub use ledger::{Loss, Lost, SECTOR_BYTES};
pub use volume::{Backing, DiskSpec, Slow};
use wire::{Answer, Request};

use super::Lab;
use crate::Error;

/// What file system a mounted disk says it is.
const FUSE: &str = "/dev/fuse";

/// How often the way to the server is measured.
const TRANSITS: usize = 101;
/// How often a sync is.
const SYNCS: usize = 31;

/// The disks of one lab; they are unmounted with this value.
pub struct Disks {
    socket: Mutex<OwnedFd>,
    mounts: Mutex<HashMap<String, PathBuf>>,
}

/// What a disk costs before it takes any time of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// From a call to the server and back.
    pub transit_ms: f64,
    /// A write of 4 KiB and its fdatasync, with what the host's disk takes.
    pub sync_ms: f64,
}

impl Disks {
    /// Of the lab around this process, which must have been entered with disks.
    pub fn of(lab: &Lab) -> Result<Self, Error> {
        let socket = lab.disks_socket()?;
        Ok(Self { socket: Mutex::new(socket), mounts: Mutex::default() })
    }

    /// Lays a disk like `spec` over the directory `dir`, for `host`. Refused where the host is
    /// slower than the disk is to be.
    pub fn attach(
        &self,
        host: &str,
        dir: &Path,
        spec: &DiskSpec,
        seed: u64,
    ) -> Result<Floor, Error> {
        let floor = self.attach_untimed(host, dir, spec, seed)?;
        let wanted_ms = spec.sync.quantile_ms(0.5);
        if floor.sync_ms > wanted_ms {
            self.detach(host)?;
            return Err(Error::DiskTooFast {
                wanted_ms,
                floor_ms: floor.sync_ms,
                remedy: match spec.backing {
                    Backing::Disk => {
                        "choose a slower disk, run on a faster one, or have its bytes in memory \
                         (disk_backing = \"memory\")"
                    }
                    Backing::Memory => "choose a slower disk",
                },
            });
        }
        let transit_ns = (floor.transit_ms * 1e6) as u64;
        self.ask(host, &Request::TakeTime { name: host.to_owned(), transit_ns }, None)?;
        Ok(floor)
    }

    /// As [`Disks::attach`], but the disk takes no time of its own: what it costs by itself.
    pub fn attach_untimed(
        &self,
        host: &str,
        dir: &Path,
        spec: &DiskSpec,
        seed: u64,
    ) -> Result<Floor, Error> {
        let (name, laid_over) = (host.to_owned(), dir.to_owned());
        let request = Request::Attach { name, dir: laid_over, spec: spec.clone(), seed };
        let fuse = lay(dir)?;
        if let Err(error) = self.ask(host, &request, Some(&fuse)) {
            take_away(dir, MntFlags::MNT_DETACH).ok();
            return Err(error);
        }
        drop(fuse);
        self.lock_mounts().insert(host.to_owned(), dir.to_owned());
        floor(dir).map_err(|error| failed(host, "cannot be measured", &error))
    }

    /// What is wrong with the disk of `host` from now on.
    pub fn set(&self, host: &str, trouble: Trouble) -> Result<(), Error> {
        self.ask(host, &Request::Set { name: host.to_owned(), trouble }, None).map(drop)
    }

    /// The power of all `hosts` goes, at that moment: from then on their disks answer nothing, and
    /// nothing becomes durable, until [`Disks::lose_power`].
    pub fn cut_power(&self, hosts: &[String], moment: Moment) -> Result<(), Error> {
        let Some(first) = hosts.first() else { return Ok(()) };
        self.ask(first, &Request::CutPower { names: hosts.to_vec(), moment }, None).map(drop)
    }

    /// Whether the disk of `host` has power.
    pub fn has_power(&self, host: &str) -> Result<bool, Error> {
        match self.ask(host, &Request::HasPower { name: host.to_owned() }, None)? {
            Answer::Power(has_power) => Ok(has_power),
            other => Err(strange(host, &other)),
        }
    }

    /// The power of `host` goes, if it has not yet, and comes back: what its disk had not synced is
    /// lost. Whoever has files open there gets errors from now on.
    pub fn lose_power(&self, host: &str, loss: Loss) -> Result<Lost, Error> {
        let dir = self.dir(host)?;
        // By force: what was asked and not answered fails now.
        take_away(&dir, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)
            .map_err(|error| failed(host, "cannot be unmounted", &error))?;
        self.lock_mounts().remove(host);
        let lost =
            match self.ask(host, &Request::LosePower { name: host.to_owned(), loss }, None)? {
                Answer::Lost(lost) => lost,
                other => return Err(strange(host, &other)),
            };
        let fuse = lay(&dir)?;
        if let Err(error) = self.ask(host, &Request::Remount { name: host.to_owned() }, Some(&fuse))
        {
            take_away(&dir, MntFlags::MNT_DETACH).ok();
            return Err(error);
        }
        self.lock_mounts().insert(host.to_owned(), dir);
        Ok(lost)
    }

    /// What the disk of `host` counted and measured.
    pub fn figures(&self, host: &str) -> Result<Figures, Error> {
        match self.ask(host, &Request::Figures { name: host.to_owned() }, None)? {
            Answer::Figures(figures) => Ok(*figures),
            other => Err(strange(host, &other)),
        }
    }

    /// Takes the disk of `host` away; what is under it stays, unless it was in memory.
    pub fn detach(&self, host: &str) -> Result<(), Error> {
        let dir = self.dir(host)?;
        take_away(&dir, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)
            .map_err(|error| failed(host, "cannot be unmounted", &error))?;
        self.lock_mounts().remove(host);
        self.ask(host, &Request::Detach { name: host.to_owned() }, None).map(drop)
    }

    /// Where the disk of `host` is mounted.
    pub(crate) fn dir(&self, host: &str) -> Result<PathBuf, Error> {
        self.lock_mounts().get(host).cloned().ok_or_else(|| Error::Disk {
            host: host.to_owned(),
            what: "is not mounted",
            reason: "it was never attached, or is between two mounts".into(),
        })
    }

    fn ask(&self, host: &str, request: &Request, file: Option<&File>) -> Result<Answer, Error> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = wire::send(&*socket, request, file.map(|file| file.as_fd()))
            .and_then(|()| wire::receive::<Answer>(&*socket));
        match asked {
            Ok(Some((Answer::Failed(reason), _))) => {
                Err(Error::Disk { host: host.to_owned(), what: "cannot do it", reason })
            }
            Ok(Some((answer, _))) => Ok(answer),
            Ok(None) => Err(failed(host, "is not served", &"its server has ended")),
            Err(error) => Err(failed(host, "is not served", &error)),
        }
    }

    fn lock_mounts(&self) -> MutexGuard<'_, HashMap<String, PathBuf>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let hosts: Vec<String> = self.lock_mounts().keys().cloned().collect();
        for host in hosts {
            self.detach(&host).ok();
        }
    }
}

/// Mounts a file system that nobody serves yet; its `/dev/fuse`.
fn lay(dir: &Path) -> Result<File, Error> {
    let fuse = File::options().read(true).write(true).open(FUSE).map_err(|problem| {
        let hint = match problem.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "root can open it to all (chmod 0666 /dev/fuse), or run this"
            }
            _ => "the kernel needs FUSE (modprobe fuse)",
        };
        Error::NoDisks { problem, hint }
    })?;
    // Root of the lab's user namespace, which owns the mount.
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    let data = format!("fd={},rootmode=40000,user_id={user},group_id={group}", fuse.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("raftbench-disk"), dir, Some("fuse"), flags, Some(data.as_str())).map_err(
        |errno| {
            let hint =
                "the kernel allows it in a user namespace from Linux 4.18 on; a container may not";
            Error::NoDisks { problem: errno.into(), hint }
        },
    )?;
    Ok(fuse)
}

fn take_away(dir: &Path, how: MntFlags) -> std::io::Result<()> {
    Ok(umount2(dir, how)?)
}

/// Measures a disk that takes no time of its own, before whatever else is busy here.
fn floor(dir: &Path) -> std::io::Result<Floor> {
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            pace::take_precedence();
            measure(dir)
        });
        measured.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    })
}

fn measure(dir: &Path) -> std::io::Result<Floor> {
    // A directory's sync is answered at once: all that is left is the way.
    let folder = File::open(dir)?;
    let transit_ms = median_ms(TRANSITS, || folder.sync_all())?;
    let path = dir.join(".probe");
    let probe = File::create_new(&path)?;
    let block = [1; 4096];
    let sync_ms = median_ms(SYNCS, || {
        probe.write_all_at(&block, 0)?;
        probe.sync_data()
    })?;
    drop(probe);
    std::fs::remove_file(&path)?;
    folder.sync_all()?;
    Ok(Floor { transit_ms, sync_ms })
}

fn median_ms(count: usize, work: impl Fn() -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        work()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[count / 2])
}

fn failed(host: &str, what: &'static str, reason: &dyn std::fmt::Display) -> Error {
    Error::Disk { host: host.to_owned(), what, reason: reason.to_string() }
}

fn strange(host: &str, answer: &Answer) -> Error {
    let reason = format!("its server answered {answer:?}");
    Error::Disk { host: host.to_owned(), what: "does not do as it is told", reason }
}
