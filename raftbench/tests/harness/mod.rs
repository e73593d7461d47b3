//! What the tests of whole runs share: starting the program, and seeing from outside what it left.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A short run over small timeouts: time zero is about two seconds after the start.
pub(crate) fn profile(faults: &str) -> String {
    format!(
        r#"description = "a short run"
[cluster]
target = "bench-node"
nodes = 3
heartbeat_ms = 50
election_timeout_ms = 500
[load]
arrivals = "poisson"
rate_per_second = 200
connections = 6
timeout_ms = 3000
max_outstanding = 2000
reads = "linearizable"
mix = {{ put = 0.5, get = 0.5 }}
keys = {{ count = 100, distribution = "uniform" }}
values = {{ bytes = 64 }}
[phases]
warmup_s = 1
measure_s = 7
drain_s = 3
[checks]
audit = true
{faults}"#
    )
}

/// Whether the long forms of tests are wanted (`ci/lab --full`), and not the sample of them that
/// `ci/test` takes.
pub(crate) fn full() -> bool {
    std::env::var("RAFTBENCH_TESTS").is_ok_and(|which| which == "full")
}

/// A test that measures, or counts what there is on this machine, wants it for itself.
static MACHINE: RwLock<()> = RwLock::new(());

/// Until it is dropped, no other test of this program runs that asked.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Beside others that do not mind either.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Says that something cannot be tried on this machine, and why; in CI that is a failure.
pub(crate) fn not_tried(what: &str, why: &str) {
    println!("\n*** NOT TRIED: {what}: {why} ***\n");
    assert!(std::env::var_os("CI").is_none(), "{what} cannot be tried here: {why}");
}

/// A folder of a test's own, with a profile in it.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn with(profile: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("short.toml"), profile).expect("written");
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    /// `raftbench COMMAND short.toml --out out`, not started yet.
    pub(crate) fn command(&self, command: &str, target: &str) -> Command {
        let mut program = raftbench();
        program.arg(command).arg(self.path().join("short.toml"));
        program.args(["--target", target]).arg("--out").arg(self.out());
        program
    }

    /// `summary.json` of the run.
    pub(crate) fn summary(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.out().join("summary.json")).expect("a summary");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The nodes: all processes with our folder on their command line, but for the program.
    pub(crate) fn nodes(&self, program: u32) -> Vec<i32> {
        let folder = self.path().to_str().expect("text");
        let processes = procfs::process::all_processes().expect("/proc");
        let ours = processes.filter_map(|process| {
            let process = process.ok()?;
            let named = process.cmdline().ok()?.iter().any(|word| word.contains(folder));
            (named && process.pid() != program as i32).then_some(process.pid())
        });
        ours.collect()
    }

    /// The undo journal holds a fault.
    pub(crate) fn a_fault_was_noted(&self) -> bool {
        let journal = std::fs::read_to_string(self.out().join("undo.jsonl"));
        journal.is_ok_and(|text| text.contains("\"fault\""))
    }
}

pub(crate) fn raftbench() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_raftbench"));
    program.stdin(Stdio::null());
    program
}

/// The program, running; killed with -9 at the end of its test, which leaves the rest to the keeper.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("started"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("delivered");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The keeper of `program`, as long as it lives.
pub(crate) fn keeper_of(program: u32) -> Option<i32> {
    let is_keeper = |words: &[String]| {
        words.iter().any(|word| word == "keeper") && words.iter().any(|w| *w == program.to_string())
    };
    procfs::process::all_processes().expect("/proc").find_map(|process| {
        let process = process.ok()?;
        is_keeper(&process.cmdline().ok()?).then_some(process.pid())
    })
}

/// `T`: stopped.
pub(crate) fn state_of(pid: i32) -> Option<char> {
    Some(procfs::process::Process::new(pid).ok()?.stat().ok()?.state)
}

/// Waits for `condition`; fails the test, naming `what`, if it does not come within `patience`.
pub(crate) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        sleep(Duration::from_millis(5));
    }
}

/// Fails the test where a program from a Debian package is missing.
pub(crate) fn needs_etcd() {
    let found = Command::new("etcd").arg("--version").output();
    assert!(found.is_ok(), "this test needs `etcd` on the PATH: apt-get install etcd-server");
}
