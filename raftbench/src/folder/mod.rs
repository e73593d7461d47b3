//! A run folder: everything that came of one run, in files that stand alone.
//!
//! Invariant: what is written here names no path outside the folder, so that the folder can be
//! moved, archived and read elsewhere.

mod host;
mod leadership;
mod manifest;
mod write;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

use crate::judge::summary::Summary;

/// The summary's file.
const SUMMARY: &str = "summary.json";
/// The operations' file.
const HISTORY: &str = "history.jsonl.zst";
/// The drawing of what is not linearizable, where something is not.
pub const VIOLATION: &str = "violation.svg";

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

    /// Where a run's folder is made unless the command line says otherwise.
    pub fn default_path(profile: &str, target: &str) -> PathBuf {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let time = time.replace(['-', ':'], "");
        Path::new("results/local").join(format!("{time}-{profile}-{target}"))
    }

    /// A folder that may be no whole run: only what is asked of it need be there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// A folder that a run left.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let folder = Self::at(path);
        if !folder.file(SUMMARY).is_file() {
            bail!("{} is not a run folder: it has no summary.json", path.display());
        }
        Ok(folder)
    }

    /// Removes the folder of a run that broke off, unless a node has printed something that may
    /// say why; whether it did.
    pub fn discard_unless_logged(&self) -> bool {
        let printed = |entry: &std::fs::DirEntry| entry.metadata().is_ok_and(|log| log.len() > 0);
        let logged = std::fs::read_dir(self.logs())
            .is_ok_and(|logs| logs.flatten().any(|entry| printed(&entry)));
        !logged && std::fs::remove_dir_all(&self.path).is_ok()
    }

    /// Removes the folder where nothing but empty folders is in it.
    pub fn remove_unless_used(&self) {
        remove_empty(&self.path);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The operations: compressed, as runs write them, or plain.
    pub fn history(&self) -> anyhow::Result<PathBuf> {
        let names = [HISTORY, HISTORY.trim_end_matches(".zst")];
        let mut files = names.iter().map(|name| self.file(name));
        files.find(|file| file.is_file()).with_context(|| {
            format!("{} holds no history: no {}", self.path.display(), names.join(" and no "))
        })
    }

    /// What the nodes print.
    pub fn logs(&self) -> PathBuf {
        self.file("logs")
    }

    /// The nodes' data directories, one for each.
    pub fn data(&self) -> PathBuf {
        self.file("data")
    }

    /// What the run came to.
    pub fn summary(&self) -> anyhow::Result<Summary> {
        let path = self.file(SUMMARY);
        serde_json::from_str(&self.summary_text()?)
            .with_context(|| format!("{} is not a summary of this version", path.display()))
    }

    /// `summary.json` as it stands.
    pub fn summary_text(&self) -> anyhow::Result<String> {
        self.read(SUMMARY)
    }

    /// The profile as resolved, from the manifest.
    pub fn profile(&self) -> anyhow::Result<toml::Table> {
        let manifest: toml::Table = self
            .read("manifest.toml")?
            .parse()
            .with_context(|| format!("{} is not TOML", self.file("manifest.toml").display()))?;
        match manifest.get("profile") {
            Some(toml::Value::Table(profile)) => Ok(profile.clone()),
            _ => bail!("{} has no [profile]", self.file("manifest.toml").display()),
        }
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Removes the nodes' data: it is large, and of no use once nothing is wrong with it.
    pub fn remove_data(&self) -> anyhow::Result<()> {
        let data = self.data();
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes `folder` and what is in it as far as these are empty folders.
fn remove_empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    std::fs::remove_dir(folder).ok();
}
