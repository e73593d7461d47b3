//! What is somebody else's is left alone: before a fault, while it holds, and when it is undone.

use api::agent::fault::Kind;
use api::agent::{Netem, Way};

use crate::Body;
use crate::faults::{cpu, partition};
use crate::stage::{LONG, Stage, victim};
use crate::world::{World, sh};

pub(crate) const ALL: &[(&str, Body)] = &[
    ("foreign::a_qdisc_of_somebody_else_is_left_alone", a_qdisc),
    ("foreign::a_table_of_somebody_else_is_left_alone", a_table),
    ("foreign::a_setting_that_somebody_changed_is_left_so", a_setting),
    ("foreign::a_process_that_has_the_number_of_another_is_left_alone", a_process),
    ("foreign::after_a_reboot_only_what_outlives_it_is_undone", after_a_reboot),
];

fn netem() -> Kind {
    Kind::Netem(Netem { interface: "v0".into(), delay_ms: 5.0, ..Netem::default() })
}

fn a_qdisc(world: &World) {
    let stage = Stage::new(world);
    let fault = "{\"entry\":1,\"fault\":\"0badcafe\",\"told\":\"netem on v0\",\"boot_id\":\"BOOT\",\
                 \"undo\":{\"qdisc\":{\"interface\":\"v0\"}}}\n";
    write_journal(&stage, fault);
    sh("tc qdisc add dev v0 root handle 1: pfifo limit 77");
    let with_theirs = world.census();
    // It looks as if an agent had died between its note and its fault.
    let agent = stage.agent();
    assert_eq!(world.census(), with_theirs, "what is undone is ours alone");
    let error = stage.inject(&agent, netem(), LONG).expect_err("refused").to_string();
    assert!(error.contains("somebody configured (pfifo 1:)"), "{error}");
    assert_eq!(world.census(), with_theirs);
    sh("tc qdisc del dev v0 root handle 1:");
}

fn a_table(world: &World) {
    let stage = Stage::new(world);
    sh("nft add table inet raftbench_theirs
        nft add chain inet raftbench_theirs input '{ type filter hook input priority 0; }'
        nft add rule inet raftbench_theirs input counter");
    // Its counter may count.
    let tables = || world.census()[1].lines().filter(|line| !line.contains("counter")).count();
    let before = tables();
    let mut agent = stage.agent();
    stage.inject(&agent, partition(Way::Both), LONG).expect("injected");
    agent = {
        agent.kill();
        stage.agent()
    };
    assert_eq!(tables(), before);
    assert!(world.census()[1].contains("raftbench_theirs"));
    drop(agent);
    sh("nft delete table inet raftbench_theirs");
}

fn a_setting(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let file = world.setting("cpu.max", "cpu.cfs_quota_us");
    let before = std::fs::read_to_string(&file).expect("read");
    let agent = stage.agent();
    let id = stage.inject(&agent, cpu(), LONG).expect("injected");
    assert_ne!(std::fs::read_to_string(&file).expect("read"), before);
    std::fs::write(&file, "77000").expect("written");
    let theirs = std::fs::read_to_string(&file).expect("read");
    let healed = stage.heal(&agent, &id).expect("healed");
    assert!(healed.undone.contains("changed to 77000"), "{}", healed.undone);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), theirs);
    std::fs::write(&file, before.split_whitespace().next().expect("a value")).expect("written");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), before);
}

fn a_process(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let pid = stage.victim_pid();
    sh(&format!("kill -STOP {pid}"));
    let fault = format!(
        "{{\"entry\":1,\"fault\":\"0badcafe\",\"told\":\"paused\",\"boot_id\":\"BOOT\",\"undo\":\
         {{\"resume\":{{\"name\":\"it\",\"pid\":{pid},\"started_ticks\":1}}}}}}\n"
    );
    write_journal(&stage, &fault);
    let agent = stage.agent();
    assert_eq!(stage.victim_state(), Some('T'), "another process had that number");
    let error = stage.inject(&agent, Kind::Pause(victim()), LONG).expect_err("refused").to_string();
    assert!(error.contains("was already stopped"), "{error}");
    sh(&format!("kill -CONT {pid}"));
}

fn after_a_reboot(world: &World) {
    let stage = Stage::with_victim(world, "idle");
    let agent = stage.agent();
    let pid = stage.victim_pid();
    stage.inject(&agent, Kind::Kill(victim()), LONG).expect("injected");
    stage.inject(&agent, cpu(), LONG).expect("injected");
    agent.kill();
    let journal = std::fs::read_to_string(stage.journal()).expect("read");
    std::fs::write(stage.journal(), journal.replace(&boot_id(), "another boot")).expect("written");
    let file = world.setting("cpu.max", "cpu.cfs_quota_us");
    let now = std::fs::read_to_string(&file).expect("read");
    drop(stage.agent());
    // After a reboot whatever the group has is not ours; but what ran is to run.
    assert_eq!(std::fs::read_to_string(&file).expect("read"), now);
    assert_ne!(stage.victim_pid(), pid);
    assert!(stage.victim_state().is_some_and(|state| state != 'Z'));
    std::fs::write(&file, if world.is_uml { "max" } else { "-1" }).expect("written");
}

fn write_journal(stage: &Stage, text: &str) {
    use std::os::unix::fs::DirBuilderExt;
    let folder = stage.path().join("state");
    std::fs::DirBuilder::new().mode(0o700).create(folder).expect("made");
    std::fs::write(stage.journal(), text.replace("BOOT", &boot_id())).expect("written");
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read");
    text.trim().to_owned()
}
