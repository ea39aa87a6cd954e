//! The headings of the help: what is needed daily comes first, and the short help leaves out what hardly anybody
//! changes.

use clap::Command;

/// Options by heading; all others are `Options`.
const HEADINGS: [(&str, &[&str]); 3] = [
    (
        "What to watch",
        &["port", "local-port", "peer-port", "peer", "role", "netns"],
    ),
    ("Recordings", &["record", "replay"]),
    (
        "Tuning",
        &[
            "ring-size",
            "max-memory",
            "max-handshakes",
            "max-peers",
            "mode",
            "log-level",
        ],
    ),
];
/// Options that only the long help has, beside those of `Tuning`.
const LONG_ONLY: [&str; 7] = [
    "states",
    "keep-problems",
    "otlp-interval",
    "window",
    "lang",
    "local-port",
    "last",
];
/// Verbs with few options need no headings.
const FEW: usize = 8;

/// The same command, with headings.
pub(super) fn with_headings(command: Command) -> Command {
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    verbs.into_iter().fold(command, |command, verb| {
        command.mut_subcommand(verb, |verb| {
            let has_few = verb.get_arguments().count() < FEW;
            verb.mut_args(|argument| {
                let long = argument.get_long().unwrap_or_default().to_owned();
                let mut headings = HEADINGS.iter();
                let heading = headings.find(|(_, all)| all.contains(&&*long));
                let is_tuning = heading.is_some_and(|(name, _)| *name == "Tuning");
                let argument = match heading {
                    Some((name, _)) if !has_few => argument.help_heading(*name),
                    _ => argument,
                };
                let hidden = is_tuning || LONG_ONLY.contains(&&*long);
                argument.hide_short_help(hidden)
            })
        })
    })
}
