//! The disk as the kernel's FUSE sees it: each call handed to the backing files and the disk.
//!
//! What goes through the page cache is written at once, and costs its time at the sync; what goes
//! past it (O_DIRECT) takes the volume's time itself, several at once, also in one file. O_DSYNC is
//! a sync after each write, which the kernel asks for where the page cache is in between, and we do
//! where it is not. Locks and mappings are the kernel's own affair.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, openat,
    readlinkat, statvfs, utimensat,
};

use super::backing::{Open, ROOT};
use super::disk::{Disk, Job};
use super::ledger::Name;
use super::volume::{Backing, Kind};

/// How long the kernel may keep what it knows; only through it are files changed.
const TTL: Duration = Duration::from_secs(1);

/// The largest write that comes in one piece.
const MAX_WRITE_BYTES: u32 = 1 << 20;

/// Requests that the kernel sends without waiting for earlier ones: io_uring's, and read-ahead.
const MAX_BACKGROUND: u16 = 256;

/// One mount of a disk.
pub(super) struct Mounted {
    disk: Arc<Disk>,
    files: RwLock<HashMap<u64, Arc<Handle>>>,
    dirs: RwLock<HashMap<u64, Arc<Vec<Entry>>>>,
    last_handle: AtomicU64,
}

struct Handle {
    open: Open,
    /// Past the page cache.
    direct: bool,
}

struct Entry {
    inode: u64,
    kind: FileType,
    name: OsString,
}

type Answer = Result<(), rustix::io::Errno>;

