//! Labs from the outside: a command on a host, a run in one, and that nothing of either remains,
//! whenever and whoever is killed.

mod harness;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use harness::{Bench, alone, beside_others, profile, wait_for};
use nix::unistd::{Gid, Uid, chown};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// Another number tries other moments.
const SEED: u64 = 4;

const KILL: &str = r#"
[[faults]]
kind = "kill"
target = "leader"
at_s = 0.5
restart_after_s = 1
"#;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum User {
    /// Whoever runs the tests.
    Self_,
    /// An ordinary user, for whom root has opened the device nodes, in mounts of its own.
    Nobody,
}

/// A folder with a profile whose nodes are a lab's, and a copy of the program that all may run.
struct Lab {
    bench: Bench,
    user: User,
}

impl Lab {
    fn of(user: User, network: &str, faults: &str) -> Self {
        let text = profile(faults).replace("nodes = 3", &format!("nodes = 3\n{network}"));
        let bench = Bench::with(&text);
        if user == User::Nobody {
            let open = |path: &Path| {
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("opened");
                chown(path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)))
                    .expect("ours");
            };
            std::fs::copy(env!("CARGO_BIN_EXE_raftbench"), bench.path().join("raftbench"))
                .expect("copied");
            open(bench.path());
            open(&bench.path().join("raftbench"));
        }
        Self { bench, user }
    }

    fn own_profile(&self) -> PathBuf {
        self.bench.path().join("short.toml")
    }

    /// `raftbench ARGUMENTS`, not started yet; the process that is started is the program itself.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.user {
            User::Self_ => harness::raftbench(),
            User::Nobody => {
                let open_devices = "mount -t tmpfs -o mode=755 none /mnt \
                    && mknod -m 0666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun \
                    && umount -l /mnt && exec setpriv --reuid=65534 --regid=65534 \
                    --clear-groups \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", open_devices, "sh"]);
                command.arg(self.bench.path().join("raftbench")).stdin(Stdio::null());
                command
            }
        };
        command.args(arguments).current_dir(self.bench.path()).env_remove("RAFTBENCH_LAB");
        command
    }

    /// `raftbench lab short.toml OPTIONS -- sh -c SCRIPT`, to its end.
    fn sh(&self, options: &[&str], script: &str) -> Output {
        let profile = self.own_profile();
        let mut arguments = vec!["lab"];
        if !options.contains(&"--join") {
            arguments.push(profile.to_str().expect("text"));
        }
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", script]);
        self.command(&arguments).output().expect("started")
    }

    fn start_run(&self) -> Child {
        let profile = self.own_profile();
        let mut run = self.command(&["run", profile.to_str().expect("text"), "--out", "out"]);
        run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
    }
}

/// Those that can be tried here. What cannot is said, and fails in CI.
fn users() -> Vec<User> {
    let mut users = Vec::new();
    let mut candidates = vec![User::Self_];
    if Uid::effective().is_root() {
        candidates.push(User::Nobody);
    }
    for user in candidates {
        let tried = Lab::of(user, "", "").sh(&[], "true");
        match tried.status.success() {
            true => users.push(user),
            false => {
                let why = String::from_utf8_lossy(&tried.stderr).into_owned();
                harness::not_tried(&format!("a lab as {user:?}"), &why);
            }
        }
    }
    users
}

#[test]
fn a_command_has_a_host_with_its_network_its_names_and_its_folder() {
    let _beside = beside_others();
    for user in users() {
        let lab = Lab::of(user, "network = { between = { round_trip_ms = 20 } }", "");
        let script = "ping -n -q -c 5 -i 0.1 n2 && ping -n -q -c 1 n3 && pwd && id -u && \
                      ls /proc | grep -c '^[0-9]*$' && ip -br address show eth0 && exit 7";
        let output = lab.sh(&["--host", "n1"], script);
        let text = String::from_utf8_lossy(&output.stdout);
        let told = format!("{user:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{told}");
        assert!(text.contains("5 packets transmitted, 5 received, 0% packet loss"), "{told}");
        let min = text.split("mdev = ").nth(1).and_then(|rest| rest.split('/').next());
        let min_ms: f64 = min.expect("figures").parse().expect("a number");
        assert!(min_ms >= 19.9, "{told}");
        assert!(text.contains("/data/n1\n0\n"), "its own folder, as root in there: {told}");
        assert!(text.contains("10.73.0.1/16"), "{told}");
        let left: Vec<_> =
            std::fs::read_dir(lab.bench.path().join("results/local")).expect("a folder").collect();
        assert!(left.is_empty(), "an unused folder was left: {left:?}");
    }
}

