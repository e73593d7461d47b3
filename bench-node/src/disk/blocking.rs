//! The host's file system, through plain system calls.
//!
//! Invariant: no call returns `Ok` before the system call that it stands for did.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{BLOCK_BYTES, Disk, DiskError, DiskFile, OneByOne};

/// The host's file system: pwrite and fdatasync.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocking;

/// A file of the host.
#[derive(Debug)]
pub struct BlockingFile {
    path: PathBuf,
    file: File,
}

impl Disk for Blocking {
    type File = BlockingFile;
    type Lock = File;
    type Queue = OneByOne<BlockingFile>;

    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        let mut missing = Vec::new();
        let mut at = Some(dir);
        while let Some(path) = at.filter(|path| !path.as_os_str().is_empty() && !path.is_dir()) {
            missing.push(path);
            at = path.parent();
        }
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
                    return Err(DiskError::new(path, "create the directory", error));
                }
                _ => {}
            }
            self.sync_dir(match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            })?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, DiskError> {
        let failed = |error| DiskError::new(dir, "list the directory", error);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        names.sort_unstable();
        Ok(Some(names))
    }

    fn create(&self, path: &Path) -> Result<BlockingFile, DiskError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map(|file| BlockingFile { path: path.to_owned(), file })
            .map_err(|error| DiskError::new(path, "create the file", error))
    }

    fn open(&self, path: &Path) -> Result<BlockingFile, DiskError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(|file| BlockingFile { path: path.to_owned(), file })
            .map_err(|error| DiskError::new(path, "open the file", error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(|error| DiskError::new(from, "rename the file", error))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        fs::remove_file(path).map_err(|error| DiskError::new(path, "remove the file", error))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        File::open(dir)
            .and_then(|opened| opened.sync_all())
            .map_err(|error| DiskError::new(dir, "sync the directory", error))
    }

    fn lock(&self, path: &Path, note: &str) -> Result<Option<File>, DiskError> {
        let failed = |error| DiskError::new(path, "lock the file", error);
        // Not truncated on opening: whoever holds the lock has its note in there.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| file.write_all(note.as_bytes())).map_err(failed)?;
        Ok(Some(file))
    }

    fn queue(&self, _depth: usize) -> Result<OneByOne<BlockingFile>, DiskError> {
        Ok(OneByOne::default())
    }
}

impl DiskFile for BlockingFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| DiskError::new(&self.path, "stat the file", error))?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| DiskError::new(&self.path, "read", error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| DiskError::new(&self.path, "write", error))
    }

    fn fill_zero(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        // Block by block: a larger write makes larger folios in the page cache, and the kernel then
        // counts a whole folio as written for each block that is overwritten later (measured on
        // Linux 6.18, ext4: 1 MiB in /proc/PID/io for 4 KiB on the device).
        static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            self.file
                .write_all_at(&ZEROS[..step as usize], at)
                .map_err(|error| DiskError::new(&self.path, "fill with zeros", error))?;
            at += step;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| DiskError::new(&self.path, "sync", error))
    }
}
