//! Where the trials are: a network with one interface `v0` and peers behind it, and control groups.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::victim::{PORT, ROLE};

/// For whatever must happen; user-mode Linux is slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// Behind the interface.
pub(crate) const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 3)];

/// The control group of the trials, in each hierarchy.
pub(crate) const CGROUP: &str = "raftbench-agent-tests";

/// A host to be broken.
pub(crate) struct World {
    /// Whether this is a user-mode Linux.
    pub(crate) is_uml: bool,
    /// A process in the peers' network.
    peers: Child,
    echo: Child,
    /// A disk, and a file that lies on it (or the disk itself).
    pub(crate) disk: Option<(PathBuf, PathBuf)>,
    groups: Vec<PathBuf>,
}

impl World {
    pub(crate) fn make(place: &str) -> Self {
        let is_uml = place == "uml";
        if is_uml {
            load_modules();
        }
        let peers =
            Command::new("unshare").args(["--net", "sleep", "7200"]).spawn().expect("util-linux");
        let pid = peers.id();
        let own = std::fs::read_link("/proc/self/ns/net").expect("there");
        wait_until("the peers have a network of their own", || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs != own)
        });
        sh(&format!(
            "ip link set lo up
             ip link add v0 type veth peer name v1 netns {pid}
             ip address add 10.9.0.1/24 dev v0
             ip link set v0 up
             nsenter --net=/proc/{pid}/ns/net sh -c 'ip address add {0}/24 dev v1;
                 ip address add {1}/24 dev v1; ip link set v1 up; ip link set lo up'",
            PEERS[0], PEERS[1]
        ));
        let echo = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(own_program())
            .env(ROLE, "echo")
            .spawn()
            .expect("util-linux");
        let mut world = Self { is_uml, peers, echo, disk: None, groups: Vec::new() };
        wait_until("the peers answer", || TcpStream::connect((PEERS[0], PORT)).is_ok());
        world.groups = if is_uml { cgroup_v2() } else { cgroup_v1() };
        world.disk = if is_uml { loop_disk() } else { own_disk() };
        world
    }

    /// Puts a process into the control group.
    pub(crate) fn confine(&self, pid: u32) {
        for group in &self.groups {
            std::fs::write(group.join("cgroup.procs"), pid.to_string()).expect("moved");
        }
    }

    /// A file of the control group, by its name in v2 or in v1.
    pub(crate) fn setting(&self, v2: &str, v1: &str) -> PathBuf {
        let name = if self.is_uml { v2 } else { v1 };
        let files = self.groups.iter().map(|group| group.join(name));
        files.into_iter().find(|file| file.exists()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// All that an agent could leave on this host.
    pub(crate) fn census(&self) -> Vec<String> {
        let mut census = vec![output("tc qdisc show"), output("nft list ruleset")];
        let names = [
            "cpu.max",
            "io.max",
            "memory.max",
            "memory.high",
            "cpu.cfs_quota_us",
            "blkio.throttle.write_bps_device",
            "memory.limit_in_bytes",
        ];
        for group in &self.groups {
            for name in names {
                let file = group.join(name);
                if let Ok(text) = std::fs::read_to_string(&file) {
                    census.push(format!("{}: {}", file.display(), text.trim()));
                }
            }
        }
        census
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in [&mut self.echo, &mut self.peers] {
            child.kill().ok();
            child.wait().ok();
        }
        for group in &self.groups {
            std::fs::remove_dir(group).ok();
        }
    }
}

/// Connections that ask and answer all the while, one to each peer.
pub(crate) struct Talk {
    ends: Arc<AtomicBool>,
    talking: Vec<JoinHandle<()>>,
}

impl Talk {
    pub(crate) fn begin() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let talk = |peer: Ipv4Addr| {
            let ends = ends.clone();
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let to = (IpAddr::V4(peer), PORT).into();
                    let connected = TcpStream::connect_timeout(&to, Duration::from_secs(1));
                    let Ok(mut stream) = connected else { continue };
                    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
                    stream.set_nodelay(true).expect("set");
                    let mut answer = [0; 16];
                    while !ends.load(Ordering::Relaxed) {
                        // A silent peer is asked again on the same connection.
                        match stream
                            .write_all(b"are you there")
                            .and_then(|()| stream.read(&mut answer))
                        {
                            Ok(0) => break,
                            Ok(_) => thread::sleep(Duration::from_millis(2)),
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                            Err(_) => break,
                        }
                    }
                }
            })
        };
        let talking = PEERS.map(talk).into();
        Self { ends, talking }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for talking in self.talking.drain(..) {
            talking.join().ok();
        }
    }
}

pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().expect("this program's file")
}

/// Says that a part cannot be tried here; in CI that is a failure.
pub(crate) fn not_tried(what: &str) {
    println!("\n*** NOT TRIED: {what} ***\n");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{what}");
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "after {DEADLINE:?} it is not so that {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().expect("a shell");
    assert!(status.success(), "{script}: {status}");
}

fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).stderr(Stdio::null()).output();
    String::from_utf8_lossy(&output.expect("a shell").stdout).into_owned()
}

fn load_modules() {
    // Others are loaded by ci/uml. A module that is built in cannot be loaded.
    sh("folder=/usr/lib/uml/modules/$(uname -r)/kernel
        for module in net/netfilter/nfnetlink net/netfilter/nf_tables drivers/block/loop; do
            insmod $folder/$module.ko 2>/dev/null || true
        done");
}

fn cgroup_v2() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    sh("mount -t cgroup2 cgroup2 /sys/fs/cgroup
        echo '+cpu +io +memory' >/sys/fs/cgroup/cgroup.subtree_control");
    vec![group_in(root)]
}

fn cgroup_v1() -> Vec<PathBuf> {
    ["cpu", "blkio", "memory"].map(|name| group_in(&Path::new("/sys/fs/cgroup").join(name))).into()
}

/// A new one; one that a killed suite left is taken over.
fn group_in(root: &Path) -> PathBuf {
    let group = root.join(CGROUP);
    std::fs::create_dir_all(&group).unwrap_or_else(|error| panic!("{}: {error}", group.display()));
    group
}

fn loop_disk() -> Option<(PathBuf, PathBuf)> {
    sh("truncate -s 64M /tmp/disk && losetup /dev/loop0 /tmp/disk");
    Some(("/dev/loop0".into(), "/dev/loop0".into()))
}

/// The disk under the folder of this program's files.
fn own_disk() -> Option<(PathBuf, PathBuf)> {
    use std::os::unix::fs::MetadataExt;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let number = std::fs::metadata(folder).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let mut entry =
        Path::new("/sys/dev/block").join(format!("{major}:{minor}")).canonicalize().ok()?;
    if entry.join("partition").exists() {
        entry = entry.parent()?.to_owned();
    }
    let name = entry.file_name()?.to_str()?.to_owned();
    Some((Path::new("/dev").join(name), folder.join("agent-tests-disk")))
}
