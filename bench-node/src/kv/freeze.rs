//! A store as it was at one moment, and a store made of such a one.
//!
//! Invariant: freezing changes nothing and takes the same short time whatever the store holds; a
//! store that was restored from a frozen one answers every later command as its origin does, and
//! has its hash.

use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use super::{Record, Store};

/// What a store has besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHeader {
    /// The revision of the last change; 1 in an empty store.
    pub revision: i64,
    /// The revision of the last compaction; -1 before the first.
    pub compacted_revision: i64,
}

/// A store as it was when it was frozen. It shares memory with the store that goes on: as long as
/// it lives, what that one changes is kept twice.
#[derive(Clone, Debug)]
pub struct Frozen {
    header: StoreHeader,
    records: OrdMap<Bytes, Record>,
    bytes: u64,
}

/// Records that no store has had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A key does not come after the one before it.
    #[error("key {key:?} does not come after the key before it")]
    Order {
        /// That key.
        key: Bytes,
    },
    /// A record's revisions or version contradict each other or the header.
    #[error(
        "key {key:?} has version {version}, was made at revision {create_revision} and changed at \
         {mod_revision}, in a store at revision {revision}"
    )]
    Revisions {
        /// The key.
        key: Bytes,
        /// Its version.
        version: i64,
        /// The revision that made it.
        create_revision: i64,
        /// The revision that changed it last.
        mod_revision: i64,
        /// The store's.
        revision: i64,
    },
}

impl Store {
    /// The store as it is now. Takes no longer for a large one.
    pub fn freeze(&self) -> Frozen {
        let Self { revision, compacted_revision, bytes, .. } = *self;
        let header = StoreHeader { revision, compacted_revision };
        Frozen { header, records: self.records.clone(), bytes }
    }

    /// A store with these records, which come in ascending order of keys. The first error among
    /// them, or that they make, ends it.
    pub fn restore<E: From<RestoreError>>(
        header: StoreHeader,
        records: impl IntoIterator<Item = Result<(Bytes, Record), E>>,
    ) -> Result<Self, E> {
        let StoreHeader { revision, compacted_revision } = header;
        let mut store = Self { revision, compacted_revision, ..Self::default() };
        let mut last = None;
        for item in records {
            let (key, record) = item?;
            if last.is_some_and(|last| key <= last) {
                return Err(RestoreError::Order { key }.into());
            }
            let Record { create_revision, mod_revision, version, .. } = record;
            let made = 1 < create_revision && create_revision <= mod_revision;
            if !made || mod_revision > revision || version < 1 {
                return Err(RestoreError::Revisions {
                    key,
                    version,
                    create_revision,
                    mod_revision,
                    revision,
                }
                .into());
            }
            last = Some(key.clone());
            store.insert(key, record);
        }
        Ok(store)
    }
}

impl Frozen {
    /// What it has besides its records.
    pub fn header(&self) -> StoreHeader {
        self.header
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its records in the order of keys, from the first key above `key` on; from the first of all
    /// for `None`.
    pub fn records_after(&self, key: Option<&Bytes>) -> impl Iterator<Item = (&Bytes, &Record)> {
        let from = key.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        self.records.range::<_, [u8]>((from, Bound::Unbounded))
    }

    /// As [`Store::hash`].
    pub fn hash(&self) -> u32 {
        let mut hash = crc32c::crc32c(&self.header.revision.to_le_bytes());
        for (key, record) in &self.records {
            for part in [&key[..], &record.value[..]] {
                hash = crc32c::crc32c_append(hash, &(part.len() as u64).to_le_bytes());
                hash = crc32c::crc32c_append(hash, part);
            }
            for number in [record.create_revision, record.mod_revision, record.version] {
                hash = crc32c::crc32c_append(hash, &number.to_le_bytes());
            }
        }
        hash
    }
}
