//! Parse, dispatch, exit codes; nothing else.

use std::process::ExitCode;

use synprobe::{
    cli::{Cli, CommandLineError},
    sys::{
        journal::{Priority, message},
        stack_limit,
    },
    verbs,
};

fn main() -> ExitCode {
    if let Err(line) = stack_limit::raise() {
        message(Priority::Error, &line);
        return ExitCode::from(verbs::HOST);
    }
    run()
}

/// Not part of `main`: its frame alone may be larger than a small stack.
#[inline(never)]
fn run() -> ExitCode {
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
