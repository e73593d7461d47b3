//! The process that serves a lab's disks. It is outside of the lab's pid namespace, and has mounts
//! of its own: a node that is killed in the middle of a sync ends when this answers, or when this
//! ends; and what is in the lab ends before.
//!
//! Invariant: it ends with the process that started it, or when nobody is left to ask it anything;
//! the kernel then fails whatever was asked and not answered.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::backing::Backing as Files;
use super::breaker::Breaker;
use super::disk::Disk;
use super::filesystem::Mounted;
use super::pace::take_precedence;
use super::volume::{Backing, DiskSpec};
use super::wire::{Answer, Request, receive, send};
use crate::Error;

/// Threads that take requests from the kernel, for each disk.
const THREADS: usize = 2;

/// What the server's process does; its standard input is the socket.
pub(in crate::lab) fn work() -> Result<ExitCode, Error> {
    let doing = |what| move |source: io::Error| Error::Lab { what, problem: source };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| doing("bind the server of its disks to the program")(errno.into()))?;
    // What the user ends programs with is for the program; this ends with it.
    SigSet::all().thread_block().map_err(|errno| doing("block signals")(errno.into()))?;
    own_mounts().map_err(|errno| doing("make mounts of the disks' own")(errno.into()))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    take_precedence();
    let socket = io::stdin();
    let mut server = Server::default();
    while let Some((request, file)) =
        receive::<Request>(&socket).map_err(doing("hear what its disks shall do"))?
    {
        let answer = server.obey(request, file).unwrap_or_else(Answer::Failed);
        // One that is gone need not know.
        send(&socket, &answer, None).ok();
    }
    server.end();
    Ok(ExitCode::SUCCESS)
}

fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}

#[derive(Default)]
struct Server {
    disks: HashMap<String, Served>,
}

struct Served {
    disk: Arc<Disk>,
    place: Place,
    session: Option<JoinHandle<io::Result<()>>>,
}

/// The folders of a disk's files.
struct Place {
    root: PathBuf,
    aside: PathBuf,
    /// Memory is mounted here.
    memory: Option<PathBuf>,
}

impl Server {
    fn obey(&mut self, request: Request, file: Option<OwnedFd>) -> Result<Answer, String> {
        match request {
            Request::Attach { name, dir, spec, seed } => {
                let file = file.ok_or("no mount came along")?;
                let place = Place::make(&name, &dir, &spec).map_err(in_words)?;
                let made = serve_files(&place, spec, seed);
                let disk = made.inspect_err(|_| place.remove())?;
                let session = mounted(&disk, file).map_err(in_words);
                let session = Some(session.inspect_err(|_| place.remove())?);
                self.disks.insert(name, Served { disk, place, session });
            }
            Request::TakeTime { name, transit_ns } => {
                self.find(&name)?.disk.take_its_time(transit_ns)
            }
            Request::Set { name, trouble } => self.find(&name)?.disk.set(trouble),
            Request::CutPower { names, moment } => {
                let disks: Result<Vec<_>, _> = names
                    .iter()
                    .map(|name| Ok::<_, String>(self.find(name)?.disk.clone()))
                    .collect();
                Breaker::set(&disks?, moment);
            }
            Request::HasPower { name } => {
                return Ok(Answer::Power(self.find(&name)?.disk.has_power()));
            }
            Request::LosePower { name, loss } => {
                let served = self.find(&name)?;
                served.unmounted()?;
                return served.disk.lose_power(loss).map(Answer::Lost).map_err(in_words);
            }
            Request::Remount { name } => {
                let file = file.ok_or("no mount came along")?;
                let served = self.find(&name)?;
                served.session = Some(mounted(&served.disk, file).map_err(in_words)?);
            }
            Request::Figures { name } => {
                return Ok(Answer::Figures(Box::new(self.find(&name)?.disk.figures())));
            }
            Request::Detach { name } => {
                let mut served = self.disks.remove(&name).ok_or_else(|| unknown(&name))?;
                served.unmounted()?;
                served.place.remove();
            }
        }
        Ok(Answer::Done)
    }

    fn find(&mut self, name: &str) -> Result<&mut Served, String> {
        self.disks.get_mut(name).ok_or_else(|| unknown(name))
    }

    fn end(self) {
        for (_, served) in self.disks {
            served.place.remove();
        }
    }
}

fn unknown(name: &str) -> String {
    format!("there is no disk on {name}")
}

fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn serve_files(place: &Place, spec: DiskSpec, seed: u64) -> Result<Arc<Disk>, String> {
    let files = Files::new(&place.root, &place.aside).map_err(in_words)?;
    Ok(Arc::new(Disk::new(files, spec, seed).map_err(in_words)?))
}

/// Serves the mount whose `/dev/fuse` this is.
fn mounted(disk: &Arc<Disk>, file: OwnedFd) -> io::Result<JoinHandle<io::Result<()>>> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    let mounted = Mounted::of(disk.clone());
    // Whom the kernel lets in may do all: it is one user.
    let session = Session::from_fd(mounted, file, SessionACL::All, config)?;
    std::thread::Builder::new().name("disk".into()).spawn(move || {
        // The threads that take requests inherit it.
        take_precedence();
        session.run()
    })
}

impl Served {
    /// Waits until nothing more comes from the mount, which its user has taken away.
    fn unmounted(&mut self) -> Result<(), String> {
        match self.session.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            // It was unmounted by force, while a thread was asking for more.
            Some(Ok(Err(error))) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
            Some(Ok(Err(error))) => Err(error.to_string()),
            Some(Err(_)) => Err("a thread of the disk panicked".into()),
        }
    }
}

impl Place {
    fn make(name: &str, dir: &Path, spec: &DiskSpec) -> io::Result<Self> {
        match spec.backing {
            Backing::Disk => {
                // A sibling, where the files can be moved to.
                let aside = dir.with_file_name(format!(".{name}.unsynced"));
                std::fs::create_dir(&aside)?;
                Ok(Self { root: dir.to_owned(), aside, memory: None })
            }
            Backing::Memory => {
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                mount(Some("disk"), dir, Some("tmpfs"), flags, Some("mode=755"))?;
                let place = Self {
                    root: dir.join("disk"),
                    aside: dir.join("aside"),
                    memory: Some(dir.to_owned()),
                };
                std::fs::create_dir(&place.root)?;
                std::fs::create_dir(&place.aside)?;
                Ok(place)
            }
        }
    }

    fn remove(&self) {
        match &self.memory {
            Some(dir) => drop(umount2(dir, MntFlags::MNT_DETACH)),
            None => drop(std::fs::remove_dir_all(&self.aside)),
        }
    }
}

/// The socket between a server that is to be started and those who will ask it.
pub(in crate::lab) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok(pair)
}

/// Another handle on file `number` of `process`, where this one may look into it.
pub(in crate::lab) fn file_of(process: i32, number: i32) -> io::Result<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = Pid::from_raw(process).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(pidfd.as_fd() as BorrowedFd<'_>, number, PidfdGetfdFlags::empty())?)
}
