//! Whose data directory this is: a lock, an identity, and the identities of the peers met so far.
//!
//! Invariant: a directory serves one process at a time, and one member of one cluster for ever.
//! What this file reports as written down is durable. A directory that is not plainly ours or
//! plainly empty is refused and left as it is.
//!
//! A directory's *incarnation* is drawn when it is made. A peer that comes back under a known id
//! with another incarnation has lost its directory, and with it the votes and acknowledgements that
//! it gave: it is a stranger. How members learn of each other's incarnations is left to
//! `crate::peers`.
//!
//! The directory holds `identity` (one line that names the format and its CRC32C, then JSON; always
//! replaced whole), `lock` (flock; the holder's process id, for people to read), `wal/` and
//! `snapshots/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use raft::NodeId;
use serde::{Deserialize, Serialize};

use crate::config::Member;
use crate::disk::{Blocking, Disk, DiskError, DiskFile};

const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";
const LOCK: &str = "lock";
const WAL: &str = "wal";
const SNAPSHOTS: &str = "snapshots";
/// The root of an ext4 volume has it.
const LOST_AND_FOUND: &str = "lost+found";
const FORMAT: &str = "raftbench-identity 1 crc32c=";

/// A member's data directory, locked.
pub struct DataDir<D: Disk = Blocking> {
    disk: D,
    path: PathBuf,
    identity: Identity,
    fresh: bool,
    /// A planted bug.
    #[cfg(feature = "seeded-bugs")]
    admits_strangers: bool,
    _lock: D::Lock,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    cluster_id: u64,
    member_id: NodeId,
    incarnation: u64,
    /// Whether this incarnation may take part: see `crate::peers`.
    introduced: bool,
    /// The peers met so far, with their incarnations.
    known_peers: BTreeMap<NodeId, u64>,
    /// The members that the group began with, as this one was told when the directory was made;
    /// nobody in that of a member that joined later. Directories from before this was written down
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    founders: Option<Vec<Member>>,
}

/// What a directory that is made says.
#[derive(Clone, Debug)]
pub struct Fresh<'a> {
    /// Drawn at random.
    pub incarnation: u64,
    /// The members that the group begins with; nobody on a member that joins it later.
    pub founders: &'a [Member],
}

