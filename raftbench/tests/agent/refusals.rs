//! What is refused, with the reason, and nothing changed.

use std::time::Duration;

use api::agent::fault::Kind;
use api::agent::{CpuLimit, MemoryLimit, Netem, Partition, Process, process};

use crate::Body;
use crate::pki::Ca;
use crate::stage::{LONG, Stage, victim};
use crate::world::{CGROUP, PEERS, World};

pub(crate) const ALL: &[(&str, Body)] = &[
    ("refusals::a_configuration_that_cannot_be", a_configuration_that_cannot_be),
    ("refusals::no_tls", no_tls),
    ("refusals::clients_that_are_not_known", clients_that_are_not_known),
    ("refusals::what_is_not_on_the_list", what_is_not_on_the_list),
    ("refusals::what_has_no_meaning", what_has_no_meaning),
    ("refusals::the_same_thing_twice", the_same_thing_twice),
    ("refusals::a_state_directory_of_others", a_state_directory_of_others),
];

/// Each with file, line and key, and what to do.
fn a_configuration_that_cannot_be(world: &World) {
    let stage = Stage::new(world);
    let whole = stage.configuration(world);
    for (from, to, told) in [
        (
            "listen = \"127.0.0.1:0\"",
            "listen = \"here\"",
            ["agent.toml:1: `listen`", "10.0.0.1:7979"],
        ),
        ("listen = \"127.0.0.1:0\"\n", "", ["`listen` is missing", "give an address"]),
        ("[\"v0\"]", "[\"v0; reboot\"]", ["agent.toml:10: `allow.interfaces`", "ip -br link"]),
        ("[\"v0\"]", "\"v0\"", ["agent.toml:10: `allow.interfaces`", "must be an array"]),
        ("interfaces", "interface", ["`allow.interface` is not a known key", "`interfaces`"]),
        (&*format!("[\"{CGROUP}\"]"), "[\"../x\"]", ["`allow.cgroups`", "system.slice/"]),
        ("pki/ca.pem", "pki/none.pem", ["agent.toml:7: `tls.client_ca`", "No such file"]),
        (
            "state_dir",
            "longest_lease_s = 0\nstate_dir",
            ["agent.toml:2: `longest_lease_s`", "from 1 to"],
        ),
        ("[tls]", "tls]", ["agent.toml:4:", "not valid TOML"]),
    ] {
        assert!(whole.contains(from), "{from}");
        stage.configure(&whole.replace(from, to));
        let error = stage.refused_agent(&[]);
        for part in told {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
    assert!(!stage.path().join("state").exists(), "nothing was made");
}

fn no_tls(world: &World) {
    let stage = Stage::new(world);
    let whole = stage.configuration(world);
    let (before, rest) = whole.split_once("[tls]").expect("there");
    let without = before.to_owned() + &rest[rest.find("[allow]").expect("there")..];
    stage.configure(&without);
    let error = stage.refused_agent(&[]);
    assert!(error.contains("no [tls]") && error.contains("--insecure"), "{error}");
    stage.configure(&without.replace("127.0.0.1:0", "10.9.0.1:0"));
    let error = stage.refused_agent(&["--insecure"]);
    assert!(error.contains("only listen on a loopback address"), "{error}");
    stage.configure(&without);
    let mut command = stage.agent_command(&[]);
    command.arg("--insecure").stdout(std::process::Stdio::piped());
    let mut process = command.stderr(std::process::Stdio::null()).spawn().expect("started");
    let mut line = String::new();
    let printed = process.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(printed), &mut line).expect("read");
    process.kill().expect("it runs");
    process.wait().expect("it is our child");
    assert!(line.starts_with("listens on 127.0.0.1:"), "{line}");
}

fn clients_that_are_not_known(world: &World) {
    let stage = Stage::new(world);
    let agent = stage.agent();
    let ours = stage.ca().client("another", stage.ca());
    stage.connect(&agent, Some(&ours)).expect("a client of the CA is let in");
    let stranger = Ca::new(&stage.path().join("strangers")).client("stranger", stage.ca());
    assert!(stage.connect(&agent, Some(&stranger)).is_err(), "a client of another CA");
    assert!(stage.connect(&agent, None).is_err(), "a client without TLS");
    // Knows the agent's CA, and shows no certificate of its own.
    let mut nameless = stage.program();
    nameless.args(["chaos", "list", "--agent", agent.address(), "--ca", "pki/ca.pem"]);
    let output = nameless.output().expect("started");
    assert_eq!(output.status.code(), Some(2), "clap demands the certificate");
    let shaken = std::process::Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            agent.address(),
            "-CAfile",
            "pki/ca.pem",
            "-alpn",
            "h2",
            "-ign_eof",
        ])
        .current_dir(stage.path())
        .stdin(std::process::Stdio::null())
        .output();
    match shaken {
        Ok(output) => {
            let told = crate::stage::said(&output);
            assert!(told.contains("certificate required"), "{told}");
        }
        Err(error) => crate::world::not_tried(&format!("openssl s_client: {error}")),
    }
}

