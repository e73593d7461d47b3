//! The arguments that name a profile and change it, shared by every command that takes one.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::plan::Plan;
use crate::profile::{Change, Profile};

/// PROFILE and what changes it.
#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// A profile's file, or the name of an embedded one (`raftbench profiles` lists them)
    profile: String,
    /// What to load: bench-node, or etcd (found on the PATH)
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Load a cluster that already runs, at these addresses
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Change one value of the profile, as in load.rate_per_second=500 or faults.f1.at_s=5
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Seeds everything random in the run; without it, one is drawn and reported
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
}

impl ProfileArgs {
    /// As it was given, without folders.
    pub(super) fn name(&self) -> &str {
        let stem = std::path::Path::new(&self.profile).file_stem();
        stem.and_then(|stem| stem.to_str()).unwrap_or("profile")
    }

    /// The seed, where one is given.
    pub(super) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The same on another command line, but for the seed.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec![self.profile.clone()];
        words.extend(self.target.iter().flat_map(|target| ["--target".into(), target.clone()]));
        if !self.endpoints.is_empty() {
            words.extend(["--endpoints".into(), self.endpoints.join(",")]);
        }
        words.extend(self.set.iter().flat_map(|change| ["--set".into(), change.clone()]));
        words
    }

    /// The plan of this command line, checked whole.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let mut changes = Vec::new();
        if let Some(target) = &self.target {
            changes.push(Change::target(target));
        }
        if !self.endpoints.is_empty() {
            changes.push(Change::endpoints(&self.endpoints));
        }
        for text in &self.set {
            changes.push(Change::set(text)?);
        }
        let seed = self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        Ok(Profile::find(&self.profile)?.plan(&changes, seed, &key_prefix(seed))?)
    }
}

/// A prefix that no earlier run wrote under, so that every key starts absent.
fn key_prefix(seed: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("raftbench/{:x}-{seed:x}/", now.as_micros())
}