#[test]
fn a_lab_that_runs_can_be_joined() {
    let _beside = beside_others();
    for user in users() {
        let lab = Lab::of(user, "", "");
        let profile = lab.own_profile();
        let arguments =
            ["lab", profile.to_str().expect("text"), "--out", "out", "--host", "n1", "--"];
        let mut held = lab.command(&arguments);
        held.args(["sh", "-c", "echo here > here; echo begun; exec sleep 100"]);
        let mut held = held.stdout(Stdio::piped()).spawn().expect("started");
        let mut line = String::new();
        let output = held.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "begun\n", "{user:?}");

        let joined = lab.sh(
            &["--join", "out", "--host", "n2"],
            "pwd; cat ../n1/here; ping -n -q -c 1 n1 >/dev/null && ps ax; exit 5",
        );
        let text = String::from_utf8_lossy(&joined.stdout);
        let told = format!("{user:?}: {text}\n{}", String::from_utf8_lossy(&joined.stderr));
        assert_eq!(joined.status.code(), Some(5), "{told}");
        for part in ["/out/data/n2\nhere\n", "lab-init", "sleep 100"] {
            assert!(text.contains(part), "{part:?} is not in {told}");
        }
        let unknown = lab.sh(&["--join", "out", "--host", "n9"], "true");
        let error = String::from_utf8_lossy(&unknown.stderr);
        assert!(error.contains("no host is called `n9`; the lab has n1, n2, n3, c1"), "{error}");

        // What joined ends with the lab.
        let mut late = lab.command(&["lab", "--join", "out", "--", "sh", "-c"]);
        late.arg("echo in; exec sleep 100").stdout(Stdio::piped());
        let mut late = late.spawn().expect("started");
        let mut said = [0; 3];
        late.stdout.take().expect("piped").read_exact(&mut said).expect("in");
        held.kill().expect("killed");
        held.wait().expect("reaped");
        wait_for("the end of what joined", PATIENCE, || late.try_wait().expect("ours"));
        // While its first process is still ending, it cannot be opened.
        wait_for("the lab's end", PATIENCE, || {
            let gone = lab.sh(&["--join", "out"], "true");
            assert_eq!(gone.status.code(), Some(2));
            let error = String::from_utf8_lossy(&gone.stderr);
            error.contains("tells of a lab that has ended").then_some(())
        });
    }
}

#[test]
fn what_a_lab_cannot_be_is_refused_and_nothing_is_made() {
    let _beside = beside_others();
    let lab = Lab::of(User::Self_, "", "");
    let unknown = lab.sh(&["--host", "n4"], "true");
    assert_eq!(unknown.status.code(), Some(2));
    let error = String::from_utf8_lossy(&unknown.stderr);
    assert!(error.contains("no host is called `n4`; the lab has n1, n2, n3, c1"), "{error}");
    assert!(!lab.bench.path().join("results").exists());

    // In a user namespace that may have no more of them.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all \
                  --bounding-set=-all --securebits=+noroot,+noroot_locked --no-new-privs \"$@\"";
    let mut refused = Command::new("unshare");
    refused.args(["--user", "--map-root-user", "sh", "-c", forbid, "sh"]);
    refused.arg(env!("CARGO_BIN_EXE_raftbench")).arg("lab").arg(lab.own_profile());
    let refused = refused.args(["--", "true"]).output().expect("started");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{error}");
    assert!(error.contains("sysctl user.max_user_namespaces is 0"), "{error}");
}

#[test]
fn a_run_in_a_lab_has_its_network_in_the_report() {
    let _beside = beside_others();
    for user in users() {
        let lab = Lab::of(user, "network = \"jitter\"", KILL);
        let profile = lab.own_profile();
        let arguments = ["run", profile.to_str().expect("text"), "--out", "out"];
        let output = lab.command(&arguments).output().expect("started");
        let summary = lab.bench.summary();
        let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(summary["checks"]["audit"], "pass", "{told}");
        assert_eq!(summary["faults"][0]["effective"], true, "{told}");
        let network = &summary["network"];
        assert_eq!(network["name"], "jitter", "{told}");
        let trips = network["round_trips"].as_array().expect("a list");
        assert_eq!(trips.len(), 6, "{told}");
        for trip in trips {
            assert_eq!(trip["asked_ms"], 10.0, "{told}");
            // A machine that is busy, as in tests, can only lengthen it.
            assert!(trip["measured_ms"].as_f64() > Some(8.0), "{told}");
        }
        let page = std::fs::read_to_string(lab.bench.out().join("report.md")).expect("a report");
        assert!(page.contains("Network: jitter, by "), "{page}");
        assert!(!lab.bench.out().join("lab.json").exists());
    }
}

