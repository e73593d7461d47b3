//! Synced writes past the page cache that overlap, with io_uring.
//!
//! Invariant: the kernel reads a write's memory until its completion was taken from the ring; until
//! then the memory is neither changed nor moved nor freed, whatever happens to the queue. A write is
//! told as ended once, and as done only when all of its bytes are.
//!
//! Each write carries RWF_DSYNC: the kernel completes it when bytes and length are durable, and many
//! such writes share the device's flushes. One thread submits and waits. It sleeps in the ring, and
//! is woken up by an eventfd that the ring polls. The one unsafe block of this crate is here.
//!
//! When to use this rather than `blocking` is decided in `host`.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::blocking::BlockingFile;
use super::{BlockWrite, Blocks, DiskError, DiskFile, EndedWrite, WriteTime};

/// The user data of the poll for wake-ups; those of writes are places in `Ring::writes`.
const WAKE_UP: u64 = u64::MAX;

/// A ring, and what is on its way in it.
pub(super) struct Ring {
    ring: IoUring,
    /// By the user data of their entries.
    writes: Vec<Option<OnItsWay>>,
    ended: VecDeque<EndedWrite>,
    /// The file of the last write, opened for direct writes.
    direct: Option<(Arc<BlockingFile>, Arc<File>)>,
    alarm: Arc<Alarm>,
    /// Which thread's poll listens to the alarm: another one's would have to run to tell.
    armed_by: Option<ThreadId>,
    /// Why nothing goes in any more: an entry that the kernel did not take yet could name a file
    /// that is closed meanwhile.
    broken: Option<(io::ErrorKind, String)>,
}

struct OnItsWay {
    id: u64,
    file: Arc<BlockingFile>,
    direct: Arc<File>,
    offset: u64,
    blocks: Blocks,
    /// Bytes of it that are written.
    written: usize,
    sync: bool,
    started: Instant,
}

