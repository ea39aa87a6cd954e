//! What is wrong with a command line, in one line.

use clap::{
    Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The line; `None`: help or the version was asked for, or a command without an argument prints its help.
pub(super) fn one_line(error: &Error) -> Option<String> {
    let text = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => return None,
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error)?;
            format!("{}: {why}", argument(error)?)
        }
        ErrorKind::InvalidValue => invalid_value(error)?,
        ErrorKind::UnknownArgument => {
            let unknown = first(error, ContextKind::InvalidArg)?;
            let better = first(error, ContextKind::SuggestedArg);
            match unknown.starts_with('-') {
                true => format!("unknown option {unknown}{}", did_you_mean(better)),
                false => format!("\"{unknown}\" is one argument too many"),
            }
        }
        ErrorKind::InvalidSubcommand => {
            let unknown = first(error, ContextKind::InvalidSubcommand)?;
            let better = first(error, ContextKind::SuggestedSubcommand);
            let better = match better {
                None => "; see synprobe --help".to_owned(),
                better => did_you_mean(better),
            };
            format!("unknown command \"{unknown}\"{better}")
        }
        ErrorKind::ArgumentConflict => {
            let other = first(error, ContextKind::PriorArg)?;
            match (argument(error)?, option(&other)) {
                (one, other) if one == other => format!("{one} is given twice"),
                (one, other) => format!("{one} and {other} exclude each other"),
            }
        }
        ErrorKind::MissingRequiredArgument => missing(error)?,
        _ => {
            let text = error.to_string();
            let line = text.lines().next()?;
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    Some(text)
}

fn invalid_value(error: &Error) -> Option<String> {
    let value = first(error, ContextKind::InvalidValue)?;
    let option = argument(error)?;
    if value.is_empty() {
        return Some(format!(
            "{option} needs a value{}",
            allowed(error, ": one of ")
        ));
    }
    let better = did_you_mean(first(error, ContextKind::SuggestedValue));
    let allowed = allowed(error, ", but one of ");
    Some(format!(
        "{option}: \"{value}\" is not a value{allowed}{better}"
    ))
}

fn missing(error: &Error) -> Option<String> {
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    Some(match missing[..] {
        ["--quiet"] => {
            "--slow needs --quiet: without it every handshake is printed, however fast it was"
                .to_owned()
        }
        ["<SCENARIO>"] => "give a SCENARIO; synprobe lab --list shows all".to_owned(),
        [group] if group.starts_with("<--") => {
            let options = group.trim_start_matches('<').trim_end_matches('>');
            format!("one is missing of {options}>").replace("|--", ", --")
        }
        _ => format!("{} is missing", missing.join(" and ")),
    })
}

/// `; did you mean --port?`
pub(crate) fn did_you_mean(better: Option<String>) -> String {
    better.map_or_else(String::new, |better| format!("; did you mean {better}?"))
}

/// The likeliest of the names that were meant; `_` stands for `-`.
pub(crate) fn likeliest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let name = name.replace('_', "-");
    let similar = |known: &'n str| (strsim::jaro_winkler(&name, known), known);
    let (similarity, known) = names.map(similar).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (similarity > 0.85).then(|| known.to_owned())
}

fn allowed(error: &Error, before: &str) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!("{before}{}", values.join(", "))
        }
        _ => String::new(),
    }
}

/// The option that the error is about, without the name of its value.
fn argument(error: &Error) -> Option<String> {
    first(error, ContextKind::InvalidArg).map(|argument| option(&argument))
}

fn option(argument: &str) -> String {
    let name = argument.split([' ', '=']).next();
    name.unwrap_or(argument).to_owned()
}

fn first(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}