/// One of each kind of fault of links, one after the other.
const OF_LINKS: &str = r#"
[[faults]]
kind = "partition"
shape = "isolate"
target = "leader"
at_s = 1
heal_after_s = 3
[[faults]]
kind = "partition"
shape = "isolate"
target = "follower"
from = "peers"
flap_down_s = 0.6
flap_up_s = 0.4
at_s = 6
heal_after_s = 4
[[faults]]
kind = "partition"
shape = "isolate"
target = "leader"
from = "clients"
at_s = 11
heal_after_s = 2
[[faults]]
kind = "link"
target = "follower"
from = "peers"
delay_ms = 30
loss_percent = 20
at_s = 15
heal_after_s = 5
[[faults]]
kind = "link"
target = "follower"
from = "peers"
delay_ms = 20
jitter_ms = 5
at_s = 22
heal_after_s = 3.5
[[faults]]
kind = "link"
target = "follower"
from = "peers"
delay_ms = 40
reorder_percent = 20
at_s = 28.5
heal_after_s = 4
[[faults]]
kind = "link"
target = "follower"
from = "peers"
duplicate_percent = 20
at_s = 34
heal_after_s = 2.5
[[faults]]
kind = "link"
target = "follower"
from = "peers"
corrupt_percent = 12
at_s = 38
heal_after_s = 4
[[faults]]
kind = "link"
target = "follower"
from = "peers"
way = "in"
rate_mbit_per_second = 0.1
at_s = 44
heal_after_s = 4
"#;

/// What the proof of each says.
const SEEN: [&str; 9] = [
    "0 arrived",
    "again",
    "0 arrived",
    "round trip",
    "wider than delays make it",
    "came out of order",
    "did not arrive",
    "refused for their checksum",
    "Mbit/s asked for",
];

fn of_links() -> Lab {
    let lab = Lab::of(User::Self_, "network = \"cross-az\"", OF_LINKS);
    let text = std::fs::read_to_string(lab.own_profile()).expect("written");
    std::fs::write(lab.own_profile(), text.replace("measure_s = 7", "measure_s = 50"))
        .expect("ours");
    lab
}

fn run_of_links(lab: &Lab, target: &str, bug: Option<&str>) -> (Output, serde_json::Value) {
    let profile = lab.own_profile();
    let arguments = ["run", profile.to_str().expect("text"), "--out", "out", "--target", target];
    let mut run = lab.command(&arguments);
    let output = run.envs(bug.map(|bug| ("RAFTBENCH_SEEDED_BUG", bug))).output().expect("started");
    (output, lab.bench.summary())
}

/// Two clusters at once keep two cores half busy; four would be in each other's way.
static PAIR: Mutex<()> = Mutex::new(());

