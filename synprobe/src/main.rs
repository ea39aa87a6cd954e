//! Parse, dispatch, exit codes; nothing else.

use std::process::ExitCode;

use clap::Parser;
use synprobe::{cli::Cli, util::format, verbs};

fn main() -> ExitCode {
    // clap ends a wrong command line itself: one message on standard error, exit code 2.
    let cli = Cli::parse();
    match verbs::run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("synprobe: {}", format::safe(&failure.to_string()));
            ExitCode::from(failure.code())
        }
    }
}
