//! Parse, dispatch, exit codes; nothing else.

use std::process::ExitCode;

use synprobe::{
    cli::{Cli, CommandLineError},
    sys::journal::{Priority, journal_reads, message},
    verbs,
};

fn main() -> ExitCode {
    // clap ends a wrong command line itself: one message on standard error, exit code 2.
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(CommandLineError::CommandLine(error)) if error.use_stderr() && journal_reads() => {
            // Each line is a message of its own there.
            for line in error.to_string().lines().filter(|line| !line.is_empty()) {
                message(Priority::Error, line);
            }
            return ExitCode::from(verbs::USAGE);
        }
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
