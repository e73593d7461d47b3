//! What each fault does, seen in its victim; that one which does nothing, or half, is not seen to bite;
//! and how faults end.

use std::process::Stdio;
use std::time::Duration;

use api::agent::fault::Kind;
use api::agent::{CpuLimit, IoLimit, MemoryLimit, Netem, Partition, State, Way};

use crate::Body;
use crate::stage::{LONG, Stage, said, victim};
use crate::world::{CGROUP, PEERS, Talk, World, not_tried, wait_until};

pub(crate) const ALL: &[(&str, Body)] = &[
    ("faults::a_partition", a_partition),
    ("faults::a_partition_in_one_direction", a_partition_in_one_direction),
    ("faults::netem", netem),
    ("faults::less_cpu", less_cpu),
    ("faults::less_io", less_io),
    ("faults::less_memory", less_memory),
    ("faults::a_kill", a_kill),
    ("faults::a_pause", a_pause),
    ("faults::a_lease_that_runs_out_heals", a_lease_that_runs_out_heals),
    ("faults::a_lease_that_is_renewed_holds", a_lease_that_is_renewed_holds),
    ("faults::an_agent_that_ends_heals", an_agent_that_ends_heals),
    ("faults::the_clock_is_measured", the_clock_is_measured),
    ("faults::the_command_holds_a_fault_until_ctrl_c", the_command_holds_a_fault_until_ctrl_c),
];

/// Long enough to see a fault bite on a busy machine.
const PATIENCE: Duration = Duration::from_secs(45);

/// So long a fault that does not do what it should is looked at.
const DISBELIEF: Duration = Duration::from_secs(3);

/// Injects it, sees it bite, heals it, and finds the host as before; then with inject doing nothing,
/// and with half of it, which must not count. The victim is `ready` before each.
fn bites_when(world: &World, stage: &Stage, kind: &Kind, ready: &dyn Fn()) {
    ready();
    let before = world.census();
    let agent = stage.agent();
    let id = stage.inject(&agent, kind.clone(), LONG).expect("injected");
    let seen = stage.observed(&agent, &id, PATIENCE);
    assert!(seen.bit, "{}", seen.seen);
    println!("{}", seen.seen);
    let healed = stage.heal(&agent, &id).expect("healed");
    assert_eq!(world.census(), before, "{}", healed.undone);
    drop(agent);
    if !cfg!(feature = "seeded-bugs") {
        return;
    }
    for bug in ["fault-does-nothing", "fault-does-half"] {
        if bug == "fault-does-half" && !has_halves(kind) {
            continue;
        }
        ready();
        let agent = stage.agent_with(&[("RAFTBENCH_SEEDED_BUG", bug)]);
        let id = stage.inject(&agent, kind.clone(), LONG).expect("injected");
        let seen = stage.observed(&agent, &id, DISBELIEF);
        assert!(!seen.bit, "with {bug}: {}", seen.seen);
        stage.heal(&agent, &id).expect("healed");
        assert_eq!(world.census(), before, "with {bug}");
    }
}

fn bites(world: &World, stage: &Stage, kind: &Kind) {
    bites_when(world, stage, kind, &|| {});
}

fn has_halves(kind: &Kind) -> bool {
    !matches!(kind, Kind::Kill(_) | Kind::Pause(_) | Kind::Restart(_))
}

pub(crate) fn partition(way: Way) -> Kind {
    let peers = PEERS.map(|peer| peer.to_string()).into();
    Kind::Partition(Partition { interface: "v0".into(), peers, way: way.into() })
}

pub(crate) fn cpu() -> Kind {
    Kind::CpuLimit(CpuLimit { cgroup: CGROUP.into(), cpus: 0.1 })
}

fn a_partition(world: &World) {
    let _talk = Talk::begin();
    bites(world, &Stage::new(world), &partition(Way::Both));
}

fn a_partition_in_one_direction(world: &World) {
    let _talk = Talk::begin();
    for way in [Way::In, Way::Out] {
        bites(world, &Stage::new(world), &partition(way));
    }
}

