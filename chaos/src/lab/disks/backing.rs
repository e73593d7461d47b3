//! The files that hold a disk's bytes, and the ledger of what is not synced: every change goes
//! through here, and is noted.
//!
//! Files are held by descriptors (O_PATH), so that they stay the same whatever their names become.
//! What was removed, and may have to come back, lies in a folder aside.
//!
//! Invariant: a change and its note are one step: nobody sees one without the other.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Stat, fallocate, fdatasync,
    fstat, ftruncate, linkat, mkdirat, mknodat, openat, renameat, renameat_with, statat, symlinkat,
    unlinkat,
};
use rustix::io::{Errno, Result, pread, pwrite};

use super::ledger::{Before, Inode, Ledger, Loss, Lost, Name, Renamed, Undo, Written};
use super::planted::{Bug, planted};

/// The kernel's number for the top directory.
pub(super) const ROOT: Inode = 1;

/// The files of one disk.
pub(super) struct Backing {
    aside: OwnedFd,
    nodes: Mutex<HashMap<Inode, Node>>,
    ledger: Mutex<Ledger>,
    /// Held while names change.
    names: Mutex<u64>,
}

/// A file that the kernel knows, or the ledger.
#[derive(Clone)]
struct Node {
    fd: Arc<OwnedFd>,
    /// How often the kernel was told of it.
    lookups: u64,
    /// Held while its content changes.
    content: Arc<Mutex<()>>,
}

