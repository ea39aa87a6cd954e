//! Parse, dispatch, exit codes; nothing else.

use std::process::ExitCode;

use synprobe::{
    cli::{Cli, CommandLineError},
    sys::journal::{Priority, message},
    verbs,
};

fn main() -> ExitCode {
    // Help and the version end here too.
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(CommandLineError::CommandLine(error)) => error.exit(),
        Err(CommandLineError::Value(line)) => {
            message(Priority::Error, &line);
            return ExitCode::from(verbs::USAGE);
        }
    };
    match verbs::run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            message(Priority::Error, &failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
