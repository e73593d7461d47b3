//! The one binary: reads the command line and exits with the verdict's code.

use std::process::ExitCode;

use clap::Parser;
use raftbench::commands::{self, Cli};

fn main() -> ExitCode {
    // A process of a lab enters namespaces, which it must do before it has threads.
    if let Some(code) = chaos::lab::role() {
        return code;
    }
    match commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            commands::say(&format!("error: {}", commands::in_full(&error)));
            ExitCode::from(commands::EXIT_USAGE)
        }
    }
}
