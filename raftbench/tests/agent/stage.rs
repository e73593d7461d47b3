//! An agent of the shipped program, a victim that it may break, and a client.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use api::agent::fault::Kind;
use api::agent::{Fault, HealResponse, Listed, Observation, process};
use chaos::Error;
use chaos::agent::client::{Client, Credentials};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::pki::Ca;
use crate::victim::ROLE;
use crate::world::{CGROUP, World, own_program, wait_until};

/// Long enough for everything but what is to run out.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A folder with a configuration, certificates, and a state directory.
pub(crate) struct Stage {
    folder: TempDir,
    ca: Ca,
    credentials: Credentials,
    runtime: Runtime,
    victim: Option<u32>,
}

/// A running agent; ends with this value, by -9.
pub(crate) struct Agent {
    process: Child,
    address: String,
}

impl Stage {
    /// Without a victim.
    pub(crate) fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(&folder.path().join("pki"));
        ca.sign("agent");
        let credentials = ca.client("client", &ca);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let stage = Self { folder, ca, credentials, runtime, victim: None };
        stage.configure(&stage.configuration(world));
        stage
    }

    /// With a victim in `mode`, in the control group of `world`.
    pub(crate) fn with_victim(world: &World, mode: &str) -> Self {
        let mut stage = Self::new(world);
        stage.start_victim(mode);
        let pid = stage.victim_pid();
        world.confine(pid);
        stage.victim = Some(pid);
        stage.configure(&(stage.configuration(world) + &stage.process(mode)));
        stage
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn ca(&self) -> &Ca {
        &self.ca
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path().join("state/undo.jsonl")
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path().join("agent.toml"), text).expect("written");
    }

    /// The usual one.
    pub(crate) fn configuration(&self, world: &World) -> String {
        let disks = world.disk.iter().map(|(disk, _)| format!("{disk:?}")).collect::<String>();
        format!(
            r#"listen = "127.0.0.1:0"
state_dir = "state"

[tls]
certificate = "pki/agent.pem"
key = "pki/agent.key"
client_ca = "pki/ca.pem"

[allow]
interfaces = ["v0"]
block_devices = [{disks}]
cgroups = ["{CGROUP}"]
"#
        )
    }

    fn process(&self, mode: &str) -> String {
        format!(
            "[[allow.processes]]\nname = \"victim\"\npid_file = {:?}\nstart = [\"/bin/sh\", \"-c\", \
             {:?}]\n",
            self.pid_file(),
            self.start_command(mode)
        )
    }

    fn pid_file(&self) -> PathBuf {
        self.path().join("victim.pid")
    }

    fn start_command(&self, mode: &str) -> String {
        let (pid_file, program) = (self.pid_file(), own_program());
        format!(
            "{ROLE}='{} {mode}' {} </dev/null >/dev/null 2>&1 &",
            pid_file.display(),
            program.display()
        )
    }

    fn start_victim(&self, mode: &str) {
        crate::world::sh(&self.start_command(mode));
        wait_until("the victim wrote its pid file", || self.pid_file().exists());
    }

    pub(crate) fn victim_pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.pid_file()).expect("a pid file");
        text.trim().parse().expect("a number")
    }

    /// The letter of the victim's state, and none once it is gone.
    pub(crate) fn victim_state(&self) -> Option<char> {
        let process = procfs::process::Process::new(self.victim_pid() as i32).ok()?;
        process.stat().ok().map(|stat| stat.state)
    }

    /// `raftbench chaos agent` with `variables`.
    pub(crate) fn agent_command(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = self.program();
        command.args(["chaos", "agent", "--config", "agent.toml"]);
        command.envs(variables.iter().copied());
        command
    }

    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftbench"));
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_with(&[])
    }

    /// Started, and listening.
    pub(crate) fn agent_with(&self, variables: &[(&str, &str)]) -> Agent {
        let mut command = self.agent_command(variables);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let printed = process.stdout.take().expect("piped");
        BufReader::new(printed).read_line(&mut line).expect("readable");
        let address = line.trim().strip_prefix("listens on ").map(str::to_owned);
        let Some(address) = address else {
            let ended = process.wait();
            panic!("the agent does not listen: `{line}`, {ended:?}");
        };
        Agent { process, address }
    }

    /// An agent that ends at once; what it said.
    pub(crate) fn refused_agent(&self, arguments: &[&str]) -> String {
        let output = self.agent_command(&[]).args(arguments).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    }

    pub(crate) fn doctor(&self, arguments: &[&str]) -> Output {
        let mut command = self.program();
        command.args(["doctor", "--agent-state", "state"]).args(arguments);
        command.output().expect("the program starts")
    }

    fn client(&self, agent: &Agent) -> Result<Client, Error> {
        self.runtime.block_on(Client::connect(&agent.address, Some(&self.credentials)))
    }

    pub(crate) fn connect(
        &self,
        agent: &Agent,
        credentials: Option<&Credentials>,
    ) -> Result<Client, Error> {
        self.runtime.block_on(async {
            let mut client = Client::connect(&agent.address, credentials).await?;
            // A refusal in the handshake may show only here.
            client.describe().await.map(|_| client)
        })
    }

    pub(crate) fn offset(&self, agent: &Agent) -> chaos::agent::Offset {
        let mut client = self.client(agent).expect("connected");
        self.runtime.block_on(client.clock_offset()).expect("measured")
    }

    pub(crate) fn inject(
        &self,
        agent: &Agent,
        kind: Kind,
        lease: Duration,
    ) -> Result<String, Error> {
        let mut client = self.client(agent)?;
        let fault = Fault { kind: Some(kind) };
        self.runtime.block_on(client.inject(fault, lease)).map(|injected| injected.id)
    }

    pub(crate) fn renew(&self, agent: &Agent, id: &str) -> Result<(), Error> {
        let mut client = self.client(agent)?;
        self.runtime.block_on(client.renew(id, LONG))
    }

    pub(crate) fn heal(&self, agent: &Agent, id: &str) -> Result<HealResponse, Error> {
        let mut client = self.client(agent)?;
        self.runtime.block_on(client.heal(id))
    }

    pub(crate) fn list(&self, agent: &Agent) -> Vec<Listed> {
        let mut client = self.client(agent).expect("connected");
        self.runtime.block_on(client.list()).expect("listed")
    }

    /// Looks until it bites, or until `patience` is over; the last look.
    pub(crate) fn observed(&self, agent: &Agent, id: &str, patience: Duration) -> Observation {
        let deadline = Instant::now() + patience;
        let mut client = self.client(agent).expect("connected");
        loop {
            let seen = self.runtime.block_on(client.observe(id)).expect("observed");
            if seen.bit || Instant::now() >= deadline {
                return seen;
            }
            self.runtime.block_on(client.renew(id, LONG)).expect("renewed");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.victim.is_some() && self.victim_state().is_some() {
            let pid = nix::unistd::Pid::from_raw(self.victim_pid() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            wait_until("the victim ended", || self.victim_state().is_none_or(|state| state == 'Z'));
        }
    }
}

impl Agent {
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// It has ended by itself, by SIGKILL, as it was told to.
    pub(crate) fn died(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.process.wait().expect("it is our child");
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it is our child");
    }

    /// Asks it to end, and waits.
    pub(crate) fn ends(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        let status = self.process.wait().expect("it is our child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Both outputs of a program.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The stage's victim, as a fault names it.
pub(crate) fn victim() -> api::agent::Process {
    api::agent::Process { named: Some(process::Named::Process("victim".into())) }
}