impl Mounted {
    pub(super) fn of(disk: Arc<Disk>) -> Self {
        Self {
            disk,
            files: RwLock::default(),
            dirs: RwLock::default(),
            last_handle: AtomicU64::new(0),
        }
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<Handle>, Errno> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn keep(&self, open: Open, flags: i32) -> (FileHandle, FopenFlags) {
        let direct = OFlags::from_bits_retain(flags as u32).contains(OFlags::DIRECT);
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(handle, Arc::new(Handle { open, direct }));
        let how = match direct {
            true => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
            false => FopenFlags::FOPEN_KEEP_CACHE,
        };
        (FileHandle(handle), how)
    }

    fn open_file(&self, inode: u64, flags: i32) -> Result<(FileHandle, FopenFlags), Errno> {
        let writes = OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY;
        let open = self.disk.backing.open(inode, writes).map_err(errno)?;
        Ok(self.keep(open, flags))
    }

    /// A sync of a file that covers all that was written so far.
    fn sync(&self, file: Arc<Handle>, answer: impl FnOnce(Answer) + Send + 'static) {
        let disk = self.disk.clone();
        let inode = file.open.inode;
        let (moment, bytes) = (disk.backing.now(), disk.backing.unsynced_bytes(inode));
        let host: Option<Box<dyn FnOnce() -> Answer + Send>> = match disk.spec().backing {
            Backing::Memory => None,
            Backing::Disk => {
                let disk = disk.clone();
                Some(Box::new(move || disk.backing.sync_host(&file.open)))
            }
        };
        let served = disk.clone();
        let answer = move |done: Answer| {
            if done.is_ok() {
                served.backing.synced(inode, moment);
            }
            answer(done);
        };
        disk.serve(Job { kind: Kind::Sync, bytes, host, answer: Box::new(answer) });
    }

    fn set_times(
        &self,
        inode: u64,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
    ) -> Result<(), rustix::io::Errno> {
        let stamp = |time: Option<TimeOrNow>| {
            let (tv_sec, tv_nsec) = match time {
                None => (0, rustix::fs::UTIME_OMIT as _),
                Some(TimeOrNow::Now) => (0, rustix::fs::UTIME_NOW as _),
                Some(TimeOrNow::SpecificTime(time)) => {
                    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                    (since.as_secs() as i64, since.subsec_nanos() as _)
                }
            };
            Timespec { tv_sec, tv_nsec }
        };
        let times = Timestamps { last_access: stamp(atime), last_modification: stamp(mtime) };
        utimensat(CWD, self.disk.backing.path(inode)?, &times, AtFlags::empty())
    }

    fn entries(&self, inode: u64) -> Result<Vec<Entry>, rustix::io::Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, self.disk.backing.path(inode)?, flags, Mode::empty())?;
        rustix::fs::Dir::read_from(dir)?
            .map(|entry| {
                let entry = entry?;
                let kind = kind(entry.file_type());
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                Ok(Entry { inode: entry.ino(), kind, name })
            })
            .collect()
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // The nearest that the kernel can do, where it cannot do this.
        config.set_max_write(MAX_WRITE_BYTES).ok();
        config.set_max_background(MAX_BACKGROUND).ok();
        for wanted in [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            config.add_capabilities(wanted).ok();
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.disk.backing.lookup(parent.0, name), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.disk.backing.forget(ino.0, nlookup);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk.backing.stat(ino.0) {
            Ok(stat) => reply.attr(&TTL, &attributes(&stat, ino.0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let backing = &self.disk.backing;
        let set = || {
            if let Some(size) = size {
                self.disk.admit_cached(false)?;
                backing.set_len(ino.0, size)?;
            }
            if let Some(mode) = mode {
                chmodat(
                    CWD,
                    backing.path(ino.0)?,
                    Mode::from_raw_mode(mode & 0o7777),
                    AtFlags::empty(),
                )?;
            }
            if uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                chownat(CWD, backing.path(ino.0)?, uid, gid, AtFlags::empty())?;
            }
            if atime.is_some() || mtime.is_some() {
                self.set_times(ino.0, atime, mtime)?;
            }
            backing.stat(ino.0)
        };
        match set() {
            Ok(stat) => reply.attr(&TTL, &attributes(&stat, ino.0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let backing = &self.disk.backing;
        let read = || readlinkat(CWD, backing.path(ino.0)?, Vec::new());
        // The name in /proc leads to the link itself, whose own target is asked for.
        match read().and_then(|link| readlinkat(CWD, link, Vec::new())) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.disk.admit_cached(true);
        entry(made.and_then(|()| self.disk.backing.make_node(parent.0, name, mode)), reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.disk.admit_cached(true);
        entry(made.and_then(|()| self.disk.backing.make_dir(parent.0, name, mode)), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let admitted = self.disk.admit_cached(false);
        done(admitted.and_then(|()| self.disk.backing.remove(parent.0, name, false)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let admitted = self.disk.admit_cached(false);
        done(admitted.and_then(|()| self.disk.backing.remove(parent.0, name, true)), reply);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.disk.admit_cached(true);
        entry(made.and_then(|()| self.disk.backing.make_link(parent.0, name, target)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let from = Name { dir: parent.0, name: name.to_owned() };
        let to = Name { dir: newparent.0, name: newname.to_owned() };
        let admitted = self.disk.admit_cached(false);
        done(admitted.and_then(|()| self.disk.backing.rename(from, to, may_replace)), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self.disk.admit_cached(true);
        entry(made.and_then(|()| self.disk.backing.hard_link(ino.0, newparent.0, newname)), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino.0, flags.0) {
            Ok((handle, how)) => reply.opened(handle, how),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let create = || {
            self.disk.admit_cached(true).map_err(errno)?;
            let stat = self.disk.backing.make_file(parent.0, name, mode & 0o7777).map_err(errno)?;
            Ok((stat, self.open_file(stat.st_ino, flags)?))
        };
        match create() {
            Ok((stat, (handle, how))) => {
                reply.created(&TTL, &attributes(&stat, stat.st_ino), Generation(0), handle, how);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let file = self.file(fh)?;
            self.disk.backing.read(&file.open, offset, size as usize).map_err(errno)
        };
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) => return reply.error(error),
        };
        let job = Job {
            kind: Kind::Read,
            bytes: bytes.len() as u64,
            host: None,
            answer: Box::new(move |done| match done {
                Ok(()) => reply.data(&bytes),
                Err(error) => reply.error(errno(error)),
            }),
        };
        self.disk.serve(job);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = data.len() as u64;
        let write = || {
            let file = self.file(fh)?;
            self.disk.admit_cached(true).map_err(errno)?;
            self.disk.backing.write(&file.open, offset, data).map_err(errno)?;
            self.disk.wrote(bytes);
            Ok(file)
        };
        let file = match write() {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let answer = move |done: Answer| match done {
            Ok(()) => reply.written(bytes as u32),
            Err(error) => reply.error(errno(error)),
        };
        let flags = OFlags::from_bits_retain(flags.0 as u32);
        match (file.direct, flags.intersects(OFlags::DSYNC | OFlags::SYNC)) {
            (false, _) => answer(Ok(())),
            (true, true) => self.sync(file, answer),
            (true, false) => {
                let answer = Box::new(answer);
                self.disk.serve(Job { kind: Kind::Write, bytes, host: None, answer });
            }
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file syncs nothing.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.file(fh) {
            Ok(file) => self.sync(file, move |answer| done(answer, reply)),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.entries(ino.0) {
            Ok(entries) => {
                let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
                let mut dirs = self.dirs.write().unwrap_or_else(PoisonError::into_inner);
                dirs.insert(handle, Arc::new(entries));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        // From the start: what is there now, also where it was read before.
        if offset == 0
            && let Ok(entries) = self.entries(ino.0)
        {
            let mut dirs = self.dirs.write().unwrap_or_else(PoisonError::into_inner);
            dirs.insert(fh.0, Arc::new(entries));
        }
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = dirs.get(&fh.0) else { return reply.error(Errno::EBADF) };
        for (number, entry) in entries.iter().enumerate().skip(offset as usize) {
            let next = number as u64 + 1;
            if reply.add(INodeNo(entry.inode), next, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.dirs.write().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let disk = self.disk.clone();
        let moment = disk.backing.now();
        let answer = move |answer: Answer| {
            if answer.is_ok() {
                disk.backing.dir_synced(ino.0, moment);
            }
            done(answer, reply);
        };
        let job = Job { kind: Kind::Sync, bytes: 0, host: None, answer: Box::new(answer) };
        self.disk.serve(job);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = || {
            let file = self.file(fh)?;
            self.disk.admit_cached(true).map_err(errno)?;
            self.disk.backing.allocate(&file.open, mode as u32, offset, length).map_err(errno)
        };
        match allocate() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let stat = self.disk.backing.path(ROOT).and_then(statvfs);
        match stat {
            Ok(stat) => {
                let free = |blocks: u64| if self.disk.is_full() { 0 } else { blocks };
                reply.statfs(
                    stat.f_blocks,
                    free(stat.f_bfree),
                    free(stat.f_bavail),
                    stat.f_files,
                    stat.f_ffree,
                    stat.f_bsize as u32,
                    stat.f_namemax as u32,
                    stat.f_frsize as u32,
                );
            }
            Err(error) => reply.error(errno(error)),
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn done(result: Answer, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn entry(result: Result<Stat, rustix::io::Errno>, reply: ReplyEntry) {
    match result {
        Ok(stat) => reply.entry(&TTL, &attributes(&stat, stat.st_ino), Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Found;
    match kind {
        Found::Directory => FileType::Directory,
        Found::Symlink => FileType::Symlink,
        Found::Fifo => FileType::NamedPipe,
        Found::Socket => FileType::Socket,
        Found::CharacterDevice => FileType::CharDevice,
        Found::BlockDevice => FileType::BlockDevice,
        Found::RegularFile | Found::Unknown => FileType::RegularFile,
    }
}

fn attributes(stat: &Stat, inode: u64) -> FileAttr {
    let time =
        |seconds: i64, nanos: u64| UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanos as u32);
    FileAttr {
        ino: INodeNo(inode),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}
