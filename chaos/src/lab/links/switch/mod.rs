//! Links by a process of ours: every host's `eth0` is a TUN device, and the switch reads packets
//! from one and writes them to another, when the link's conditions say so.
//!
//! This is the side of the program that uses it; `process` is the switch itself, `fabric` what
//! it decides. The two talk in lines of JSON over the switch's standard input and output.
//!
//! Invariant: the switch ends when its input does, and with it the devices; its own figures are
//! measured while it works.

mod fabric;
mod fate;
mod planted;
pub(in crate::lab) mod process;
mod tun;
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::super::{Lab, SWITCH, this_program};
use super::{Change, Implementation, Links, Traffic};
use crate::Error;
pub use wire::Speed;
use wire::{Answer, Port, Request, Setup};

/// The links of one lab.
pub struct Switch {
    process: Child,
    /// `None` once it is being ended.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Switch {
    /// Joins the hosts of `lab`; everything random comes from `seed`.
    pub fn start(lab: &Lab, seed: u64) -> Result<Self, Error> {
        let port = |host: &super::super::Host| Port {
            name: host.name().to_owned(),
            address: host.address(),
            network: host.network().clone(),
        };
        let setup = Setup { ports: lab.hosts().iter().map(port).collect(), seed };
        let mut command = this_program();
        command.arg(SWITCH).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command
            .spawn()
            .map_err(|source| Error::Lab { what: "start its switch", problem: source })?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::Switch("has no pipes".into()));
        };
        let output = BufReader::new(output);
        let mut switch = Self { process, input: Some(input), output };
        switch.tell(&setup)?;
        match switch.hear()? {
            Answer::Done => Ok(switch),
            Answer::Failed(reason) => {
                Err(Error::NoLinks { implementation: Implementation::Switch.name(), reason })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// How fast it was since it began.
    pub fn speed(&mut self) -> Result<Speed, Error> {
        self.tell(&Request::Report)?;
        match self.hear()? {
            Answer::Report { speed, .. } => Ok(speed),
            other => Err(unexpected(&other)),
        }
    }

    fn tell(&mut self, what: &impl serde::Serialize) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::Switch(format!("does not listen: {error}"));
        let mut line = serde_json::to_vec(what).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let Some(input) = &mut self.input else { return Ok(()) };
        input.write_all(&line).map_err(failed)
    }

    fn hear(&mut self) -> Result<Answer, Error> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(Error::Switch("has ended".into())),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|error| Error::Switch(format!("said `{}`: {error}", line.trim()))),
            Err(error) => Err(Error::Switch(format!("cannot be heard: {error}"))),
        }
    }
}

impl Links for Switch {
    fn implementation(&self) -> Implementation {
        Implementation::Switch
    }

    fn set(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.tell(&Request::Set(changes.to_vec()))?;
        match self.hear()? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn traffic(&mut self) -> Result<Vec<Traffic>, Error> {
        self.tell(&Request::Report)?;
        match self.hear()? {
            Answer::Report { traffic, .. } => Ok(traffic),
            other => Err(unexpected(&other)),
        }
    }

    fn about(&mut self) -> Result<String, Error> {
        Ok(self.speed()?.to_string())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.input.take());
        self.process.wait().ok();
    }
}

/// Whether a switch could have its devices in the network of the calling thread.
pub(crate) fn try_tun() -> Result<String, String> {
    let port = Port {
        name: "probe".into(),
        address: std::net::Ipv4Addr::new(10, 0, 0, 2),
        network: "/proc/thread-self/ns/net".into(),
    };
    // The device is there while this process has it open.
    tun::open(&port).map(|_| "a device was made".into())
}

fn unexpected(answer: &Answer) -> Error {
    Error::Switch(match answer {
        Answer::Failed(reason) => format!("failed: {reason}"),
        Answer::Done | Answer::Report { .. } => "answered something else".into(),
    })
}
