//! What `etcdctl snapshot save` gets, and what can be made of it.

use std::path::Path;

use bench_node::disk::{Disk, DiskFile, Simulated};
use bench_node::snapshot::{SavedStream, load_saved};
use sha2::{Digest, Sha256};

use crate::model::{meta, open, same, small, store, write};

const FILE: &str = "/saved.db";

fn save(disk: &Simulated, bytes: &[u8]) {
    let path = Path::new(FILE);
    if disk.bytes(path).is_some() {
        disk.remove(path).unwrap();
    }
    disk.create(path).unwrap().write_at(0, bytes).unwrap();
}

#[test]
fn etcdctl_keeps_it_and_it_can_be_loaded() {
    let disk = Simulated::new(1);
    disk.create_dir_all(Path::new("/")).unwrap();
    for keys in [0, 1, 2, 3, 100, 1_000] {
        let store = store(5, keys);
        let meta = meta(7, &store);
        let pieces: Vec<_> = SavedStream::new(meta.clone(), store.freeze(), &small()).collect();
        let bytes = pieces.concat();
        // etcdctl's own check.
        assert_eq!(bytes.len() % 512, 32, "{keys} keys");
        let (saved, digest) = bytes.split_at(bytes.len() - 32);
        assert_eq!(Sha256::digest(saved)[..], *digest);
        assert_eq!(pieces.last().map(|piece| &piece[..]), Some(digest), "as etcd, by itself");
        let file = write(&open(&Simulated::new(2)), 7, &store);
        assert!(file.id.bytes.next_multiple_of(512) == saved.len() as u64, "the same bytes");

        save(&disk, &bytes);
        let (snapshot, loaded) = load_saved(&disk, Path::new(FILE)).unwrap();
        assert_eq!((snapshot.id, snapshot.meta), (file.id, meta));
        assert!(same(&loaded, &store));
    }
}

#[test]
fn a_saved_file_that_rotted_is_refused() {
    let disk = Simulated::new(1);
    disk.create_dir_all(Path::new("/")).unwrap();
    let store = store(5, 20);
    let bytes =
        SavedStream::new(meta(7, &store), store.freeze(), &small()).collect::<Vec<_>>().concat();
    for byte in (0..bytes.len()).step_by(11) {
        let mut rotten = bytes.clone();
        rotten[byte] ^= 1;
        save(&disk, &rotten);
        let error = load_saved(&disk, Path::new(FILE)).map(drop).unwrap_err();
        assert!(error.to_string().starts_with(FILE), "{error}");
    }
    for len in [0, 31, 32, bytes.len() - 1, bytes.len() - 512] {
        save(&disk, &bytes[..len]);
        load_saved(&disk, Path::new(FILE)).map(drop).unwrap_err();
    }
}