/// An open file.
pub(super) struct Open {
    pub(super) inode: Inode,
    file: OwnedFd,
    content: Arc<Mutex<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backing {
    /// The files under `root`; `aside` is an empty folder on the same file system.
    pub(super) fn new(root: &Path, aside: &Path) -> Result<Self> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, folder, Mode::empty())?;
        let aside = openat(CWD, aside, folder, Mode::empty())?;
        let node = Node { fd: Arc::new(root), lookups: 1, content: Arc::default() };
        Ok(Self {
            aside,
            nodes: Mutex::new(HashMap::from([(ROOT, node)])),
            ledger: Mutex::default(),
            names: Mutex::new(0),
        })
    }

    fn fd(&self, inode: Inode) -> Result<Arc<OwnedFd>> {
        lock(&self.nodes).get(&inode).map(|node| node.fd.clone()).ok_or(Errno::STALE)
    }

    /// What a file is.
    pub(super) fn stat(&self, inode: Inode) -> Result<Stat> {
        fstat(&*self.fd(inode)?)
    }

    /// Looks a name up, and counts that the kernel now knows the file.
    pub(super) fn lookup(&self, dir: Inode, name: &OsStr) -> Result<Stat> {
        let parent = self.fd(dir)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&*parent, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let mut nodes = lock(&self.nodes);
        let node = nodes.entry(stat.st_ino).or_insert_with(|| Node {
            fd: Arc::new(fd),
            lookups: 0,
            content: Arc::default(),
        });
        node.lookups += 1;
        Ok(stat)
    }

    /// The kernel forgets a file.
    pub(super) fn forget(&self, inode: Inode, lookups: u64) {
        let ledger = lock(&self.ledger);
        let mut nodes = lock(&self.nodes);
        if let Some(node) = nodes.get_mut(&inode) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 && inode != ROOT && !ledger.mentions(inode) {
                nodes.remove(&inode);
            }
        }
    }

    /// Lets go of a file that only the ledger kept.
    fn sweep(&self, inode: Inode) {
        self.forget(inode, 0);
    }

    /// Opens a file; `writes`: also for writing.
    pub(super) fn open(&self, inode: Inode, writes: bool) -> Result<Open> {
        let node = lock(&self.nodes).get(&inode).cloned().ok_or(Errno::STALE)?;
        // What is overwritten must be read too.
        let access = if writes { OFlags::RDWR } else { OFlags::RDONLY };
        let file = openat(CWD, link(&node.fd), access | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Open { inode, file, content: node.content })
    }

    pub(super) fn read(&self, open: &Open, offset: u64, len: usize) -> Result<Vec<u8>> {
        read(&open.file, offset, len)
    }

    pub(super) fn write(&self, open: &Open, offset: u64, bytes: &[u8]) -> Result<()> {
        let _content = lock(&open.content);
        let old_len = fstat(&open.file)?.st_size as u64;
        let len = bytes.len() as u64;
        let before = self.before(open, offset, len, old_len)?;
        let mut done = 0;
        while done < bytes.len() {
            match pwrite(&open.file, &bytes[done..], offset + done as u64) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // The host's disk is full: what was written so far is not noted, and is taken back.
                Err(errno) => {
                    ftruncate(&open.file, old_len)?;
                    return Err(errno);
                }
            }
        }
        lock(&self.ledger).wrote(open.inode, Written { offset, len, before, old_len });
        Ok(())
    }

    fn before(&self, open: &Open, offset: u64, len: u64, old_len: u64) -> Result<Before> {
        let end = (offset + len).min(old_len);
        match end > offset {
            true => Ok(Before::of(&read(&open.file, offset, (end - offset) as usize)?)),
            false => Ok(Before::Zeros(0)),
        }
    }

    /// Cuts or lengthens a file.
    pub(super) fn set_len(&self, inode: Inode, to: u64) -> Result<()> {
        let open = self.open(inode, true)?;
        let _content = lock(&open.content);
        let old_len = fstat(&open.file)?.st_size as u64;
        if to == old_len {
            return Ok(());
        }
        let (offset, len) = (to.min(old_len), to.abs_diff(old_len));
        let before = self.before(&open, offset, len, old_len)?;
        ftruncate(&open.file, to)?;
        lock(&self.ledger).wrote(inode, Written { offset, len, before, old_len });
        Ok(())
    }

    pub(super) fn allocate(&self, open: &Open, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode);
        let _content = lock(&open.content);
        let old_len = fstat(&open.file)?.st_size as u64;
        let changes = !(mode - FallocateFlags::KEEP_SIZE).is_empty();
        // Others move what lies behind, and no database does that.
        let known =
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        let before = match changes {
            true => self.before(open, offset, len, old_len)?,
            false => Before::Zeros(0),
        };
        fallocate(&open.file, mode, offset, len)?;
        let new_len = fstat(&open.file)?.st_size as u64;
        if changes {
            lock(&self.ledger).wrote(open.inode, Written { offset, len, before, old_len });
        } else if new_len > old_len {
            let (offset, len) = (old_len, new_len - old_len);
            lock(&self.ledger).wrote(open.inode, Written { offset, len, before, old_len });
        }
        Ok(())
    }

    /// Bytes of a file that wait for a sync.
    pub(super) fn unsynced_bytes(&self, inode: Inode) -> u64 {
        lock(&self.ledger).unsynced_bytes(inode)
    }

    /// The moment up to which a sync that begins now reaches.
    pub(super) fn now(&self) -> u64 {
        lock(&self.ledger).now()
    }

    /// Syncs the host's own file.
    pub(super) fn sync_host(&self, open: &Open) -> Result<()> {
        fdatasync(&open.file)
    }

    /// A file's sync that covers all up to `moment` is done.
    pub(super) fn synced(&self, inode: Inode, moment: u64) {
        if planted(Bug::SyncDoesNotPersist) {
            return;
        }
        let aside = lock(&self.ledger).file_synced(inode, moment);
        self.discard(&aside);
        self.sweep(inode);
    }

    /// A directory's sync that covers all up to `moment` is done.
    pub(super) fn dir_synced(&self, inode: Inode, moment: u64) {
        if planted(Bug::SyncDoesNotPersist) {
            return;
        }
        let aside = lock(&self.ledger).dir_synced(inode, moment);
        self.discard(&aside);
        self.sweep(inode);
    }

    fn discard(&self, aside: &[OsString]) {
        for name in aside {
            if unlinkat(&self.aside, name, AtFlags::empty()) == Err(Errno::ISDIR) {
                unlinkat(&self.aside, name, AtFlags::REMOVEDIR).ok();
            }
        }
    }

    // Names.

    pub(super) fn make_file(&self, dir: Inode, name: &OsStr, mode: u32) -> Result<Stat> {
        self.make(dir, name, |parent| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(mode)).map(drop)
        })
    }

    pub(super) fn make_dir(&self, dir: Inode, name: &OsStr, mode: u32) -> Result<Stat> {
        self.make(dir, name, |parent| mkdirat(parent, name, Mode::from_raw_mode(mode)))
    }

    pub(super) fn make_node(&self, dir: Inode, name: &OsStr, mode: u32) -> Result<Stat> {
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        self.make(dir, name, |p| mknodat(p, name, kind, Mode::from_raw_mode(mode), 0))
    }

    pub(super) fn make_link(&self, dir: Inode, name: &OsStr, target: &Path) -> Result<Stat> {
        self.make(dir, name, |parent| symlinkat(target, parent, name))
    }

    pub(super) fn hard_link(&self, inode: Inode, dir: Inode, name: &OsStr) -> Result<Stat> {
        let from = link(&*self.fd(inode)?);
        self.make(dir, name, |p| linkat(CWD, &from, p, name, AtFlags::SYMLINK_FOLLOW))
    }

    fn make(
        &self,
        dir: Inode,
        name: &OsStr,
        make: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<Stat> {
        let parent = self.fd(dir)?;
        let _names = lock(&self.names);
        make(&parent)?;
        let stat = self.lookup(dir, name)?;
        let at = Name { dir, name: name.to_owned() };
        lock(&self.ledger).renamed(Renamed::Made { at, inode: stat.st_ino });
        Ok(stat)
    }

    pub(super) fn remove(&self, dir: Inode, name: &OsStr, is_dir: bool) -> Result<()> {
        let parent = self.fd(dir)?;
        let mut number = lock(&self.names);
        let stat = statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let found_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (is_dir, found_dir) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) if !is_empty(&parent, name)? => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        let aside = next(&mut number);
        renameat(&*parent, name, &self.aside, &aside)?;
        let at = Name { dir, name: name.to_owned() };
        lock(&self.ledger).renamed(Renamed::Removed { at, aside });
        Ok(())
    }

    pub(super) fn rename(&self, from: Name, to: Name, may_replace: bool) -> Result<()> {
        let (from_dir, to_dir) = (self.fd(from.dir)?, self.fd(to.dir)?);
        let mut number = lock(&self.names);
        let source = statat(&*from_dir, &from.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let replaced = match statat(&*to_dir, &to.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
            Ok(_) if !may_replace => return Err(Errno::EXIST),
            // Two names of one file: nothing happens.
            Ok(target) if target.st_ino == source.st_ino => return Ok(()),
            Ok(target) => {
                let is_dir =
                    |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                match (is_dir(&source), is_dir(&target)) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) if !is_empty(&to_dir, &to.name)? => return Err(Errno::NOTEMPTY),
                    _ => {}
                }
                let aside = next(&mut number);
                renameat(&*to_dir, &to.name, &self.aside, &aside)?;
                Some(aside)
            }
        };
        let moved =
            renameat_with(&*from_dir, &from.name, &*to_dir, &to.name, RenameFlags::NOREPLACE);
        if let Err(errno) = moved {
            if let Some(aside) = &replaced {
                renameat(&self.aside, aside, &*to_dir, &to.name)?;
            }
            return Err(errno);
        }
        lock(&self.ledger).renamed(Renamed::Moved { from, to, replaced });
        Ok(())
    }

    /// A path to a file, for calls that want one.
    pub(super) fn path(&self, inode: Inode) -> Result<PathBuf> {
        Ok(link(&*self.fd(inode)?))
    }

    /// Takes back what was not synced. Nobody else may use the disk meanwhile; the kernel's
    /// knowledge of its files is void afterwards.
    pub(super) fn lose_power(&self, loss: Loss) -> Result<Lost> {
        let _names = lock(&self.names);
        let mut ledger = lock(&self.ledger);
        let len = |inode| self.stat(inode).map_or(0, |stat| stat.st_size as u64);
        let (undo, aside, lost) = ledger.lose(loss, len);
        let mut failed = None;
        for step in undo {
            // What cannot be undone must not keep the rest from it.
            if let Err(errno) = self.undo(step) {
                failed.get_or_insert(errno);
            }
        }
        self.discard(&aside);
        drop(ledger);
        let mut nodes = lock(&self.nodes);
        nodes.retain(|inode, _| *inode == ROOT);
        failed.map_or(Ok(lost), Err)
    }

    fn undo(&self, step: Undo) -> Result<()> {
        match step {
            Undo::Write { inode, offset, bytes } => {
                let open = self.open(inode, true)?;
                let mut done = 0;
                while done < bytes.len() {
                    done += pwrite(&open.file, &bytes[done..], offset + done as u64)?;
                }
                Ok(())
            }
            Undo::SetLen { inode, len } => ftruncate(&self.open(inode, true)?.file, len),
            Undo::Rename(Renamed::Made { at, .. }) => {
                let dir = self.fd(at.dir)?;
                match unlinkat(&*dir, &at.name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => unlinkat(&*dir, &at.name, AtFlags::REMOVEDIR),
                    done => done,
                }
            }
            Undo::Rename(Renamed::Removed { at, aside }) => {
                renameat(&self.aside, &aside, &*self.fd(at.dir)?, &at.name)
            }
            Undo::Rename(Renamed::Moved { from, to, replaced }) => {
                let (from_dir, to_dir) = (self.fd(from.dir)?, self.fd(to.dir)?);
                renameat(&*to_dir, &to.name, &*from_dir, &from.name)?;
                match replaced {
                    Some(aside) => renameat(&self.aside, &aside, &*to_dir, &to.name),
                    None => Ok(()),
                }
            }
        }
    }
}

fn next(number: &mut u64) -> OsString {
    *number += 1;
    number.to_string().into()
}

/// An open file's name in `/proc`.
fn link(fd: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

fn is_empty(parent: &OwnedFd, name: &OsStr) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read(file: &OwnedFd, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match pread(file, &mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}
