//! What a simulated disk consists of: the two views of names and bytes, and how the platter's comes
//! to be what the cache's is, or not.
//!
//! Invariant: only a sync, and the draw at a loss of power, carry anything from the cache to the
//! platter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Fault;

const SECTOR_BYTES: u64 = 512;

pub(super) struct State {
    pub(super) random: StdRng,
    pub(super) process: u64,
    pub(super) powered: bool,
    pub(super) operations: u64,
    pub(super) armed: BTreeMap<u64, Fault>,
    pub(super) free_bytes: Option<u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
    /// The cache's view of the names.
    pub(super) names: BTreeMap<PathBuf, u64>,
    /// The platter's.
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    /// Changes that the cache has and the platter has not, in order.
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) files: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) locks: BTreeMap<PathBuf, u64>,
    /// Writes of queues that have not ended.
    pub(super) on_their_way: BTreeMap<u64, OnItsWay>,
    pub(super) last_ticket: u64,
}

/// A write that has not ended: nothing of it is in the cache, unless whoever waits for it dies.
pub(super) struct OnItsWay {
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Default)]
pub(super) struct Inode {
    pub(super) cache: Vec<u8>,
    pub(super) platter: Vec<u8>,
    pub(super) dirty: BTreeSet<u64>,
    /// Counts failed write-backs; each open description reports each of them once.
    pub(super) failures: u64,
}

impl State {
    /// An empty disk with the power on.
    pub(super) fn new(random: StdRng) -> Self {
        Self {
            random,
            process: 0,
            powered: true,
            operations: 0,
            armed: BTreeMap::new(),
            free_bytes: None,
            dirs: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            files: BTreeMap::new(),
            next_inode: 0,
            locks: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
            last_ticket: 0,
        }
    }

    /// What was on its way when its process died, or the power went: none of it, all of it, or any
    /// of its sectors went down, of each write by itself.
    pub(super) fn abandon_what_is_on_its_way(&mut self) {
        for OnItsWay { inode, offset, bytes } in
            std::mem::take(&mut self.on_their_way).into_values()
        {
            let keep = [0.0, 0.5, 1.0, 1.0][self.random.random_range(0..4)];
            let Some(file) = self.files.get_mut(&inode) else { continue };
            let mut at = offset;
            for sector in bytes.chunks(SECTOR_BYTES as usize) {
                if self.random.random_bool(keep) {
                    file.write(at, sector);
                }
                at += sector.len() as u64;
            }
        }
    }

    pub(super) fn apply(&mut self, change: NameChange) {
        self.unsynced_names.push(change.clone());
        change.apply(&mut self.names);
    }

    pub(super) fn lose_what_was_not_synced(&mut self) {
        // A prefix of each directory's changes, as a journal keeps them.
        let mut cut: BTreeMap<PathBuf, bool> = BTreeMap::new();
        for change in std::mem::take(&mut self.unsynced_names) {
            let lost = cut.entry(change.dir()).or_insert(false);
            *lost = *lost || self.random.random_bool(0.5);
            if !*lost {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        // Nobody has them open any more.
        let names = &self.names;
        self.files.retain(|inode, _| names.values().any(|named| named == inode));
        for file in self.files.values_mut() {
            // All, none, or each by itself: the extremes are what a uniform draw never hits.
            let keep = [0.0, 0.5, 0.95, 1.0][self.random.random_range(0..4)];
            for sector in std::mem::take(&mut file.dirty) {
                if self.random.random_bool(keep) {
                    file.write_back(sector);
                }
            }
            file.cache = file.platter.clone();
        }
    }
}

impl NameChange {
    pub(super) fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path, inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        let (Self::Create(path, _) | Self::Rename(path, _) | Self::Remove(path)) = self;
        parent(path)
    }
}

impl Inode {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        let old_len = self.cache.len();
        if end > old_len {
            self.cache.resize(end, 0);
            self.mark_dirty(old_len as u64, end as u64);
        }
        self.cache[start..end].copy_from_slice(bytes);
        self.mark_dirty(offset, end as u64);
    }

    fn mark_dirty(&mut self, start: u64, end: u64) {
        if start < end {
            self.dirty.extend(start / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    /// Takes the dirty sectors of a range, which count as clean from now on.
    pub(super) fn take_dirty(&mut self, start: u64, end: u64) -> BTreeSet<u64> {
        let mut taken = self.dirty.split_off(&(start / SECTOR_BYTES));
        self.dirty.append(&mut taken.split_off(&end.div_ceil(SECTOR_BYTES)));
        taken
    }

    pub(super) fn write_back(&mut self, sector: u64) {
        let start = (sector * SECTOR_BYTES) as usize;
        let end = (start + SECTOR_BYTES as usize).min(self.cache.len());
        if end > self.platter.len() {
            self.platter.resize(end, 0);
        }
        self.platter[start..end].copy_from_slice(&self.cache[start..end]);
    }
}

pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}
