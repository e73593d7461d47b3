//! `ip` and `tc` of iproute2, fed with batches: one process for all that is done in one network.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Error;

/// One of the programs of iproute2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Ip,
    Tc,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Ip => "ip",
            Tool::Tc => "tc",
        }
    }

    /// What one call prints, in the network of the calling thread.
    pub(crate) fn json(self, arguments: &[&str]) -> Result<String, Error> {
        let failed = |reason: String| Error::Iproute { program: self.name(), reason };
        let output = Command::new(self.name()).args(arguments).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    /// Carries out those of `lines` that can be.
    pub(super) fn batch_what_works(self, lines: &[String]) {
        self.run(&["-force", "-batch", "-"], lines).ok();
    }

    /// Carries out `lines` in order, in the network of the calling thread; ends at the first that
    /// fails, and tells it.
    pub(crate) fn batch(self, lines: &[String]) -> Result<(), Error> {
        self.run(&["-batch", "-"], lines)
    }

    fn run(self, arguments: &[&str], lines: &[String]) -> Result<(), Error> {
        let failed = |reason: String| Error::Iproute { program: self.name(), reason };
        let started = Command::new(self.name())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut process = started.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed(
                "it is not on the PATH; install iproute2 (on Debian and Ubuntu: apt-get install \
                 iproute2)"
                    .into(),
            ),
            _ => failed(error.to_string()),
        })?;
        if let Some(mut input) = process.stdin.take() {
            // One that ended early says why below.
            input.write_all((lines.join("\n") + "\n").as_bytes()).ok();
        }
        let output = process.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // "Command failed -:3" names the line.
        let number = said.rsplit_once("-:").and_then(|(_, n)| n.trim().parse::<usize>().ok());
        let line = number.and_then(|number| lines.get(number.checked_sub(1)?));
        let line = line.map_or(String::new(), |line| format!(" at `{} {line}`", self.name()));
        Err(failed(format!("{}{line}", said.trim().replace('\n', "; "))))
    }
}