fn netem(world: &World) {
    let stage = Stage::new(world);
    let _talk = Talk::begin();
    let delay =
        Netem { interface: "v0".into(), delay_ms: 40.0, jitter_ms: 2.0, ..Netem::default() };
    let agent = stage.agent();
    match stage.inject(&agent, Kind::Netem(delay.clone()), LONG) {
        Ok(id) => drop(stage.heal(&agent, &id).expect("healed")),
        Err(error) if !world.is_uml => {
            assert!(error.to_string().contains("qdisc kind is unknown"), "{error}");
            println!("this kernel has no netem; it is tried in the user-mode Linux");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    drop(agent);
    bites(world, &stage, &Kind::Netem(delay));
    let loss = Netem { interface: "v0".into(), loss_percent: 20.0, ..Netem::default() };
    let before = world.census();
    let agent = stage.agent();
    let id = stage.inject(&agent, Kind::Netem(loss), LONG).expect("injected");
    let seen = stage.observed(&agent, &id, PATIENCE);
    assert!(seen.bit, "{}", seen.seen);
    stage.heal(&agent, &id).expect("healed");
    assert_eq!(world.census(), before);
}

fn less_cpu(world: &World) {
    bites(world, &Stage::with_victim(world, "burn"), &cpu());
}

fn less_io(world: &World) {
    let Some((disk, file)) = &world.disk else {
        return not_tried("limits of IO: this file system lies on no disk of its own");
    };
    let stage = Stage::with_victim(world, &format!("write {}", file.display()));
    let limit = IoLimit {
        cgroup: CGROUP.into(),
        device: disk.display().to_string(),
        write_bytes_per_second: 512 << 10,
        ..IoLimit::default()
    };
    let written = || {
        let io = procfs::process::Process::new(stage.victim_pid() as i32).and_then(|it| it.io());
        io.expect("it runs").wchar
    };
    let ready = || {
        let before = written();
        wait_until("the victim writes", || written() > before + (2 << 20));
    };
    bites_when(world, &stage, &Kind::IoLimit(limit), &ready);
}

fn less_memory(world: &World) {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent-tests-pages");
    let bytes = 48 << 20;
    std::fs::File::create(&file).and_then(|file| file.set_len(bytes)).expect("made");
    let stage = Stage::with_victim(world, &format!("read {}", file.display()));
    let usage = world.setting("memory.current", "memory.usage_in_bytes");
    let ready = || {
        wait_until("the victim has the file in memory", || {
            let text = std::fs::read_to_string(&usage).expect("read");
            text.trim().parse::<u64>().is_ok_and(|used| used > 40 << 20)
        });
    };
    let limit = MemoryLimit { cgroup: CGROUP.into(), max_bytes: 16 << 20, high_bytes: 0 };
    bites_when(world, &stage, &Kind::MemoryLimit(limit), &ready);
}

fn a_kill(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let first = stage.victim_pid();
    bites(world, &stage, &Kind::Kill(victim()));
    assert_ne!(stage.victim_pid(), first, "it was started again");
    assert!(stage.victim_state().is_some_and(|state| state != 'Z'));
}

fn a_pause(world: &World) {
    let stage = Stage::with_victim(world, "burn");
    bites(world, &stage, &Kind::Pause(victim()));
    assert_ne!(stage.victim_state(), Some('T'));
}

fn a_lease_that_runs_out_heals(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let before = world.census();
    let agent = stage.agent();
    let short = Duration::from_millis(500);
    let cut = stage.inject(&agent, partition(Way::Both), short).expect("injected");
    let paused = stage.inject(&agent, Kind::Pause(victim()), short).expect("injected");
    wait_until("both have healed by themselves", || {
        stage.list(&agent).iter().all(|fault| fault.state() == State::Ended)
    });
    assert_eq!(world.census(), before);
    assert_ne!(stage.victim_state(), Some('T'));
    for id in [&cut, &paused] {
        let error = stage.renew(&agent, id).expect_err("refused").to_string();
        assert!(error.contains(&format!("the lease of fault {id} ran out")), "{error}");
    }
    let error = stage.renew(&agent, "12345678").expect_err("refused").to_string();
    assert!(error.contains("no fault is called `12345678`"), "{error}");
}

fn a_lease_that_is_renewed_holds(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let agent = stage.agent();
    let lease = Duration::from_secs(2);
    let id = stage.inject(&agent, Kind::Pause(victim()), lease).expect("injected");
    stage.renew(&agent, &id).expect("renewed, for much longer");
    // The first lease would have run out meanwhile.
    std::thread::sleep(lease + Duration::from_millis(500));
    assert_eq!(stage.victim_state(), Some('T'));
    let held = stage.list(&agent);
    assert_eq!(held.first().map(|fault| fault.state()), Some(State::Holds));
    stage.heal(&agent, &id).expect("healed");
    let error = stage.renew(&agent, &id).expect_err("refused").to_string();
    assert!(error.contains("has ended: healed"), "{error}");
}

fn an_agent_that_ends_heals(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let before = world.census();
    let agent = stage.agent();
    stage.inject(&agent, partition(Way::Both), LONG).expect("injected");
    stage.inject(&agent, cpu(), LONG).expect("injected");
    stage.inject(&agent, Kind::Pause(victim()), LONG).expect("injected");
    assert_ne!(world.census(), before);
    agent.ends();
    assert_eq!(world.census(), before);
    assert_ne!(stage.victim_state(), Some('T'));
}

fn the_clock_is_measured(world: &World) {
    let stage = Stage::new(world);
    let agent = stage.agent();
    let offset = stage.offset(&agent);
    // It is the same clock.
    assert!(offset.offset_ns.unsigned_abs() <= offset.uncertainty.as_nanos() as u64, "{offset:?}");
    assert!(offset.uncertainty < Duration::from_secs(1), "{offset:?}");
}

fn the_command_holds_a_fault_until_ctrl_c(world: &World) {
    let stage = Stage::with_victim(world, "burn");
    stage.ca().client("operator", stage.ca());
    let agent = stage.agent();
    let known = [
        "--agent",
        agent.address(),
        "--ca",
        "pki/ca.pem",
        "--certificate",
        "pki/operator.pem",
        "--key",
        "pki/operator.key",
    ];
    let mut command = stage.program();
    command.args(["chaos", "inject", "--lease-s", "2"]).args(known);
    command.args(["pause", "--process", "victim"]);
    let inject = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    wait_until("the victim stands still", || stage.victim_state() == Some('T'));
    // Longer than the lease: the command renews it.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(stage.victim_state(), Some('T'));
    let pid = nix::unistd::Pid::from_raw(inject.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let output = inject.wait_with_output().expect("it is our child");
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    for part in ["the agent's clock shows", "bites: ", "bit: ", "undone: "] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
    assert_ne!(stage.victim_state(), Some('T'));
    let mut list = stage.program();
    let output = list.args(["chaos", "list"]).args(known).output().expect("started");
    assert!(said(&output).contains("process victim is paused: ended: healed"), "{}", said(&output));
}
