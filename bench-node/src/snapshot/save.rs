//! A snapshot as `etcdctl snapshot save` takes it.
//!
//! Invariant: what is saved is a snapshot's bytes, zeros up to a multiple of 512, and the SHA-256
//! of all that: etcdctl keeps no file whose length says otherwise, and nothing is restored from one
//! whose digest does.
//!
//! It is not a database file of etcd's: `etcdctl snapshot status` and `restore`, which open one,
//! refuse it. [`load_saved`] reads it.
//!
//! Source: etcd 3.4 `clientv3/snapshot/v3_snapshot.go` (3.5: `client/v3/snapshot`), for the check
//! of the length; `etcdserver/api/v3rpc/maintenance.go`, for the digest as the stream's end.

use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::encode::Encoder;
use super::read::Reader;
use super::{Options, Snapshot, SnapshotError, SnapshotMeta};
use crate::disk::{Disk, DiskFile};
use crate::kv::{Frozen, Store};

const SECTOR_BYTES: u64 = 512;
const DIGEST_BYTES: u64 = 32;
const READ_BYTES: u64 = 1 << 20;

/// The bytes of a saved snapshot, in pieces for the messages of a stream; the last one is the
/// digest. Takes memory for one block.
pub struct SavedStream {
    encoder: Encoder,
    digest: Sha256,
    sent: u64,
    state: State,
}

enum State {
    Snapshot,
    Digest,
    Done,
}

impl SavedStream {
    /// Streams a frozen store. `meta.store` is taken from it.
    pub fn new(meta: SnapshotMeta, frozen: Frozen, options: &Options) -> Self {
        let encoder = Encoder::new(meta, frozen, options.block_bytes);
        Self { encoder, digest: Sha256::new(), sent: 0, state: State::Snapshot }
    }
}

impl Iterator for SavedStream {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = match self.state {
            State::Snapshot => match self.encoder.next() {
                Some(part) => part,
                None => {
                    self.state = State::Digest;
                    let padding = self.sent.next_multiple_of(SECTOR_BYTES) - self.sent;
                    match padding {
                        0 => return self.next(),
                        padding => Bytes::from(vec![0; padding as usize]),
                    }
                }
            },
            State::Digest => {
                self.state = State::Done;
                let digest = std::mem::take(&mut self.digest).finalize();
                return Some(Bytes::copy_from_slice(&digest));
            }
            State::Done => return None,
        };
        self.digest.update(&piece);
        self.sent += piece.len() as u64;
        Some(piece)
    }
}

/// Reads a saved snapshot's file, digest first.
pub fn load_saved<D: Disk>(disk: &D, path: &Path) -> Result<(Snapshot, Store), SnapshotError> {
    let damaged = |offset, reason| SnapshotError::damaged(path, offset, reason);
    let file = disk.open(path)?;
    let len = file.len()?;
    if len % SECTOR_BYTES != DIGEST_BYTES {
        return Err(damaged(len, "the file does not end in a digest"));
    }
    let end = len - DIGEST_BYTES;
    let mut digest = Sha256::new();
    let mut at = 0;
    while at < end {
        let mut bytes = vec![0; (end - at).min(READ_BYTES) as usize];
        file.read_at(at, &mut bytes)?;
        digest.update(&bytes);
        at += bytes.len() as u64;
    }
    let mut saved = [0; DIGEST_BYTES as usize];
    file.read_at(end, &mut saved)?;
    if digest.finalize()[..] != saved {
        return Err(damaged(end, "the digest does not match"));
    }
    let mut reader = Reader::open_up_to(&file, end)?;
    let header = reader.meta().store;
    let store = Store::restore(header, reader.records()).map_err(|error| error.at(path))?;
    Ok((reader.finish_padded()?, store))
}
