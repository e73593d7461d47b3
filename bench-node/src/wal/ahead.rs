//! Fills blocks with zeros ahead of the last batch, makes the next segment before it is needed, and
//! disposes of segments that are needed no longer.
//!
//! Invariant: zeros are only ever written to blocks that no batch was written to. Each block is
//! claimed, under one lock, either by the filler or by the log; a batch that overtakes the filler
//! waits for the step that is under way over its blocks, and grows the file itself from there.
//!
//! Why: overwriting written blocks syncs about twice as fast as growing a file. Filling goes in
//! steps, and stays a bounded distance ahead, so that a small log stays small. The filler syncs
//! through a file description of its own: a failed write-back is reported once to each description,
//! so the filler cannot swallow an error that the log's own sync must see.
//!
//! A released segment is kept as a spare, up to a bound, and becomes the next segment without being
//! filled: its blocks are written already. Renaming, removing and their directory syncs take their
//! time, and no append waits for them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::segment::{self, FIRST_BATCH, Plan, Segment};
use super::{Options, WalError};
use crate::disk::{Disk, DiskError, DiskFile};

/// Released segments that are left lying, at most, while the log waits for a new one.
const MAX_RELEASED: usize = 4;

/// The log's side of the filler.
pub(super) struct Ahead<D: Disk> {
    shared: Arc<Shared<D>>,
    /// Without one, the log's own calls do the filling.
    thread: Option<JoinHandle<()>>,
}

struct Shared<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    /// The number of the segment that this start opened with.
    opening: u64,
    state: Mutex<State<D::File>>,
    changed: Condvar,
}

struct State<F> {
    /// The segment that is written to, then the next one, if it was made already.
    fills: VecDeque<Fill<F>>,
    next: Option<Segment<F>>,
    /// Segments that are to be made spares, or removed.
    released: VecDeque<u64>,
    spares: Vec<PathBuf>,
    /// Whether the next segment is being made.
    making: bool,
    /// Whether the log waits for it.
    wanted: bool,
    /// No space was left to fill ahead with; growing may still find some.
    full: bool,
    failed: Option<DiskError>,
    stop: bool,
}

struct Fill<F> {
    number: u64,
    file: Arc<F>,
    /// The end of the last batch.
    written: u64,
    /// Up to here blocks are claimed: filled already, or written by the log.
    claimed: u64,
    /// A step under way; it covers the end of what is claimed.
    step_from: Option<u64>,
}

enum Job<F> {
    Make { number: u64, spares: Vec<PathBuf> },
    Dispose { number: u64, keep: bool },
    Fill { number: u64, file: Arc<F>, from: u64, to: u64 },
}

impl<D: Disk> Ahead<D> {
    /// Starts filling behind `segment`, which is empty and this start's first.
    pub(super) fn start(
        disk: D,
        dir: &Path,
        options: &Options,
        segment: &Segment<D::File>,
        spares: Vec<PathBuf>,
    ) -> Result<Self, WalError> {
        let fill = Fill::behind(&disk, segment)?;
        let state = State {
            fills: VecDeque::from([fill]),
            next: None,
            released: VecDeque::new(),
            spares,
            making: false,
            wanted: false,
            full: false,
            failed: None,
            stop: false,
        };
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            options: options.clone(),
            opening: segment.number,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mut thread = None;
        if options.fill_in_background {
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name("wal-ahead".to_owned())
                .spawn(move || shared.run());
            thread = Some(spawned.map_err(|error| WalError::Thread { reason: error.to_string() })?);
        }
        Ok(Self { shared, thread })
    }

    /// Claims the blocks of the current segment from `start` to `end` for a batch.
    pub(super) fn claim(&self, start: u64, end: u64) -> Result<(), WalError> {
        let mut state = self.shared.lock();
        loop {
            state.check()?;
            let fill = state.current();
            if fill.step_from.is_none_or(|from| end <= from) {
                debug_assert!(start >= fill.written);
                fill.claimed = fill.claimed.max(end);
                return Ok(());
            }
            state = self.shared.wait(state);
        }
    }

    /// Tells that a batch that is on its way ends at `end` of the current segment.
    pub(super) fn writes_up_to(&self, end: u64) {
        let mut state = self.shared.lock();
        state.current().written = end;
        if self.thread.is_some() && state.has_job(&self.shared.options) {
            self.shared.changed.notify_all();
        }
    }

    /// For a log without a filler's thread: does what waits to be done, a step of it.
    pub(super) fn work(&self) -> Result<(), WalError> {
        if self.thread.is_some() {
            return Ok(());
        }
        self.shared.work();
        self.shared.lock().check()
    }

    /// Disposes of a segment that nothing is needed of any more.
    pub(super) fn release(&self, number: u64) {
        self.shared.lock().released.push_back(number);
        if self.thread.is_some() {
            // Now, and not with the next batch: a log that goes idle has none.
            self.shared.changed.notify_all();
        }
    }

    /// Goes on to the next segment, which is made first if it was not yet.
    pub(super) fn next_segment(&self) -> Result<Segment<D::File>, WalError> {
        let mut state = self.shared.lock();
        state.wanted = true;
        loop {
            state.check()?;
            if let Some(next) = state.next.take() {
                state.fills.pop_front();
                state.wanted = false;
                state.full = false;
                return Ok(next);
            }
            if self.thread.is_some() {
                self.shared.changed.notify_all();
                state = self.shared.wait(state);
            } else {
                drop(state);
                self.shared.work();
                state = self.shared.lock();
            }
        }
    }
}

impl<D: Disk> Drop for Ahead<D> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed already.
            let _ = thread.join();
        }
    }
}

