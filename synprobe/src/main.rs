//! Parse, dispatch, exit codes; nothing else.

use std::process::ExitCode;

use clap::Parser;
use synprobe::{cli::Cli, commands, human};

fn main() -> ExitCode {
    // clap ends a wrong command line itself: one message on standard error, exit code 2.
    let cli = Cli::parse();
    match commands::run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("synprobe: {}", human::safe(&failure.to_string()));
            ExitCode::from(failure.code())
        }
    }
}
