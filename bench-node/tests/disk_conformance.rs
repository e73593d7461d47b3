//! What every disk must do, held against each of them by the same body.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bench_node::disk::{
    BLOCK_BYTES, BlockWrite, Blocking, Blocks, Disk, DiskError, DiskFile, Host, LogDisk, Simulated,
    WriteQueue,
};

#[test]
fn blocking() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&Blocking, dir.path());
}

#[test]
fn simulated() {
    conforms(&Simulated::new(1), Path::new("/simulated"));
}

/// Whatever this host allows.
#[test]
fn host() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&Host::new(LogDisk::Auto), dir.path());
}

#[test]
fn io_uring() {
    let host = Host::new(LogDisk::IoUring);
    if let Err(error) = host.queue(1) {
        assert_eq!(error.action, "set up a ring");
        return eprintln!("not tested, for this host has none for us: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    conforms(&host, dir.path());
    let mut queue = host.queue(3).unwrap();
    let file = Arc::new(host.create(&dir.path().join("file")).unwrap());
    queue.submit(&file, block_write(1, 0, 1));
    assert_eq!((queue.how().name, queue.how().fallen_back), ("io_uring", None));
    assert_eq!(queue.depth(), 3);
}

/// A file system that has no direct writes, or claims them in memory, is written to all the same.
#[test]
fn host_in_memory() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("not tested, for there is no /dev/shm");
    };
    conforms(&Host::new(LogDisk::Auto), dir.path());
}

fn conforms<D: Disk>(disk: &D, root: &Path) {
    let dir = root.join("a/b");
    directories(disk, &dir);
    names(disk, &dir);
    bytes(disk, &dir);
    locks(disk, &dir);
    queues(disk, &dir);
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

fn queues<D: Disk>(disk: &D, dir: &Path) {
    let path = dir.join("queued");
    let file = Arc::new(disk.create(&path).unwrap());
    let mut queue = disk.queue(4).unwrap();
    // Of different sizes, some within the file and some far behind its end, the later ones first.
    let mut expected = BTreeMap::new();
    let mut next_id = 0;
    let mut submit = |queue: &mut D::Queue, on_their_way: usize| {
        assert!(on_their_way < queue.depth());
        next_id += 1;
        let (block, blocks) = ((97 * next_id) % 64 * 4, next_id as usize % 4 + 1);
        let write = block_write(next_id, block * BLOCK_BYTES as u64, blocks);
        expected.insert(write.offset, write.blocks.bytes().to_vec());
        queue.submit(&file, write);
        next_id
    };
    // The first one goes alone; after it the depth is known.
    submit(&mut queue, 0);
    let mut on_their_way = vec![1];
    end_one(&mut queue, &mut on_their_way);
    assert!((1..=4).contains(&queue.depth()));
    for round in 0..60 {
        while on_their_way.len() < queue.depth() {
            on_their_way.push(submit(&mut queue, on_their_way.len()));
        }
        for _ in 0..=round % queue.depth() {
            end_one(&mut queue, &mut on_their_way);
        }
    }
    while !on_their_way.is_empty() {
        end_one(&mut queue, &mut on_their_way);
    }
    assert!(queue.ended().is_none(), "each is told once");

    // A wake-up is not lost, and ends a wait from any thread.
    let waker = queue.waker();
    waker.wake_by_ref();
    queue.wait();
    std::thread::scope(|scope| {
        scope.spawn(|| waker.wake_by_ref());
        queue.wait();
    });

    // What is on its way when the queue is dropped is there afterwards.
    for on_their_way in 0..queue.depth() {
        submit(&mut queue, on_their_way);
    }
    drop(queue);
    let written = read(&disk.open(&path).unwrap());
    for (offset, bytes) in expected {
        let offset = offset as usize;
        assert!(written[offset..offset + bytes.len()] == bytes, "at {offset}");
    }

    let mut queue = disk.queue(1).unwrap();
    let elsewhere = Arc::new(disk.create(&dir.join("another")).unwrap());
    for (id, file) in [(1, &file), (2, &elsewhere), (3, &file)] {
        queue.submit(file, block_write(id, 0, 1));
        end_one(&mut queue, &mut vec![id]);
    }
    assert_eq!(read(&*elsewhere), [2; BLOCK_BYTES], "one queue is for several files");
    assert_eq!(read(&*file)[..BLOCK_BYTES], [3; BLOCK_BYTES]);
}

fn block_write(id: u64, offset: u64, blocks: usize) -> BlockWrite {
    let blocks = Blocks::copy_of(&vec![id as u8; blocks * BLOCK_BYTES]);
    BlockWrite { id, offset, blocks, sync: id % 5 != 4 }
}

/// Waits for one, whichever.
fn end_one<Q: WriteQueue>(queue: &mut Q, on_their_way: &mut Vec<u64>) {
    let ended = loop {
        match queue.ended() {
            Some(ended) => break ended,
            None => queue.wait(),
        }
    };
    let time = ended.result.expect("the disk works");
    let at = on_their_way.iter().position(|id| *id == ended.id);
    on_their_way.swap_remove(at.expect("one that was submitted, and told once"));
    assert!(ended.blocks.bytes().iter().all(|&byte| byte == ended.id as u8), "the memory is back");
    assert!(ended.id % 5 != 4 || time.sync.is_zero(), "not synced: {time:?}");
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
