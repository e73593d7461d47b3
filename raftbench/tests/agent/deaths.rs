//! `kill -9` of the agent, and the host afterwards: exactly as it was before.

use std::time::Duration;

use api::agent::fault::Kind;
use api::agent::{IoLimit, Netem, Way};

use crate::Body;
use crate::faults::{cpu, partition};
use crate::stage::{LONG, Stage, said, victim};
use crate::world::{CGROUP, World, wait_until};

pub(crate) const ALL: &[(&str, Body)] = &[
    ("deaths::with_a_fault_in_force_is_healed_by_the_next_agent", healed_by_the_next_agent),
    ("deaths::with_a_fault_in_force_is_healed_by_the_doctor", healed_by_the_doctor),
    ("deaths::at_every_step_of_a_fault", at_every_step_of_a_fault),
    ("deaths::at_random_moments", at_random_moments),
];

/// One of each kind that this kernel has, and that only it can hold.
fn faults(world: &World) -> Vec<Kind> {
    let mut faults = vec![partition(Way::Both), cpu(), Kind::Pause(victim())];
    if let Some((disk, _)) = &world.disk {
        faults.push(Kind::IoLimit(IoLimit {
            cgroup: CGROUP.into(),
            device: disk.display().to_string(),
            write_bytes_per_second: 1 << 20,
            ..IoLimit::default()
        }));
    }
    if world.is_uml {
        let netem = Netem { interface: "v0".into(), delay_ms: 5.0, ..Netem::default() };
        faults.push(Kind::Netem(netem));
    }
    faults
}

fn healed_by_the_next_agent(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let before = world.census();
    let agent = stage.agent();
    for fault in faults(world) {
        stage.inject(&agent, fault, LONG).expect("injected");
    }
    assert_ne!(world.census(), before);
    agent.kill();
    assert_eq!(stage.victim_state(), Some('T'), "nothing heals by itself without an agent");
    let agent = stage.agent();
    assert_eq!(world.census(), before);
    assert_ne!(stage.victim_state(), Some('T'));
    assert_eq!(std::fs::read_to_string(stage.journal()).expect("read"), "", "nothing is open");
    drop(agent);
}

fn healed_by_the_doctor(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let before = world.census();
    let agent = stage.agent();
    for fault in faults(world) {
        stage.inject(&agent, fault, LONG).expect("injected");
    }
    let with_faults = world.census();
    let told = said(&stage.doctor(&["--heal"]));
    assert!(!told.contains("of an agent"), "one that lives heals its own: {told}");
    assert_eq!(world.census(), with_faults);
    agent.kill();
    let output = stage.doctor(&[]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("of an agent: process victim is paused"), "{told}");
    assert_eq!(world.census(), with_faults, "without --heal it only looks");
    let told = said(&stage.doctor(&["--heal"]));
    assert!(told.contains("healed: fault"), "{told}");
    assert_eq!(world.census(), before);
    assert_ne!(stage.victim_state(), Some('T'));
    assert_eq!(stage.doctor(&[]).status.code(), Some(0));
}

/// After its note, after it was applied, and after it was undone, before that is noted.
fn at_every_step_of_a_fault(world: &World) {
    if !cfg!(feature = "seeded-bugs") {
        println!("needs the feature seeded-bugs");
        return;
    }
    let stage = Stage::with_victim(world, "idle");
    let before = world.census();
    let mut kinds = faults(world);
    kinds.push(Kind::Kill(victim()));
    for kind in kinds {
        for point in ["noted", "applied", "undone"] {
            let mut agent = stage.agent_with(&[("RAFTBENCH_AGENT_DIES", point)]);
            let injected = stage.inject(&agent, kind.clone(), LONG);
            if let Ok(id) = injected {
                assert_eq!(point, "undone");
                stage.heal(&agent, &id).expect_err("it died");
            }
            agent.died();
            let noted = std::fs::read_to_string(stage.journal()).expect("read");
            assert!(noted.contains("\"undo\"") && !noted.contains("done\":1"), "{point}: {noted}");
            drop(stage.agent());
            assert_eq!(world.census(), before, "{kind:?}, {point}");
            let state = stage.victim_state();
            assert!(state.is_some_and(|state| state != 'T' && state != 'Z'), "{kind:?}, {point}");
        }
    }
}

/// `RAFTBENCH_TESTS=full`: two hundred of them.
fn at_random_moments(world: &World) {
    let full = std::env::var("RAFTBENCH_TESTS").is_ok_and(|which| which == "full");
    let rounds = if full { 200 } else { 5 };
    let stage = Stage::with_victim(world, "idle");
    let before = world.census();
    for round in 0..rounds {
        let agent = stage.agent();
        // Some faults are undone again, so that a death may come into that, too.
        let (mut kinds, after) =
            (faults(world), Duration::from_millis(rand::random_range(0..2500)));
        let first = rand::random_range(0..kinds.len());
        kinds.rotate_left(first);
        let pid = nix::unistd::Pid::from_raw(agent.pid() as i32);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        });
        'faults: loop {
            let mut ids = Vec::new();
            for kind in &kinds {
                match stage.inject(&agent, kind.clone(), LONG) {
                    Ok(id) => ids.push(id),
                    Err(_) => break 'faults,
                }
            }
            for id in ids {
                if stage.heal(&agent, &id).is_err() {
                    break 'faults;
                }
            }
        }
        killer.join().expect("it was killed");
        agent.kill();
        match round % 2 {
            0 => drop(stage.agent()),
            _ => drop(stage.doctor(&["--heal"])),
        }
        let told = format!("round {round}, killed after {after:?}, beginning with fault {first}");
        assert_eq!(world.census(), before, "{told}");
        wait_until(&format!("the victim goes on ({told})"), || {
            stage.victim_state().is_some_and(|state| state != 'T')
        });
    }
    println!("killed and healed {rounds} times");
}
