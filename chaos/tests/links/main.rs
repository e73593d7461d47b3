//! One conformance suite for both implementations of links, measured from outside: with `ping`,
//! with a TCP transfer and the kernel's own counters of it, and with numbered datagrams.
//!
//! This program runs itself again, three levels deep: it asks for each implementation by itself,
//! that enters a lab, and in the lab the trials run. netem, where the native kernel has none, is
//! tried in a user-mode Linux (`ci/uml`). Both go side by side, for they wait more than they work.
//! What cannot be tried at all is said loudly, and fails where the variable `CI` is set.

mod measure;
mod trials;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use chaos::lab::links::{Implementation, Network, lay};
use chaos::lab::{Lab, Layout, enter};
use libtest_mimic::{Arguments, Trial};

/// Which implementation this process is to try.
const UNDER_TEST: &str = "LINKS_UNDER_TEST";

/// The exit code that says: not available here.
const MISSING: u8 = 77;

/// Seeds the switch's dice; another number tries other packets.
const SEED: u64 = 20_261_124;

fn main() -> ExitCode {
    if let Some(code) = chaos::lab::role() {
        return code;
    }
    let asked = match std::env::var(UNDER_TEST).as_deref() {
        Ok("netem") => Some(Implementation::Netem),
        Ok("switch") => Some(Implementation::Switch),
        _ => None,
    };
    match (asked, Lab::inside()) {
        (Some(implementation), Some(lab)) => run_trials(&lab, implementation),
        (Some(_), None) => enter_lab(),
        (None, _) => run_both(),
    }
}

fn run_both() -> ExitCode {
    let fine = thread::scope(|scope| {
        let netem = scope.spawn(|| try_one(Implementation::Netem));
        let mut fine = try_one(Implementation::Switch);
        if cfg!(feature = "seeded-bugs") && arguments().next().is_none() {
            fine &= all_planted_are_caught();
        }
        netem.join().expect("it was tried") && fine
    });
    ExitCode::from(u8::from(!fine))
}

/// Whether all is well with it, as far as it can be tried.
fn try_one(implementation: Implementation) -> bool {
    let program = std::env::current_exe().expect("this program's file");
    let (name, lists) = (implementation.name(), Arguments::from_args().list);
    let (mut code, mut told) = told_by(again(&program, implementation));
    let uml = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/uml");
    if code == Some(MISSING.into()) && implementation == Implementation::Netem && !lists {
        told += "links by netem, in a user-mode Linux\n";
        let mut boots = Command::new(uml);
        boots.arg(format!("{UNDER_TEST}=netem")).arg(&program).args(arguments());
        let (in_uml, said) = told_by(boots);
        code = in_uml;
        told += &said;
    }
    println!("links by {name}\n{told}");
    match code {
        Some(0) => true,
        Some(code) if code == i32::from(MISSING) => {
            println!("\n*** NOT TRIED: links by {name} ***\n");
            std::env::var_os("CI").is_none()
        }
        _ => false,
    }
}

/// The suite, proven: with each bug in the switch, its trial must fail.
fn all_planted_are_caught() -> bool {
    thread::scope(|scope| {
        let tries = trials::PLANTED.map(|(bug, trial)| scope.spawn(move || is_caught(bug, trial)));
        let caught = tries.map(|tried| tried.join().expect("it was tried"));
        caught.into_iter().all(|caught| caught)
    })
}

fn is_caught(bug: &str, trial: &str) -> bool {
    let mut suite = Command::new(std::env::current_exe().expect("this program's file"));
    suite.args(["--exact", &format!("switch::{trial}")]);
    suite.env(UNDER_TEST, "switch").env("RAFTBENCH_SEEDED_BUG", bug);
    let (code, told) = told_by(suite);
    let caught = told.contains("0 passed; 1 failed");
    match caught {
        true => println!("planted bug {bug}: caught by {trial}"),
        // One that cannot be planted was told as not tried above.
        false if code == Some(MISSING.into()) => return true,
        false => println!("planted bug {bug}: NOT caught by {trial}:\n{told}"),
    }
    caught
}

fn again(program: &Path, implementation: Implementation) -> Command {
    let mut command = Command::new(program);
    command.args(arguments()).env(UNDER_TEST, implementation.name());
    command
}

fn arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

/// Its exit code, and all that it printed.
fn told_by(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("started");
    let [printed, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), printed + &errors)
}

/// Five hosts: enough for every shape of partition.
fn enter_lab() -> ExitCode {
    let arguments: Vec<OsString> = arguments().collect();
    let layout = Layout::new(4, 1).expect("fits");
    match enter(&layout, &arguments, ("LINKS_TEST", "1")) {
        Ok(status) => ExitCode::from(status.code().and_then(|c| c.try_into().ok()).unwrap_or(1)),
        Err(error) => missing(&error),
    }
}

fn run_trials(lab: &Lab, implementation: Implementation) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the links, and the machine's time.
    arguments.test_threads = Some(1);
    arguments.color = Some(libtest_mimic::ColorSetting::Never);
    let links = match lay(lab, Some(implementation), SEED) {
        Ok(links) => links,
        Err(error) => return missing(&error),
    };
    let names = lab.hosts().iter().map(|host| host.name().to_owned()).collect();
    let network = Arc::new(Mutex::new(Network::new(links, names)));
    let trial = |(name, body): &(&'static str, trials::Body)| {
        let (stage, body) = (trials::Stage::new(lab.clone(), network.clone()), *body);
        Trial::test(format!("{}::{name}", implementation.name()), move || {
            body(&stage);
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = trials::ALL.iter().map(trial).collect();
    trials.extend(trials::BY_HAND.iter().map(trial).map(|trial| trial.with_ignored_flag(true)));
    let done = libtest_mimic::run(&arguments, trials);
    let about = network.lock().unwrap_or_else(PoisonError::into_inner).about();
    println!("{}", about.expect("the links still work"));
    done.exit_code()
}

fn missing(error: &chaos::Error) -> ExitCode {
    println!("not available: {error}");
    match error {
        chaos::Error::NoLinks { .. } | chaos::Error::NoNamespaces { .. } => ExitCode::from(MISSING),
        _ => ExitCode::FAILURE,
    }
}
