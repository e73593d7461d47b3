//! The keeper: a small process of its own, started before anything else of a run. It holds the
//! program's pidfd, and when the program dies, by whatever death, it kills every process that
//! carries the run's mark.
//!
//! Invariant: only a process whose environment has exactly `RAFTBENCH_RUN=<this run's mark>` is
//! ever killed. The program and the keeper do not have it: it is set on the nodes alone, and the
//! keeper gets it as an argument.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The environment variable that marks what a run started.
pub const MARK: &str = "RAFTBENCH_RUN";

/// What the keeper says once it watches.
const WATCHING: &str = "watching";

/// A child that had been forked when the program died, but not yet turned into the node, shows its
/// mark only after that: the keeper looks until none was seen for so long.
const QUIET: Duration = Duration::from_millis(300);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The program's side: while this lives, the run is watched.
#[derive(Debug)]
pub struct Keeper {
    mark: String,
    process: Child,
}

impl Keeper {
    /// Starts the keeper, and returns when it watches this process.
    pub fn start() -> anyhow::Result<Self> {
        let mark = format!("{:032x}", rand::random::<u128>());
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut process = Command::new(program)
            .args(["keeper", "--program", &std::process::id().to_string(), "--mark", &mark])
            // A run inside a run: the outer keeper must not stop the inner one before its work.
            .env_remove(MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the keeper process")?;
        let mut said = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut said).context("cannot hear the keeper")?;
        }
        ensure!(said.trim_end() == WATCHING, "the keeper process ended instead of watching");
        Ok(Self { mark, process })
    }

    /// What every process of the run carries in [`MARK`].
    pub fn mark(&self) -> &str {
        &self.mark
    }
}

impl Drop for Keeper {
    /// Sends the keeper away: it kills what is left, and ends.
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}

/// Arguments of the hidden command `keeper`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process to watch; it must be the parent
    #[arg(long)]
    program: i32,
    /// What its children carry
    #[arg(long)]
    mark: String,
}

/// The keeper's side: watches until the program dies or sends it away.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Whatever ends the program (Ctrl-C, a terminal that closes) must leave the keeper alive.
    SigSet::all().thread_block().context("cannot block signals")?;
    nix::unistd::setsid().context("cannot begin a session of its own")?;
    let program = Pid::from_raw(args.program).context("--program is not a process id")?;
    let pidfd = pidfd_open(program, PidfdFlags::empty());
    // Still our parent after the pidfd was opened: so it names the program, not a later process.
    let is_parent = nix::unistd::getppid().as_raw() == args.program;
    if let (Ok(pidfd), true) = (&pidfd, is_parent) {
        println!("{WATCHING}");
        wait_for_the_end(pidfd)?;
    }
    kill_all(&args.mark);
    Ok(ExitCode::SUCCESS)
}

/// Returns when the program ended, or closed our standard input.
fn wait_for_the_end(program: &impl AsFd) -> anyhow::Result<()> {
    let mut input = std::io::stdin();
    loop {
        let stdin = std::io::stdin();
        let mut fds = [
            PollFd::new(program.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => bail!("cannot wait for the program's end: {error}"),
        }
        if fds[0].any().unwrap_or(false) {
            return Ok(());
        }
        if fds[1].any().unwrap_or(false) && input.read(&mut [0; 64])? == 0 {
            return Ok(());
        }
    }
}

fn kill_all(mark: &str) {
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < QUIET {
        for pid in marked(mark) {
            quiet_since = Instant::now();
            kill(pid, mark);
        }
        sleep(LOOK_EVERY);
    }
}

/// The mark that a process with this command line watches over, if it is a keeper.
pub fn watches(words: &[String]) -> Option<String> {
    let is_keeper = words.get(1).is_some_and(|word| word == "keeper");
    let mark = words.iter().position(|word| word == "--mark")?;
    words.get(mark + 1).filter(|_| is_keeper).cloned()
}

/// The processes that carry `mark`. One that has ended, reaped or not, carries nothing.
pub fn marked(mark: &str) -> Vec<i32> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    processes
        .filter_map(|process| process.ok().map(|p| p.pid()))
        .filter(|p| has(*p, mark))
        .collect()
}

fn has(pid: i32, mark: &str) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| {
        let variable = OsStr::from_bytes(variable).as_bytes();
        variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
            == Some(mark.as_bytes())
    })
}

fn kill(pid: i32, mark: &str) {
    let Some(id) = Pid::from_raw(pid) else { return };
    let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { return };
    // Asked again now that the handle is held: the pid may have become another process.
    if has(pid, mark) {
        pidfd_send_signal(&pidfd, Signal::KILL).ok();
    }
}