/// Two runs at once, each in a lab of its own: they wait more than they work.
fn side_by_side<T: Send>(
    of: [&'static str; 2],
    run: impl Fn(&Lab, &'static str) -> T + Sync,
) -> Vec<(&'static str, Lab, T)> {
    let _pair = PAIR.lock().unwrap_or_else(PoisonError::into_inner);
    let labs = of.map(|of| (of, of_links()));
    let run = &run;
    let done: Vec<T> = std::thread::scope(|scope| {
        let started = labs.each_ref().map(|(of, lab)| scope.spawn(move || run(lab, *of)));
        started.into_iter().map(|run| run.join().expect("the run was seen")).collect()
    });
    labs.into_iter().zip(done).map(|((of, lab), done)| (of, lab, done)).collect()
}

#[test]
fn faults_of_links_are_proven_by_the_traffic_of_those_they_strike() {
    let _beside = beside_others();
    if users().is_empty() {
        return;
    }
    harness::needs_etcd();
    let runs = side_by_side(["bench-node", "etcd"], |lab, target| run_of_links(lab, target, None));
    for (_, lab, (output, summary)) in runs {
        let told = format!("{}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(summary["checks"]["audit"], "pass", "{told}");
        let faults = summary["faults"].as_array().expect("a list");
        assert_eq!(faults.len(), SEEN.len(), "{told}");
        for (fault, seen) in faults.iter().zip(SEEN) {
            assert_eq!(fault["effective"], true, "{told}");
            assert!(fault["recovered_s"].is_number(), "{told}");
            assert!(fault["proof"].as_str().expect("text").contains(seen), "{seen}: {told}");
        }
        assert!(faults[0]["outage_ms"].as_f64() > Some(300.0), "{told}");
        observer_saw_the_leader_that_clients_did_not_reach(&lab, &faults[2]);
    }
}

/// A node that only clients are cut off from tells its status all the while.
fn observer_saw_the_leader_that_clients_did_not_reach(lab: &Lab, fault: &serde_json::Value) {
    let target = fault["target"].as_str().expect("text");
    let victim = target.split(['(', ')']).nth(1).expect("leader (n1)");
    let span = [&fault["injected_s"], &fault["healed_s"]].map(|s| s.as_f64().expect("a number"));
    let text = std::fs::read_to_string(lab.bench.out().join("metrics.jsonl")).expect("samples");
    let seen = text.lines().filter(|line| {
        let sample: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let at_s = sample["t_ns"].as_f64().expect("a number") / 1e9;
        let inside = at_s > span[0] && at_s < span[1];
        inside && sample["node"] == victim && sample["status"].is_object()
    });
    assert!(seen.count() >= 2, "{victim} was not seen from {} s to {} s", span[0], span[1]);
}

#[test]
fn faults_of_links_that_do_nothing_or_half_make_the_run_invalid() {
    let _beside = beside_others();
    if users().is_empty() {
        return;
    }
    let bugs = ["fault-does-nothing", "fault-does-half"];
    let runs = side_by_side(bugs, |lab, bug| run_of_links(lab, "bench-node", Some(bug)));
    for (bug, _lab, (output, summary)) in runs {
        let told = format!("{bug}: {}\n{summary:#}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(4), "{told}");
        for fault in summary["faults"].as_array().expect("a list") {
            assert_eq!(fault["effective"], false, "{told}");
        }
    }
}

/// In a user-mode Linux, which has it: slow, so with little load and long timeouts.
#[test]
fn faults_of_links_bite_over_netem_as_well() {
    let _beside = beside_others();
    // Its /tmp is another one.
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let faults = r#"
[[faults]]
kind = "partition"
shape = "isolate"
target = "leader"
from = "peers"
at_s = 1
heal_after_s = 8
[[faults]]
kind = "link"
target = "follower"
from = "peers"
delay_ms = 100
at_s = 13
heal_after_s = 6
"#;
    let text = profile(faults)
        .replace("nodes = 3", "nodes = 3\nnetwork = \"cross-az\"\nlinks = \"netem\"")
        .replace("heartbeat_ms = 50", "heartbeat_ms = 200")
        .replace("election_timeout_ms = 500", "election_timeout_ms = 2000")
        .replace("rate_per_second = 200", "rate_per_second = 20")
        .replace("measure_s = 7", "measure_s = 22");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("short.toml"), text).expect("written");
    let uml = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/uml");
    let mut run = Command::new(uml);
    run.arg(env!("CARGO_BIN_EXE_raftbench")).arg("run").arg(path("short.toml"));
    let output = run.arg("--out").arg(path("out")).output().expect("ci/uml");
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.code() == Some(77) {
        return harness::not_tried("a run over netem", &told);
    }
    let summary = std::fs::read_to_string(path("out").join("summary.json"));
    let summary = summary.unwrap_or_else(|error| panic!("no summary ({error}): {told}"));
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["network"]["links"], "netem", "{summary:#}");
    // By the kernel's own counters of its queues.
    let about = summary["network"]["about"].as_str().expect("text");
    let packets = about.strip_prefix("tc netem in the kernel, on a bridge: ");
    let packets = packets.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(packets > Some(1000), "{summary:#}");
    assert_eq!(summary["checks"]["audit"], "pass", "{summary:#}");
    for fault in summary["faults"].as_array().expect("a list") {
        assert_eq!(fault["effective"], true, "{summary:#}");
    }
}

/// Five moments from the start to the fault and after it, the users in turns; in full, two hundred.
#[test]
fn nothing_remains_of_a_lab_whose_program_is_killed() {
    let _alone = alone();
    let users = users();
    for (number, user) in (0..if harness::full() { 200 } else { 5 }).zip(users.iter().cycle()) {
        let ms = StdRng::seed_from_u64(SEED + number).random_range(0..4500);
        println!("{user:?}, killed after {ms} ms (seed {SEED}, number {number})");
        let before = Census::take();
        let lab = Lab::of(*user, "network = \"cross-az\"", KILL);
        let mut run = lab.start_run();
        sleep(Duration::from_millis(ms));
        run.kill().expect("killed");
        run.wait().expect("reaped");
        nothing_more_than(&before);
    }
}

#[test]
fn a_lab_ends_whole_when_one_of_its_own_processes_is_killed() {
    let _alone = alone();
    let Some(user) = users().into_iter().next() else { return };
    // The first process, and the program inside.
    for whom in ["lab-init", "run"] {
        let before = Census::take();
        let lab = Lab::of(user, "network = \"cross-az\"", KILL);
        let mut run = lab.start_run();
        let in_walk = || lab.bench.a_fault_was_noted().then_some(());
        wait_for("a fault", PATIENCE, in_walk);
        let found = lab.bench.nodes(run.id()).into_iter().find(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).nth(1) == Some(whom.as_bytes())
        });
        let pid = nix::unistd::Pid::from_raw(found.expect("it runs"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("delivered");
        let status = wait_for("the end", PATIENCE, || run.try_wait().expect("ours"));
        assert_ne!(status.code(), Some(0), "{whom}");
        nothing_more_than(&before);
    }
}

/// What a lab could leave on a machine.
#[derive(Debug, PartialEq)]
struct Census {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    processes: BTreeSet<String>,
}

impl Census {
    fn take() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let interfaces = std::fs::read_dir("/sys/class/net").expect("readable").flatten();
        let (mut namespaces, mut processes) = (BTreeSet::new(), BTreeSet::new());
        for process in procfs::process::all_processes().expect("/proc").flatten() {
            for kind in ["user", "pid", "mnt", "net"] {
                let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", process.pid()));
                namespaces.extend(link.map(|link| link.display().to_string()));
            }
            let words = process.cmdline().unwrap_or_default();
            if words.first().is_some_and(|word| word.ends_with("/raftbench")) {
                processes.insert(format!("{} {}", process.pid(), words.join(" ")));
            }
        }
        Self {
            mounts: mounts.lines().map(str::to_owned).collect(),
            interfaces: interfaces.map(|e| e.file_name().to_string_lossy().into_owned()).collect(),
            namespaces,
            processes,
        }
    }

    /// What is here and was not there.
    fn beyond(&self, before: &Self) -> Vec<String> {
        let new = |now: &BTreeSet<String>, then: &BTreeSet<String>| {
            now.difference(then).cloned().collect::<Vec<_>>()
        };
        [
            new(&self.mounts, &before.mounts),
            new(&self.interfaces, &before.interfaces),
            new(&self.namespaces, &before.namespaces),
            new(&self.processes, &before.processes),
        ]
        .concat()
    }
}

fn nothing_more_than(before: &Census) {
    let mut left = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while std::time::Instant::now() < deadline {
        left = Census::take().beyond(before);
        if left.is_empty() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("left behind: {left:#?}");
}

/// A leader that hears from no peer, and answers reads from its own belief that it leads, while
/// the others have another one.
#[cfg(feature = "seeded-bugs")]
#[test]
fn a_stale_read_fails_the_run() {
    const CUT_OFF: &str = r#"linearizable = true
[[faults]]
kind = "partition"
shape = "isolate"
target = "leader"
from = "peers"
at_s = 1
heal_after_s = 4
"#;
    let _alone = alone();
    if users().is_empty() {
        return;
    }
    let run = |bug: &[&str]| {
        let lab = Lab::of(User::Self_, "network = \"cross-az\"", CUT_OFF);
        let profile = lab.own_profile();
        let text = std::fs::read_to_string(&profile).expect("written");
        std::fs::write(&profile, text.replace("count = 100,", "count = 5,")).expect("ours");
        let mut run = lab.command(&["run", profile.to_str().expect("text"), "--out", "out"]);
        run.args(["--set", "cluster.bench_node.check_quorum=false"]).args(bug);
        let output = run.output().expect("started");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (lab.bench.summary(), lab.bench.out().join("violation.svg").exists(), told)
    };
    let bug = ["--set", "cluster.bench_node.seeded_bug=\"read-without-majority\""];
    let (clean, planted) = std::thread::scope(|scope| {
        let planted = scope.spawn(|| run(&bug));
        (run(&[]), planted.join().expect("it was seen"))
    });
    let (summary, drawn, told) = clean;
    assert_eq!(summary["checks"]["linearizable"], "pass", "{told}\n{summary:#}");
    assert!(!drawn, "{told}");
    let (summary, drawn, told) = planted;
    assert_eq!(summary["verdict"], "fail", "{told}\n{summary:#}");
    assert_eq!(summary["checks"]["linearizable"], "fail", "{told}\n{summary:#}");
    assert_eq!(summary["checks"]["lost_writes"], 0, "{told}\n{summary:#}");
    assert!(drawn, "no drawing of what was violated: {told}");
}
