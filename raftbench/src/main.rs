//! The one binary: reads the command line and exits with the verdict's code.

use std::process::ExitCode;

use clap::Parser;
use raftbench::commands::{self, Cli};

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            commands::say(&format!("error: {}", commands::in_full(&error)));
            ExitCode::from(commands::EXIT_USAGE)
        }
    }
}