fn what_is_not_on_the_list(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let agent = stage.agent();
    let before = world.census();
    let process = |name: &str| Process { named: Some(process::Named::Process(name.into())) };
    let unit = |name: &str| Process { named: Some(process::Named::Unit(name.into())) };
    let peers = vec![PEERS[0].to_string()];
    for (kind, asked) in [
        (
            Kind::Netem(Netem { interface: "lo".into(), delay_ms: 1.0, ..Netem::default() }),
            "interface `lo`",
        ),
        (
            Kind::Partition(Partition { interface: "eth0".into(), peers, way: 0 }),
            "interface `eth0`",
        ),
        (Kind::CpuLimit(CpuLimit { cgroup: "".into(), cpus: 0.5 }), "cgroup ``"),
        (Kind::Kill(process("init")), "process `init`"),
        (Kind::Pause(unit("sshd.service")), "unit `sshd.service`"),
    ] {
        let error = stage.inject(&agent, kind, LONG).expect_err("refused").to_string();
        let told = format!("{asked} is not on the agent's list");
        assert!(error.contains(&told) && error.contains("[allow]"), "{error}");
    }
    assert_eq!(world.census(), before);
    assert_eq!(std::fs::read_to_string(stage.journal()).expect("a journal"), "");
    assert!(stage.list(&agent).is_empty());
}

fn what_has_no_meaning(world: &World) {
    let stage = Stage::new(world);
    let agent = stage.agent();
    let before = world.census();
    let netem = |netem: Netem| Kind::Netem(Netem { interface: "v0".into(), ..netem });
    let peers = |peers: &[&str]| {
        let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        Kind::Partition(Partition { interface: "v0".into(), peers, way: 0 })
    };
    let memory = MemoryLimit { cgroup: CGROUP.into(), max_bytes: 0, high_bytes: 0 };
    for (kind, told) in [
        (netem(Netem { delay_ms: -1.0, ..Netem::default() }), "delay is -1 ms"),
        (netem(Netem { loss_percent: 101.0, ..Netem::default() }), "loss is 101 %"),
        (netem(Netem::default()), "changes nothing"),
        (peers(&[]), "names no peer"),
        (peers(&["n2; flush ruleset"]), "is no IP address"),
        (Kind::CpuLimit(CpuLimit { cgroup: CGROUP.into(), cpus: -1.0 }), "cpus: is -1"),
        (Kind::MemoryLimit(memory), "limits nothing"),
    ] {
        let error = stage.inject(&agent, kind, LONG).expect_err("refused").to_string();
        assert!(error.contains(told), "`{told}` is not in: {error}");
    }
    let cpu = Kind::CpuLimit(CpuLimit { cgroup: CGROUP.into(), cpus: 0.5 });
    let error = stage.inject(&agent, cpu, Duration::from_secs(3600)).expect_err("refused");
    assert!(error.to_string().contains("longest_lease_s"), "{error}");
    assert_eq!(world.census(), before);
}

fn the_same_thing_twice(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let agent = stage.agent();
    let first = stage.inject(&agent, Kind::Pause(victim()), LONG).expect("paused");
    let error = stage.inject(&agent, Kind::Kill(victim()), LONG).expect_err("refused").to_string();
    assert!(error.contains(&format!("is under fault {first} already")), "{error}");
    let second = stage.refused_agent(&[]);
    assert!(second.contains("another agent holds it"), "{second}");
    stage.heal(&agent, &first).expect("healed");
    assert_ne!(stage.victim_state(), Some('T'));
}

fn a_state_directory_of_others(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new(world);
    let folder = stage.path().join("state");
    std::fs::create_dir(&folder).expect("made");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("set");
    let error = stage.refused_agent(&[]);
    assert!(error.contains("others can write to it") && error.contains("chmod"), "{error}");
}
