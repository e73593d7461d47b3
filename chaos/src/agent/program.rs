//! The host's own programs, run with arguments that are never a shell's.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::Error;

/// What `program` prints, with `input` to read; an error has its own words.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |reason: String| {
        let program = [&[program], arguments].concat().join(" ");
        Error::Program { program, reason }
    };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut process = started.map_err(|error| match (error.kind(), package(program)) {
        (ErrorKind::NotFound, Some(package)) => failed(format!(
            "it is not on the PATH; install it (on Debian and Ubuntu: apt-get install {package})"
        )),
        _ => failed(error.to_string()),
    })?;
    if let Some(mut to) = process.stdin.take() {
        // One that ended early says why below.
        to.write_all(input.as_bytes()).ok();
    }
    let output = process.wait_with_output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{} ({})", said.trim().replace('\n', "; "), output.status)))
        }
    }
}

fn package(program: &str) -> Option<&'static str> {
    match program {
        "nft" => Some("nftables"),
        "systemctl" => Some("systemd"),
        "ip" | "tc" => Some("iproute2"),
        _ => None,
    }
}