impl<D: Disk> Shared<D> {
    fn lock(&self) -> MutexGuard<'_, State<D::File>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<D::File>>) -> MutexGuard<'a, State<D::File>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let mut state = self.lock();
            while !state.stop && !state.has_job(&self.options) {
                state = self.wait(state);
            }
            if state.stop {
                return;
            }
            drop(state);
            self.work();
        }
    }

    /// Does one job, if there is one.
    fn work(&self) {
        let Some(job) = self.lock().take_job(&self.options) else { return };
        match job {
            Job::Make { number, mut spares } => {
                let Self { disk, dir, options, opening, .. } = self;
                let made = make(disk, dir, options, number, *opening, &mut spares);
                let made = made.and_then(|segment| Ok((Fill::behind(disk, &segment)?, segment)));
                let mut state = self.lock();
                state.making = false;
                state.spares.append(&mut spares);
                match made {
                    Ok((fill, segment)) => {
                        state.next = Some(segment);
                        state.fills.push_back(fill);
                    }
                    Err(error) if is_full(&error) && !state.wanted => state.full = true,
                    Err(error) => state.failed = Some(error),
                }
            }
            Job::Dispose { number, keep } => {
                let disposed = self.dispose(number, keep);
                let mut state = self.lock();
                match disposed {
                    Ok(spare) => {
                        // What was removed made room.
                        state.full &= spare.is_some();
                        state.spares.extend(spare);
                    }
                    Err(error) => state.failed = Some(error),
                }
            }
            Job::Fill { number, file, from, to } => {
                let filled = file.fill_zero(from, to - from).and_then(|()| file.sync());
                let mut state = self.lock();
                if let Some(fill) = state.fills.iter_mut().find(|fill| fill.number == number) {
                    fill.step_from = None;
                }
                match filled {
                    Ok(()) => {}
                    Err(error) if is_full(&error) => state.full = true,
                    Err(error) => state.failed = Some(error),
                }
            }
        }
        self.changed.notify_all();
    }

    /// Makes a released segment a spare, where one more is kept, or removes it.
    fn dispose(&self, number: u64, keep: bool) -> Result<Option<PathBuf>, DiskError> {
        let path = self.dir.join(segment::file_name(number));
        // One batch may have made it much larger than the others.
        if keep && self.disk.open(&path)?.len()? <= 2 * self.options.segment_bytes {
            return segment::retire(&self.disk, &self.dir, number).map(Some);
        }
        self.disk.remove(&path)?;
        Ok(None)
    }
}

/// Makes a segment: of the last one of `spares`, if there is one.
pub(super) fn make<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &Options,
    number: u64,
    opening: u64,
    spares: &mut Vec<PathBuf>,
) -> Result<Segment<D::File>, DiskError> {
    let plan = Plan {
        number,
        generation: segment::generation(options.generation_seed, number),
        opening,
        fill_bytes: options.fill_step_bytes.min(options.segment_bytes),
        sync_name: !options.skips_directory_sync(),
    };
    match spares.pop() {
        Some(spare) => segment::recycle(disk, dir, &plan, &spare),
        None => segment::create(disk, dir, &plan),
    }
}

impl<F> State<F> {
    fn check(&self) -> Result<(), WalError> {
        self.failed.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    fn current(&mut self) -> &mut Fill<F> {
        self.fills.front_mut().expect("there is always a segment that is written to")
    }

    /// Whether the next segment is to be made: the current one will be filled to its end soon.
    fn makes_next(&self, options: &Options) -> bool {
        let soon = self.fills.front().is_some_and(|fill| {
            fill.written + options.fill_ahead_bytes >= options.segment_bytes && !self.full
        });
        self.next.is_none() && !self.making && (self.wanted || soon)
    }

    fn fill_step(&self, options: &Options) -> Option<(usize, u64)> {
        if self.full {
            return None;
        }
        self.fills.iter().enumerate().find_map(|(at, fill)| {
            let goal = (fill.written + options.fill_ahead_bytes).min(options.segment_bytes);
            let to = (fill.claimed + options.fill_step_bytes).min(options.segment_bytes);
            // Whole steps only: a sync for every block would cost more than it saves.
            let worth_it = to <= goal || to == options.segment_bytes;
            (fill.step_from.is_none() && fill.claimed < to && worth_it).then_some((at, to))
        })
    }

    fn has_job(&self, options: &Options) -> bool {
        let any = self.makes_next(options)
            || !self.released.is_empty()
            || self.fill_step(options).is_some();
        self.failed.is_none() && any
    }

    fn take_job(&mut self, options: &Options) -> Option<Job<F>> {
        if self.failed.is_some() {
            return None;
        }
        // Before a new segment is made, unless the log waits for that: there may be a spare then.
        // A log that always waits must not grow without bound for it.
        let first = !self.wanted || self.released.len() > MAX_RELEASED;
        if first && let Some(number) = self.released.pop_front() {
            return Some(Job::Dispose { number, keep: self.spares.len() < options.spare_segments });
        }
        if self.makes_next(options) {
            self.making = true;
            let number = self.current().number + 1;
            return Some(Job::Make { number, spares: std::mem::take(&mut self.spares) });
        }
        let (at, to) = self.fill_step(options)?;
        let fill = &mut self.fills[at];
        let from = std::mem::replace(&mut fill.claimed, to);
        fill.step_from = Some(from);
        Some(Job::Fill { number: fill.number, file: Arc::clone(&fill.file), from, to })
    }
}

impl<F: DiskFile> Fill<F> {
    fn behind<D: Disk<File = F>>(disk: &D, segment: &Segment<F>) -> Result<Self, DiskError> {
        Ok(Self {
            number: segment.number,
            file: Arc::new(disk.open(segment.file.path())?),
            written: FIRST_BATCH,
            claimed: segment.filled,
            step_from: None,
        })
    }
}

fn is_full(error: &DiskError) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
