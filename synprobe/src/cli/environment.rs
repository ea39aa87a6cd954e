//! The command line, with options of `serve` from the environment: `SYNPROBE_LISTEN` for `--listen`. An option
//! on the command line comes first.

use std::{env, ffi::OsString};

use clap::{
    Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Cli, errors::one_line, headings::with_headings};

/// What a variable's name begins with.
const PREFIX: &str = "SYNPROBE_";
/// The verb that reads the environment. A build without the feature `serve` does not have it.
const VERB: &str = "serve";

/// Which variables the verb reads.
const FROM_ENVIRONMENT: &str = "Each option can also come from the environment, by SYNPROBE_ and its name: \
SYNPROBE_MAX_SIZE for --max-size.\nOne on the command line comes first.";

/// Why the command line cannot be used.
#[derive(Debug)]
pub enum CommandLineError {
    /// It is wrong, or help was asked for.
    CommandLine(clap::Error),
    /// An option or a variable has a value that it does not take: one line.
    Value(String),
}

impl Cli {
    /// Reads the command line of this process, and for `serve` the environment.
    ///
    /// # Errors
    ///
    /// [`CommandLineError`].
    pub fn read() -> Result<Self, CommandLineError> {
        Self::of(env::args_os().collect())
    }

    fn of(arguments: Vec<OsString>) -> Result<Self, CommandLineError> {
        let parsed = with_environment(Self::command())
            .try_get_matches_from(&arguments)
            .and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(
            |error| match of_variable(&error, &arguments).or_else(|| one_line(&error)) {
                Some(line) => CommandLineError::Value(line),
                None => CommandLineError::CommandLine(error),
            },
        )
    }
}

/// The same command with the headings of its help, whose verb reads each option from the environment too.
pub fn with_environment(command: Command) -> Command {
    let command = with_headings(command);
    if command.find_subcommand(VERB).is_none() {
        return command;
    }
    command.mut_subcommand(VERB, |verb| {
        let examples = verb
            .get_after_help()
            .map_or_else(String::new, |text| text.to_string());
        verb.mut_args(|argument| match argument.get_long() {
            // clap adds these two, which have no value.
            None | Some("help" | "version") => argument,
            Some(long) => {
                // Once for each option, and for as long as the process lives.
                let name: &'static str = Box::leak(variable(long).into_boxed_str());
                // One rule, below, says it for all.
                argument.env(name).hide_env(true)
            }
        })
        .after_long_help(format!("{FROM_ENVIRONMENT}\n\n{examples}"))
    })
}

fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.replace('-', "_").to_ascii_uppercase())
}

/// The line of an error that a variable caused; `None`: the command line did.
fn of_variable(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    // `--window <TIME>`
    let long = argument.strip_prefix("--")?.split([' ', '=']).next()?;
    let option = format!("--{long}");
    let given = arguments.iter().any(|a| {
        let a = a.to_string_lossy();
        a == option.as_str() || a.starts_with(&format!("{option}="))
    });
    let name = variable(long);
    let value = env::var_os(&name).filter(|_| !given)?;
    let why = match error.kind() {
        ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument => return None,
        _ => std::error::Error::source(error).map(ToString::to_string),
    };
    let why = why.unwrap_or_else(|| allowed(error));
    Some(format!("{name}={}: {why}", value.to_string_lossy()))
}

fn allowed(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!("possible values: {}", values.join(", "))
        }
        _ => "its option does not take this value".to_owned(),
    }
}
