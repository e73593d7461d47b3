//! A run folder: everything that came of one run, in files that stand alone.
//!
//! Invariant: what is written here names no path outside the folder, so that the folder can be
//! moved, archived and read elsewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A run folder on this disk.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, with its parents; one that already holds something is refused.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the run folder {}", path.display()))?;
        let mut entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot read the run folder {}", path.display()))?;
        if entries.next().is_some() {
            bail!("the run folder {} is not empty; give another with --out", path.display());
        }
        let folder = Self { path: path.to_owned() };
        for inner in [folder.logs(), folder.data()] {
            std::fs::create_dir(&inner)
                .with_context(|| format!("cannot make {}", inner.display()))?;
        }
        Ok(folder)
    }

    /// A folder that a run left.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let folder = Self { path: path.to_owned() };
        if !folder.file("summary.json").is_file() {
            bail!("{} is not a run folder: it has no summary.json", path.display());
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the nodes print.
    pub fn logs(&self) -> PathBuf {
        self.file("logs")
    }

    /// The nodes' data directories, one for each.
    pub fn data(&self) -> PathBuf {
        self.file("data")
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
