//! Parse, dispatch, exit codes; nothing else.

use std::process::ExitCode;

use synprobe::{
    cli::{Cli, CommandLineError},
    util::format,
    verbs,
};

fn main() -> ExitCode {
    // clap ends a wrong command line itself: one message on standard error, exit code 2.
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(CommandLineError::CommandLine(error)) => error.exit(),
        Err(CommandLineError::Value(line)) => {
            eprintln!("synprobe: {}", format::safe(&line));
            return ExitCode::from(verbs::USAGE);
        }
    };
    match verbs::run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("synprobe: {}", format::safe(&failure.to_string()));
            ExitCode::from(failure.code())
        }
    }
}
