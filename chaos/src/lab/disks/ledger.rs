//! What a disk has been told and has not yet synced: how to take it back when the power goes.
//!
//! Changes are made to the backing files at once, and each is noted here with what undoes it, until
//! a sync makes it durable. The rules are the strictest that a journalling file system keeps:
//!
//! - a sync of a file makes durable what was written to it before, with its length; and, where its
//!   name is new, that name and those of the new directories that lead to it;
//! - a sync of a directory makes durable every name made, moved or removed in it;
//! - making a name durable brings along what happened to that name before.
//!
//! When the power goes, all else is undone, the last first. *Torn*, every sector of a file that was
//! written and not synced has either its last content or its durable one, by the seed; a length is
//! the last or the durable one; and of the changes to names the first so many survive.
//!
//! Invariant: pure. It knows files by their inode numbers, and does nothing itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// A file or directory, by its inode number.
pub(super) type Inode = u64;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) dir: Inode,
    pub(super) name: OsString,
}

/// What lay where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// So many zeros.
    Zeros(usize),
    /// These.
    Bytes(Box<[u8]>),
}

impl Before {
    /// Zeros, of which files have many, take no room.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes.iter().all(|byte| *byte == 0) {
            true => Before::Zeros(bytes.len()),
            false => Before::Bytes(bytes.into()),
        }
    }

    fn range(&self, from: usize, to: usize) -> Vec<u8> {
        let mut bytes = match self {
            Before::Zeros(_) => Vec::new(),
            Before::Bytes(bytes) => bytes[from.min(bytes.len())..to.min(bytes.len())].to_vec(),
        };
        // Past the old end of the file: a hole.
        bytes.resize(to - from, 0);
        bytes
    }
}

/// A change to a file's content or length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) offset: u64,
    /// Touched from `offset` on.
    pub(super) len: u64,
    /// What was there, as far as the file went.
    pub(super) before: Before,
    /// The file's length before.
    pub(super) old_len: u64,
}

/// A change to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Renamed {
    /// A file, a directory or a link was made.
    Made { at: Name, inode: Inode },
    /// It was moved; what it replaced lies aside under that name.
    Moved { from: Name, to: Name, replaced: Option<OsString> },
    /// It was removed: it lies aside.
    Removed { at: Name, aside: OsString },
}

impl Renamed {
    fn names(&self) -> Vec<&Name> {
        match self {
            Renamed::Made { at, .. } | Renamed::Removed { at, .. } => vec![at],
            Renamed::Moved { from, to, .. } => vec![from, to],
        }
    }
}

/// One step of taking back, to be done in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    Write { inode: Inode, offset: u64, bytes: Vec<u8> },
    SetLen { inode: Inode, len: u64 },
    Rename(Renamed),
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Writes that had not been synced.
    pub unsynced_writes: u64,
    /// Bytes that they had touched.
    pub unsynced_bytes: u64,
    /// Of these, taken back.
    pub lost_bytes: u64,
    /// Files that they were in.
    pub files: u64,
    /// Names made, moved or removed, and not synced.
    pub unsynced_names: u64,
    /// Of these, taken back.
    pub lost_names: u64,
}

/// How what was not synced is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// All of it.
    Whole,
    /// Some of it, by the seed.
    Torn {
        /// Chooses what.
        seed: u64,
    },
}

/// The pending changes of one disk.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    last: u64,
    writes: HashMap<Inode, VecDeque<(u64, Written)>>,
    names: BTreeMap<u64, Renamed>,
}

impl Ledger {
    /// What has happened so far; a sync that begins now covers it.
    pub(super) fn now(&self) -> u64 {
        self.last
    }

    /// A file was written to.
    pub(super) fn wrote(&mut self, inode: Inode, written: Written) {
        self.last += 1;
        self.writes.entry(inode).or_default().push_back((self.last, written));
    }

    /// A name changed.
    pub(super) fn renamed(&mut self, renamed: Renamed) {
        self.last += 1;
        self.names.insert(self.last, renamed);
    }

    /// Bytes of `inode` that wait for a sync.
    pub(super) fn unsynced_bytes(&self, inode: Inode) -> u64 {
        self.writes.get(&inode).map_or(0, |all| all.iter().map(|(_, written)| written.len).sum())
    }

    /// Whether taking back would touch `inode`.
    pub(super) fn mentions(&self, inode: Inode) -> bool {
        let is_there = |renamed: &Renamed| match renamed {
            Renamed::Made { inode: made, .. } => *made == inode,
            _ => false,
        };
        self.writes.contains_key(&inode)
            || self.names.values().any(|renamed| {
                is_there(renamed) || renamed.names().iter().any(|name| name.dir == inode)
            })
    }

    /// A file was synced up to a moment; what lies aside under these names is needed no more.
    pub(super) fn file_synced(&mut self, inode: Inode, up_to: u64) -> Vec<OsString> {
        if let Some(all) = self.writes.get_mut(&inode) {
            while all.front().is_some_and(|(at, _)| *at <= up_to) {
                all.pop_front();
            }
            if all.is_empty() {
                self.writes.remove(&inode);
            }
        }
        self.settle(self.making(inode, up_to))
    }

