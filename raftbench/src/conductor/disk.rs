//! The file system under the data directories: a sync on tmpfs is not one, and reports say so.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::evidence::DataDirRecord;

/// The file system that holds `path`, as the mount table names it.
pub(super) fn under(path: &Path) -> Option<DataDirRecord> {
    let path = std::fs::canonicalize(path).ok()?;
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    // Of mounts on the same point the last covers the others.
    let mount = mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.components().count())?;
    let tmpfs = matches!(mount.fs_type.as_str(), "tmpfs" | "ramfs");
    Some(DataDirRecord { filesystem: mount.fs_type, tmpfs })
}

/// Has the file system of `path` write back what other programs left in its cache, so that the run
/// does not measure their writes: in a run right after a build, syncs took up to 250 ms on all nodes
/// at once, and in the next run, after this, they did not. Gives up after `patience`: a file system that others keep busy is never done.
pub(super) fn settle(path: &Path, patience: Duration) {
    let Ok(dir) = File::open(path) else { return };
    let (done, settled) = channel();
    std::thread::spawn(move || done.send(nix::unistd::syncfs(dir)));
    settled.recv_timeout(patience).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_disk() {
        let shm = under(Path::new("/dev/shm")).expect("mounted on every Linux");
        assert!(shm.tmpfs, "{shm:?}");
        assert!(!under(Path::new("/proc")).expect("mounted").tmpfs);
    }
}