/// Why a data directory cannot be used, or a peer not be let in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process has it.
    #[error(
        "{}: the data directory is in use{}; stop that process, or choose another directory",
        path.display(),
        holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the holder wrote into the lock file.
        holder: Option<String>,
    },
    /// It belongs to another member.
    #[error(
        "{}: the data directory belongs to member {found_member:016x} of cluster \
         {found_cluster:016x}, and this is member {member:016x} of cluster {cluster:016x}; choose \
         another directory, or correct the names in the configuration",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The cluster that it belongs to.
        found_cluster: u64,
        /// The member that it belongs to.
        found_member: NodeId,
        /// The cluster of the member that was to use it.
        cluster: u64,
        /// The member that was to use it.
        member: NodeId,
    },
    /// It holds things and no identity.
    #[error(
        "{}: the directory holds {found} and no identity file, so it is not a member's data \
         directory, or is what is left of one; choose an empty directory. A member that lost its \
         directory must be removed from its cluster and added again",
        path.display()
    )]
    NotADataDir {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// Its identity cannot be read.
    #[error(
        "{}: the identity file is damaged: {reason}. Nothing was changed. Remove this member from \
         its cluster, empty the directory, and add it again",
        path.display()
    )]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A peer lost its data directory.
    #[error(
        "member {peer:016x} came back with another data directory (incarnation {met:016x}, known \
         as {known:016x}): it has lost what it promised. Remove it from the cluster and add it \
         again"
    )]
    Stranger {
        /// The peer.
        peer: NodeId,
        /// The incarnation that it is known by.
        known: u64,
        /// The one that it came with.
        met: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl DataDir {
    /// Opens the data directory of a member, or makes it where there is none or an empty one.
    pub fn open(path: &Path, cluster: u64, member: NodeId) -> Result<Self, IdentityError> {
        let fresh = Fresh { incarnation: rand::random(), founders: &[] };
        DataDir::open_on(Blocking, path, cluster, member, fresh)
    }
}

/// Whose data directory is there; `None` where there is none, or an empty one.
pub(crate) fn member_of<D: Disk>(disk: &D, path: &Path) -> Result<Option<NodeId>, IdentityError> {
    match holds_identity(disk, path)? {
        true => Identity::read(disk, path).map(|identity| Some(identity.member_id)),
        false => Ok(None),
    }
}

impl<D: Disk> DataDir<D> {
    /// As [`DataDir::open`], on any disk; `if_fresh` is what a directory says that is made.
    pub fn open_on(
        disk: D,
        path: &Path,
        cluster: u64,
        member: NodeId,
        if_fresh: Fresh<'_>,
    ) -> Result<Self, IdentityError> {
        // Before anything is put into a directory that may be another's.
        holds_identity(&disk, path)?;
        disk.create_dir_all(path)?;
        let lock_path = path.join(LOCK);
        let note = format!("process {}", std::process::id());
        let Some(lock) = disk.lock(&lock_path, &note)? else {
            let holder = read(&disk, &lock_path).ok().filter(|note| !note.is_empty());
            let holder = holder.map(|note| String::from_utf8_lossy(&note).into_owned());
            return Err(IdentityError::Locked { path: path.to_owned(), holder });
        };
        let fresh = !holds_identity(&disk, path)?;
        let identity = if fresh {
            let identity = Identity {
                cluster_id: cluster,
                member_id: member,
                incarnation: if_fresh.incarnation,
                introduced: false,
                known_peers: BTreeMap::new(),
                founders: Some(if_fresh.founders.to_vec()),
            };
            identity.write(&disk, path)?;
            identity
        } else {
            Identity::read(&disk, path)?
        };
        if (identity.cluster_id, identity.member_id) != (cluster, member) {
            return Err(IdentityError::Foreign {
                path: path.to_owned(),
                found_cluster: identity.cluster_id,
                found_member: identity.member_id,
                cluster,
                member,
            });
        }
        Ok(Self {
            disk,
            path: path.to_owned(),
            identity,
            fresh,
            #[cfg(feature = "seeded-bugs")]
            admits_strangers: false,
            _lock: lock,
        })
    }

    /// Plants the bug "a vote granted by a wiped member": one that comes back with an empty directory
    /// is let in under its old id.
    #[cfg(feature = "seeded-bugs")]
    pub fn admit_strangers(&mut self) {
        self.admits_strangers = true;
    }

    /// Whether it was made just now.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Drawn when it was made.
    pub fn incarnation(&self) -> u64 {
        self.identity.incarnation
    }

    /// Where the log goes.
    pub fn wal_dir(&self) -> PathBuf {
        self.path.join(WAL)
    }

    /// Where snapshots go.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    /// The peers met so far, with their incarnations.
    pub fn known_peers(&self) -> &BTreeMap<NodeId, u64> {
        &self.identity.known_peers
    }

    /// Writes down a peer; durable on return. One that is known by another incarnation is refused
    /// as [`IdentityError::Stranger`].
    pub fn remember(&mut self, peer: NodeId, incarnation: u64) -> Result<(), IdentityError> {
        match self.identity.known_peers.get(&peer) {
            Some(&known) if known == incarnation => Ok(()),
            #[cfg(feature = "seeded-bugs")]
            Some(_) if self.admits_strangers => Ok(()),
            Some(&known) => Err(IdentityError::Stranger { peer, known, met: incarnation }),
            None => self.change(|identity| {
                identity.known_peers.insert(peer, incarnation);
            }),
        }
    }

    /// Strikes peers off: their ids are never used again.
    pub fn forget(&mut self, gone: &[NodeId]) -> Result<(), IdentityError> {
        if !gone.iter().any(|id| self.identity.known_peers.contains_key(id)) {
            return Ok(());
        }
        self.change(|identity| identity.known_peers.retain(|id, _| !gone.contains(id)))
    }

    /// The members that the group began with, as this one was told when the directory was made.
    pub fn founders(&self) -> Option<&[Member]> {
        self.identity.founders.as_deref()
    }

    /// Whether this directory's member may vote and acknowledge: see `crate::peers`.
    pub fn introduced(&self) -> bool {
        self.identity.introduced
    }

    /// They did; durable on return.
    pub fn set_introduced(&mut self) -> Result<(), IdentityError> {
        if self.identity.introduced {
            return Ok(());
        }
        self.change(|identity| identity.introduced = true)
    }

    fn change(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let mut changed = self.identity.clone();
        change(&mut changed);
        changed.write(&self.disk, &self.path)?;
        self.identity = changed;
        Ok(())
    }
}

impl Identity {
    fn write<D: Disk>(&self, disk: &D, dir: &Path) -> Result<(), DiskError> {
        let json = serde_json::to_string_pretty(self).expect("numbers and flags have a JSON form");
        let crc = crc32c::crc32c(json.as_bytes());
        let (path, new) = (dir.join(IDENTITY), dir.join(IDENTITY_NEW));
        if disk.list(dir)?.is_some_and(|names| names.iter().any(|name| name == IDENTITY_NEW)) {
            disk.remove(&new)?;
        }
        let file = disk.create(&new)?;
        file.write_at(0, format!("{FORMAT}{crc:08x}\n{json}").as_bytes())?;
        file.sync()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    }

    fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(IDENTITY);
        let bytes = read(disk, &path)?;
        // The page cache may hold what the disk does not.
        disk.open(&path)?.sync()?;
        disk.sync_dir(dir)?;
        Self::decode(&bytes).map_err(|reason| IdentityError::Damaged { path, reason })
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (format, json) = text.split_once('\n').ok_or("its first line does not end")?;
        let Some(crc) = format.strip_prefix(FORMAT) else {
            return Err(format!("its first line is {format:?}, not {FORMAT:?} and a checksum"));
        };
        if crc != format!("{:08x}", crc32c::crc32c(json.as_bytes())) {
            return Err("its checksum does not match".to_owned());
        }
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
}

/// Whether there is an identity file in `dir`; an error if there is none among other things.
fn holds_identity<D: Disk>(disk: &D, dir: &Path) -> Result<bool, IdentityError> {
    let names = disk.list(dir)?.unwrap_or_default();
    if names.iter().any(|name| name == IDENTITY) {
        return Ok(true);
    }
    // What a crash in the middle of making one can leave, and what volumes come with.
    let harmless = [LOCK, IDENTITY_NEW, LOST_AND_FOUND];
    match names.into_iter().find(|name| !harmless.contains(&name.as_str())) {
        Some(found) => Err(IdentityError::NotADataDir { path: dir.to_owned(), found }),
        None => Ok(false),
    }
}

fn read<D: Disk>(disk: &D, path: &Path) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}