    /// A directory was synced up to a moment; see [`Ledger::file_synced`].
    pub(super) fn dir_synced(&mut self, dir: Inode, up_to: u64) -> Vec<OsString> {
        let mut settled: BTreeSet<u64> = self
            .names
            .range(..=up_to)
            .filter(|(_, renamed)| renamed.names().iter().any(|name| name.dir == dir))
            .map(|(at, _)| *at)
            .collect();
        settled.extend(self.making(dir, up_to));
        self.settle(settled)
    }

    /// The changes that made `inode` and the directories above it.
    fn making(&self, inode: Inode, up_to: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut wanted = Some(inode);
        while let Some(inode) = wanted.take() {
            let made = self.names.range(..=up_to).find_map(|(at, renamed)| match renamed {
                Renamed::Made { at: name, inode: made } if *made == inode => Some((*at, name.dir)),
                _ => None,
            });
            if let Some((at, dir)) = made {
                found.insert(at);
                wanted = Some(dir);
            }
        }
        found
    }

    /// Makes changes durable, with what happened to their names, and to the directories of these,
    /// before.
    fn settle(&mut self, mut wanted: BTreeSet<u64>) -> Vec<OsString> {
        let mut aside = Vec::new();
        while let Some(at) = wanted.pop_last() {
            let Some(renamed) = self.names.remove(&at) else { continue };
            for (earlier, other) in self.names.range(..at) {
                let shares = other.names().iter().any(|name| renamed.names().contains(name));
                let leads_to = matches!(other, Renamed::Made { inode, .. }
                    if renamed.names().iter().any(|name| name.dir == *inode));
                if shares || leads_to {
                    wanted.insert(*earlier);
                }
            }
            match renamed {
                Renamed::Moved { replaced: Some(name), .. }
                | Renamed::Removed { aside: name, .. } => aside.push(name),
                Renamed::Moved { .. } | Renamed::Made { .. } => {}
            }
        }
        aside
    }

    /// The power goes: what is to be undone, in order, and what is not needed aside any more. The
    /// ledger is then empty. `len` tells how long a file is now.
    pub(super) fn lose(
        &mut self,
        loss: Loss,
        len: impl Fn(Inode) -> u64,
    ) -> (Vec<Undo>, Vec<OsString>, Lost) {
        let mut lost = Lost {
            files: self.writes.len() as u64,
            unsynced_names: self.names.len() as u64,
            ..Lost::default()
        };
        let mut random = match loss {
            Loss::Whole => None,
            Loss::Torn { seed } => Some(StdRng::seed_from_u64(seed)),
        };
        let mut undo = Vec::new();
        // Files first: a name that is undone takes its file along.
        let writes: BTreeMap<_, _> = std::mem::take(&mut self.writes).into_iter().collect();
        for (inode, all) in writes {
            lost.unsynced_writes += all.len() as u64;
            undo_file(inode, &all, len(inode), random.as_mut(), &mut undo, &mut lost);
        }
        let names = std::mem::take(&mut self.names);
        let survive = random.map_or(0, |mut random| random.random_range(0..=names.len()));
        lost.lost_names = (names.len() - survive) as u64;
        let (mut aside, mut undone) = (Vec::new(), Vec::new());
        for (number, (_, renamed)) in names.into_iter().enumerate() {
            if number >= survive {
                undone.push(Undo::Rename(renamed));
                continue;
            }
            match renamed {
                Renamed::Moved { replaced: Some(name), .. }
                | Renamed::Removed { aside: name, .. } => aside.push(name),
                Renamed::Moved { .. } | Renamed::Made { .. } => {}
            }
        }
        undo.extend(undone.into_iter().rev());
        (undo, aside, lost)
    }
}

/// Takes back what was written to one file: all of it, or the sectors that `random` chooses.
fn undo_file(
    inode: Inode,
    all: &VecDeque<(u64, Written)>,
    len: u64,
    random: Option<&mut StdRng>,
    undo: &mut Vec<Undo>,
    lost: &mut Lost,
) {
    let durable_len = all.front().map_or(len, |(_, first)| first.old_len);
    // One choice for each sector, whoever wrote to it.
    let (keeps_len, salt) = match random {
        None => (false, None),
        Some(random) => (random.random(), Some(random.random::<u64>())),
    };
    let is_lost = |sector: u64| salt.is_none_or(|salt| mix(salt, sector) & 1 == 0);
    for (_, written) in all.iter().rev() {
        lost.unsynced_bytes += written.len;
        let end = written.offset + written.len;
        let mut at = written.offset;
        while at < end {
            // A run of sectors with the same fate.
            let fate = is_lost(at / SECTOR_BYTES);
            let mut to = at;
            while to < end && is_lost(to / SECTOR_BYTES) == fate {
                to = match salt {
                    None => end,
                    Some(_) => end.min((to / SECTOR_BYTES + 1) * SECTOR_BYTES),
                };
            }
            if fate {
                lost.lost_bytes += to - at;
                let kept = written.old_len.max(written.offset).min(to);
                // Past the old end there is nothing to write back, unless the length stays.
                let until = if keeps_len { to } else { kept.max(at) };
                if until > at {
                    let range = ((at - written.offset) as usize, (until - written.offset) as usize);
                    let bytes = written.before.range(range.0, range.1);
                    undo.push(Undo::Write { inode, offset: at, bytes });
                }
            }
            at = to;
        }
    }
    undo.push(Undo::SetLen { inode, len: if keeps_len { len } else { durable_len } });
}

/// A coin for each sector (splitmix64).
fn mix(salt: u64, sector: u64) -> u64 {
    let mut z = salt.wrapping_add(sector.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
