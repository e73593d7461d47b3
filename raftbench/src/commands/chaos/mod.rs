//! `raftbench chaos`: faults on real hosts. `agent` is what such a host runs; the others are for an
//! operator or a script elsewhere.

mod agent;
mod fault;
mod inject;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use chaos::agent::client::{Client, Credentials};

use super::show;
use api::agent::State;

/// Arguments of `chaos`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Run the agent on this host, until SIGTERM or SIGINT; undoes its faults before it ends
    Agent(agent::Args),
    /// Apply a fault, hold it under a lease, and undo it after a time or with Ctrl-C
    Inject(inject::Args),
    /// Undo faults now
    Heal(Heal),
    /// Show the faults that hold and those that have ended
    List(List),
}

/// Which agent, and how it knows us.
#[derive(Debug, clap::Args)]
struct Whom {
    /// The agent's address
    #[arg(long, value_name = "HOST:PORT", global = true, default_value = "127.0.0.1:7979")]
    agent: String,
    /// The CA of the agent's certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["certificate", "key"])]
    ca: Option<PathBuf>,
    /// Our certificate, of the CA that the agent trusts, PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca", "certificate"])]
    key: Option<PathBuf>,
    /// Without TLS, for an agent that listens so on a loopback address
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

#[derive(Debug, clap::Args)]
struct Heal {
    #[command(flatten)]
    whom: Whom,
    /// Which faults; all that hold, without any
    #[arg(value_name = "FAULT")]
    faults: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    whom: Whom,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.what {
            What::Agent(args) => agent::run(args).await,
            What::Inject(args) => inject::run(args).await,
            What::Heal(args) => args.run().await,
            What::List(args) => args.run().await,
        }
    })
}

impl Whom {
    async fn connect(&self) -> anyhow::Result<Client> {
        let credentials = match (&self.ca, &self.certificate, &self.key) {
            (Some(ca), Some(certificate), Some(key)) => Some(Credentials {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ if self.insecure => None,
            _ => bail!(
                "give --ca, --certificate and --key, by which agent and client know each other; or \
                 --insecure for an agent on a loopback address that has no TLS"
            ),
        };
        Ok(Client::connect(&self.agent, credentials.as_ref()).await?)
    }
}

impl Heal {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.whom.connect().await?;
        let mut faults = self.faults;
        if faults.is_empty() {
            let holds = |state| state != i32::from(State::Ended);
            let listed = client.list().await?.into_iter();
            faults.extend(listed.filter(|fault| holds(fault.state)).map(|fault| fault.id));
        }
        if faults.is_empty() {
            show("no fault holds\n")?;
        }
        for fault in faults {
            let healed = client.heal(&fault).await?;
            show(&format!("{fault}: {}\n", healed.undone))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.whom.connect().await?;
        let mut text = String::new();
        for fault in client.list().await? {
            let left = Duration::from_millis(fault.lease_left_ms);
            let state = match fault.state() {
                State::Holds if fault.told.is_empty() => format!("holds, for {left:.1?} more"),
                State::Holds => fault.told,
                State::Ended => format!("ended: {}", fault.told),
                State::CannotBeUndone => format!("CANNOT BE UNDONE: {}", fault.told),
            };
            text += &format!("{}  {}: {state}\n", fault.id, fault.fault);
        }
        show(if text.is_empty() { "there was no fault yet\n" } else { &text })?;
        Ok(ExitCode::SUCCESS)
    }
}
