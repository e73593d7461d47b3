//! What every disk must do, held against each of them by the same body.

use std::io::ErrorKind;
use std::path::Path;

use bench_node::disk::{BLOCK_BYTES, Blocking, Disk, DiskError, DiskFile, Simulated};

#[test]
fn blocking() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&Blocking, dir.path());
}

#[test]
fn simulated() {
    conforms(&Simulated::new(1), Path::new("/simulated"));
}

fn conforms<D: Disk>(disk: &D, root: &Path) {
    let dir = root.join("a/b");
    directories(disk, &dir);
    names(disk, &dir);
    bytes(disk, &dir);
    locks(disk, &dir);
}

fn directories<D: Disk>(disk: &D, dir: &Path) {
    assert_eq!(disk.list(dir).unwrap(), None, "not there yet");
    disk.create_dir_all(dir).unwrap();
    disk.create_dir_all(dir).expect("one that exists is fine");
    assert_eq!(disk.list(dir).unwrap(), Some(vec![]));
    disk.sync_dir(dir).unwrap();

    let file = dir.join("file");
    disk.create(&file).unwrap();
    refuses(disk.create_dir_all(&file), None, &file);
    refuses(disk.list(&file), Some(ErrorKind::NotADirectory), &file);
    disk.remove(&file).unwrap();
    let missing = dir.join("missing");
    refuses(disk.sync_dir(&missing), Some(ErrorKind::NotFound), &missing);
}

fn names<D: Disk>(disk: &D, dir: &Path) {
    let (one, two) = (dir.join("one"), dir.join("two"));
    refuses(disk.open(&one), Some(ErrorKind::NotFound), &one);
    refuses(disk.remove(&one), Some(ErrorKind::NotFound), &one);
    refuses(disk.rename(&one, &two), Some(ErrorKind::NotFound), &one);
    let lost = dir.join("missing/file");
    refuses(disk.create(&lost), Some(ErrorKind::NotFound), &lost);

    disk.create(&two).unwrap().write_at(0, b"old").unwrap();
    let file = disk.create(&one).unwrap();
    assert_eq!(file.path(), one);
    file.write_at(0, b"new").unwrap();
    refuses(disk.create(&one), Some(ErrorKind::AlreadyExists), &one);
    assert_eq!(disk.list(dir).unwrap().unwrap(), ["one", "two"]);

    disk.rename(&one, &two).expect("a rename replaces what is there");
    assert_eq!(disk.list(dir).unwrap().unwrap(), ["two"]);
    assert_eq!(read(&disk.open(&two).unwrap()), b"new");
    file.write_at(3, b"er").expect("an open file outlives its name");
    assert_eq!(read(&disk.open(&two).unwrap()), b"newer");
    disk.remove(&two).unwrap();
    assert_eq!(disk.list(dir).unwrap().unwrap().len(), 0);
    assert_eq!(read(&file), b"newer");
}

fn bytes<D: Disk>(disk: &D, dir: &Path) {
    let path = dir.join("bytes");
    let file = disk.create(&path).unwrap();
    assert!(file.is_empty().unwrap());
    refuses(file.read_at(0, &mut [0]), Some(ErrorKind::UnexpectedEof), &path);
    file.read_at(0, &mut []).unwrap();

    file.write_at(10, b"ten").unwrap();
    assert_eq!(read(&file), b"\0\0\0\0\0\0\0\0\0\0ten", "a gap reads as zeros");
    file.write_at(2, b"two").unwrap();
    file.sync().unwrap();
    assert_eq!(read(&file), b"\0\0two\0\0\0\0\0ten");
    refuses(file.read_at(12, &mut [0; 2]), Some(ErrorKind::UnexpectedEof), &path);

    let long = 3 * 256 * 1024 + 5;
    file.fill_zero(4, long).unwrap();
    assert_eq!(file.len().unwrap(), 4 + long);
    let filled = read(&file);
    assert_eq!(&filled[..5], b"\0\0tw\0");
    assert!(filled[4..].iter().all(|&byte| byte == 0));

    // Descriptions of one file share its bytes, and positions are nobody's.
    let other = disk.open(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (file, other) = (&file, &other);
            scope.spawn(move || {
                for round in 0..8_u64 {
                    let at = (round * 4 + u64::from(thread)) * BLOCK_BYTES as u64;
                    let to = if round % 2 == 0 { file } else { other };
                    to.write_at(at, &[thread + 1; BLOCK_BYTES]).unwrap();
                    to.sync().unwrap();
                }
            });
        }
    });
    let written = read(&other);
    for (block, bytes) in written.chunks(BLOCK_BYTES).take(32).enumerate() {
        assert!(bytes.iter().all(|&byte| usize::from(byte) == block % 4 + 1), "block {block}");
    }
    disk.remove(&path).unwrap();
}

fn locks<D: Disk>(disk: &D, dir: &Path) {
    let path = dir.join("lock");
    let held = disk.lock(&path, "first").unwrap().expect("nobody holds it");
    assert!(disk.lock(&path, "second").unwrap().is_none());
    assert_eq!(read(&disk.open(&path).unwrap()), b"first", "the holder's note stays");
    drop(held);
    let _held = disk.lock(&path, "2nd").unwrap().expect("it was released");
    assert_eq!(read(&disk.open(&path).unwrap()), b"2nd");
}

fn read<F: DiskFile>(file: &F) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn refuses<T>(result: Result<T, DiskError>, kind: Option<ErrorKind>, path: &Path) {
    let Err(error) = result else { panic!("{} was not refused", path.display()) };
    assert_eq!(error.path, path);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    if let Some(kind) = kind {
        assert_eq!(error.kind(), kind, "{error}");
    }
}
