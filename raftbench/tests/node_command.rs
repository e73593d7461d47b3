//! `raftbench node` as an operator meets it: what it refuses, with which words and exit code, and
//! what it leaves behind.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use api::etcdserverpb::PutRequest;
use api::etcdserverpb::kv_client::KvClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// A single member that was not started yet.
struct Alone {
    dir: TempDir,
    /// For clients, peers, metrics.
    addresses: [SocketAddr; 3],
}

impl Alone {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let addresses = [(); 3].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
            listener.local_addr().expect("it is bound")
        });
        let alone = Self { dir, addresses };
        alone.configure("");
        alone
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("n1.toml")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Writes its file, with more lines at the end.
    fn configure(&self, more: &str) {
        let [client, peer, metrics] = self.addresses;
        let text = format!(
            "name = \"n1\"\ncluster = \"test\"\ndata_dir = {:?}\nclient_listen = \"{client}\"\n\
             peer_listen = \"{peer}\"\nmetrics_listen = \"{metrics}\"\nheartbeat_ms = 50\n\
             election_timeout_ms = 500\n[[members]]\nname = \"n1\"\npeer = \"{peer}\"\n\
             client = \"{client}\"\n{more}",
            self.data()
        );
        std::fs::write(self.config(), text).expect("written");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
        command.args(["node", "--config"]).arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end, which must be a refusal.
    #[track_caller]
    fn refused(&self, expected: &[&str]) {
        let Output { status, stdout, stderr } = self.command().output().expect("started");
        let told = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(2), "{told}");
        assert!(stdout.is_empty(), "errors go to stderr");
        for part in expected {
            assert!(told.contains(part), "`{told}`\ndoes not say `{part}`");
        }
    }

    /// Waits until it answers.
    fn serves(&self, node: &mut Running) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = self.put("ready") {
            assert_eq!(node.0.try_wait().expect("asked"), None, "it ended");
            assert!(Instant::now() < deadline, "not in time: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn put(&self, key: &str) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let address = format!("http://{}", self.addresses[0]);
            let mut kv = KvClient::connect(address).await.map_err(|error| error.to_string())?;
            let (key, value) = (key.to_owned().into(), "v".into());
            let put = PutRequest { key, value, ..Default::default() };
            kv.put(put).await.map(drop).map_err(|status| status.to_string())
        })
    }
}

struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stderr(Stdio::null()).spawn().expect("started"))
    }

    /// Asks it to end; its exit code.
    fn terminated(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("delivered");
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.0.try_wait().expect("asked") {
                Some(status) => return status.code(),
                None => assert!(Instant::now() < deadline, "it did not end"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_bad_configuration_is_refused_with_file_line_and_key() {
    let alone = Alone::new();
    let file = alone.config().display().to_string();
    alone.configure("[settings]\nprevote = true\n");
    alone.refused(&[&format!("{file}:14: "), "unknown field `prevote`", "`pre_vote`"]);
    alone.configure("[settings]\nmax_append_entries = 0\n");
    alone.refused(&[&format!("{file}:14: max_append_entries: "), "nonzero"]);
    alone.configure("[settings]\nsegment_bytes = -4096\n");
    alone.refused(&[&format!("{file}:14: segment_bytes: "), "-4096"]);
    std::fs::remove_file(alone.config()).expect("it is there");
    alone.refused(&[&file, "cannot read the configuration"]);
    assert!(!alone.data().exists(), "nothing was made");
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_made() {
    let alone = Alone::new();
    let keys = ["client_listen", "peer_listen", "metrics_listen"];
    for (key, address) in keys.into_iter().zip(alone.addresses) {
        let taken = TcpListener::bind(address).expect("it is free");
        alone.refused(&[&format!("cannot listen on {address} ({key})"), "choose another port"]);
        drop(taken);
    }
    assert!(!alone.data().exists(), "nothing was made");
}

#[test]
fn a_data_directory_that_is_locked_foreign_or_damaged_is_refused_and_left_alone() {
    let (alone, second) = (Alone::new(), Alone::new());
    let mut node = Running::start(&mut alone.command());
    alone.serves(&mut node);
    let pid = node.0.id();
    second.configure("");
    let text = std::fs::read_to_string(second.config()).expect("its file");
    let data = |alone: &Alone| alone.data().display().to_string();
    std::fs::write(second.config(), text.replace(&data(&second), &data(&alone))).expect("written");
    second.refused(&[&data(&alone), &format!("in use by process {pid}")]);
    alone.put("after").expect("the holder goes on");
    assert_eq!(node.terminated(), Some(0));

    let text = std::fs::read_to_string(alone.config()).expect("its file");
    std::fs::write(alone.config(), text.replace("\"test\"", "\"another\"")).expect("written");
    alone.refused(&[&data(&alone), "belongs to member", "choose another directory"]);
    std::fs::write(alone.config(), &text).expect("written");

    // A batch that was acknowledged, with one bit of it flipped.
    let segment = first_segment(&alone.data().join("wal"));
    let whole = std::fs::read(&segment).expect("the log");
    let mut rotten = whole.clone();
    rotten[4096 + 50] ^= 1;
    std::fs::write(&segment, &rotten).expect("written");
    let before = everything_in(&alone.data());
    alone.refused(&[&segment.display().to_string(), "damaged at byte 4096", "Nothing was changed"]);
    assert_eq!(everything_in(&alone.data()), before);
    std::fs::write(&segment, &whole).expect("written");
    let mut node = Running::start(&mut alone.command());
    alone.serves(&mut node);
    assert_eq!(node.terminated(), Some(0));
}

fn first_segment(wal: &Path) -> PathBuf {
    let entries = std::fs::read_dir(wal).expect("a log").map(|entry| entry.expect("one").path());
    entries.min().expect("a segment")
}

/// Paths and contents of all but the lock, which names who held it last.
fn everything_in(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("readable") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => dirs.push(path),
                false if path.ends_with("lock") => {}
                false => files.push((path.clone(), std::fs::read(path).expect("readable"))),
            }
        }
    }
    files.sort();
    files
}

/// Shells give processes few file descriptors by default, and each client takes one.
#[test]
fn more_clients_are_served_than_the_shell_gave_descriptors() {
    let alone = Alone::new();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 64 && exec \"$0\" node --config \"$1\""]);
    limited.arg(env!("CARGO_BIN_EXE_raftbench")).arg(alone.config()).stdin(Stdio::null());
    let mut node = Running::start(&mut limited);
    alone.serves(&mut node);
    let clients: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(alone.addresses[0]).expect("the kernel's queue is longer"))
        .collect();
    // Behind all those in the queue.
    alone.put("after").expect("it is served");
    let files = std::fs::read_dir(format!("/proc/{}/fd", node.0.id())).expect("it runs").count();
    assert!(files > clients.len(), "{files} descriptors for {} clients", clients.len());
    assert_eq!(node.terminated(), Some(0));
}