impl Ring {
    /// A ring for `depth` writes that works; an error where the kernel has none for this process.
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        // The poll has an entry, too.
        let entries = (depth as u32 + 1).next_power_of_two();
        // Completions wait for the thread to look, rather than to interrupt it. A kernel that knows
        // this (Linux 5.19) also has polls that tell of each wake-up (5.13).
        let ring = IoUring::builder().setup_coop_taskrun().build(entries)?;
        let alarm = Alarm {
            state: AtomicU8::new(AWAKE),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        };
        let mut ring = Self {
            ring,
            writes: (0..depth).map(|_| None).collect(),
            ended: VecDeque::new(),
            direct: None,
            alarm: Arc::new(alarm),
            armed_by: None,
            broken: None,
        };
        // A filter may allow to set up a ring and not to enter it.
        ring.push(opcode::Nop::new().build().user_data(WAKE_UP));
        ring.ring.submit_and_wait(1)?;
        ring.reap();
        Ok(ring)
    }

    pub(super) fn depth(&self) -> usize {
        self.writes.len()
    }

    /// Begins a write when the thread waits next.
    pub(super) fn submit(&mut self, file: &Arc<BlockingFile>, write: BlockWrite) {
        let BlockWrite { id, offset, blocks, sync } = write;
        let direct = match self.open_direct(file) {
            Ok(direct) => direct,
            Err(error) => {
                return self.ended.push_back(EndedWrite { id, blocks, result: Err(error) });
            }
        };
        let place = self.writes.iter().position(Option::is_none);
        let place = place.expect("no more than `depth` writes are on their way");
        let (file, started) = (Arc::clone(file), Instant::now());
        let write = OnItsWay { id, file, direct, offset, blocks, written: 0, sync, started };
        let entry = write.entry(place);
        self.writes[place] = Some(write);
        self.push(entry);
    }

    fn open_direct(&mut self, file: &Arc<BlockingFile>) -> Result<Arc<File>, DiskError> {
        if let Some((kind, reason)) = &self.broken {
            let error = io::Error::new(*kind, reason.clone());
            return Err(DiskError::new(file.path(), "use the ring", error));
        }
        if let Some((of, direct)) = &self.direct
            && Arc::ptr_eq(of, file)
        {
            return Ok(Arc::clone(direct));
        }
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(file.path())
            .map_err(|error| DiskError::new(file.path(), "open for direct writes", error))?;
        let direct = Arc::new(direct);
        self.direct = Some((Arc::clone(file), Arc::clone(&direct)));
        Ok(direct)
    }

    /// One that ended.
    pub(super) fn ended(&mut self) -> Option<EndedWrite> {
        if self.ended.is_empty() {
            self.reap();
        }
        self.ended.pop_front()
    }

    /// Puts one back that was told.
    pub(super) fn tell_again(&mut self, ended: EndedWrite) {
        self.ended.push_front(ended);
    }

    /// Submits, and waits until something ended, or for a wake-up.
    pub(super) fn wait(&mut self) {
        if !self.ended.is_empty() {
            return;
        }
        let thread = std::thread::current().id();
        if self.armed_by != Some(thread) {
            let fd = types::Fd(self.alarm.event.as_fd().as_raw_fd());
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            self.push(poll.user_data(WAKE_UP));
            self.armed_by = Some(thread);
        }
        let sleeps = self.alarm.begin_sleep();
        self.enter(usize::from(sleeps));
        self.alarm.end_sleep();
    }

    /// Submits, and waits until something ended. No wake-up is heard: for a thread that is not the
    /// one that will.
    pub(super) fn wait_for_writes(&mut self) {
        self.enter(1);
    }

    /// Ends a wait.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.alarm))
    }

    fn is_idle(&self) -> bool {
        self.writes.iter().all(Option::is_none)
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: An entry is either a poll or a no-op, which refer to no memory, or made by
        // `OnItsWay::entry`. The memory that this one refers to is the heap block of a `Blocks` that
        // is owned by `self.writes`. It is not changed there, moving the owner does not move it, and
        // it leaves `self.writes` only in `reap`, when its completion was taken (for a write that
        // was cut short: before the next entry for it is made). Dropping the ring waits for that, or
        // leaks the memory. Files that entries name are open when the kernel takes the entries: the
        // write owns its file, `self.alarm` the event.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("there is an entry for each write and for the poll");
    }

    /// Hands over what was pushed, and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        if self.broken.is_some() {
            // What was on its way is told; the next write will be refused.
            return std::thread::sleep(Duration::from_millis(1));
        }
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            // A signal; or no memory or no room in the ring for the moment: whoever waits comes
            // again.
            Err(error) if is_passing(&error) => std::thread::yield_now(),
            Err(error) => self.give_up(&error),
        }
    }

    /// Takes what the kernel completed.
    fn reap(&mut self) {
        loop {
            let Some(completion) = self.ring.completion().next() else { return };
            if completion.user_data() == WAKE_UP {
                if !cqueue::more(completion.flags()) {
                    self.armed_by = None;
                }
                continue;
            }
            self.complete(completion.user_data() as usize, completion.result());
        }
    }

    fn complete(&mut self, place: usize, result: i32) {
        let mut write = self.writes[place].take().expect("it is told once");
        let error = match usize::try_from(result) {
            Ok(0) => Some(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                write.written += written;
                None
            }
            Err(_) => Some(io::Error::from_raw_os_error(-result)),
        };
        let goes_on = match &error {
            Some(error) => is_passing(error),
            None => write.written < write.blocks.bytes().len(),
        };
        if goes_on {
            let entry = write.entry(place);
            self.writes[place] = Some(write);
            return self.push(entry);
        }
        let took = write.started.elapsed();
        let time = if write.sync {
            WriteTime { sync: took, ..WriteTime::default() }
        } else {
            WriteTime { write: took, ..WriteTime::default() }
        };
        let result = match error {
            None => Ok(time),
            Some(error) => Err(DiskError::new(write.file.path(), "write", error)),
        };
        self.ended.push_back(EndedWrite { id: write.id, blocks: write.blocks, result });
    }

    /// The ring itself failed: what is on its way is over for us, but maybe not for the kernel.
    fn give_up(&mut self, error: &io::Error) {
        self.broken = Some((error.kind(), error.to_string()));
        for place in &mut self.writes {
            let Some(write) = place.take() else { continue };
            // The kernel may still read it.
            std::mem::forget(write.blocks);
            let error = io::Error::new(error.kind(), error.to_string());
            let result = Err(DiskError::new(write.file.path(), "wait for writes", error));
            self.ended.push_back(EndedWrite { id: write.id, blocks: Blocks::default(), result });
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while !self.is_idle() {
            self.enter(1);
            self.reap();
        }
    }
}

impl OnItsWay {
    /// What is left to write.
    fn entry(&self, place: usize) -> squeue::Entry {
        let left = &self.blocks.bytes()[self.written..];
        // A batch is shorter than 4 GiB; if more is left, the kernel cuts it short.
        let len = u32::try_from(left.len()).unwrap_or(1 << 30);
        opcode::Write::new(types::Fd(self.direct.as_raw_fd()), left.as_ptr(), len)
            .offset(self.offset + self.written as u64)
            .rw_flags(if self.sync { libc::RWF_DSYNC } else { 0 })
            .build()
            .user_data(place as u64)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const WOKEN: u8 = 2;

/// Wakes up the ring's thread. A system call is made only where it sleeps.
struct Alarm {
    state: AtomicU8,
    /// Never read: the poll tells of each write to it.
    event: EventFd,
}

impl Alarm {
    /// Whether to sleep: nobody woke the thread up before.
    fn begin_sleep(&self) -> bool {
        let begun = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        begun.is_ok()
    }

    fn end_sleep(&self) {
        // A swap, so that what was queued before a wake that this overwrites is seen.
        self.state.swap(AWAKE, Ordering::AcqRel);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Cannot be full: it would take 2^64 wake-ups.
            let _ = self.event.write(1);
        }
    }
}
