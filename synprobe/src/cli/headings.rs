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
const LONG_ONLY: [&str; 8] = [
    "states",
    "peer-port",
    "keep-problems",
    "otlp-interval",
    "window",
    "lang",
    "local-port",
    "last",
];
/// The same for one verb.
const LONG_ONLY_OF: [(&str, &[&str]); 1] = [("serve", &["format", "keep", "max-size", "slow"])];
/// Verbs with few options need no headings.
const FEW: usize = 8;
/// What is typed most often, below the help of each verb.
const EXAMPLES: [(&str, &[&str]); 13] = [
    (
        "watch",
        &[
            "sudo synprobe watch --port 443",
            "sudo synprobe watch --quiet --slow 300ms",
        ],
    ),
    (
        "diagnose",
        &[
            "sudo synprobe diagnose",
            "sudo synprobe diagnose --port 443 --duration 30s",
            "synprobe diagnose --replay incident.synrec",
        ],
    ),
    (
        "record",
        &[
            "sudo synprobe record --output incident.synrec --duration 30s",
            "sudo synprobe record --rolling /var/lib/synprobe --keep 30m",
        ],
    ),
    (
        "report",
        &[
            "sudo synprobe report --output now.html --duration 30s",
            "synprobe report --output incident.html --replay incident.synrec",
        ],
    ),
    (
        "serve",
        &[
            "sudo synprobe serve                   # then open http://127.0.0.1:9823/",
            "sudo synprobe serve --rolling /var/lib/synprobe",
        ],
    ),
    (
        "top",
        &[
            "sudo synprobe top                     # ? shows the keys",
            "synprobe top --replay incident.synrec",
        ],
    ),
    ("join", &["synprobe join client.synrec server.synrec"]),
    ("explain", &["synprobe explain synack-lost"]),
    ("connect", &["sudo synprobe connect example.com:443"]),
    ("states", &["synprobe states", "synprobe states --port 443"]),
    (
        "listeners",
        &[
            "sudo synprobe listeners",
            "sudo synprobe listeners --port 443",
        ],
    ),
    ("preflight", &["sudo synprobe preflight"]),
    (
        "lab",
        &["synprobe lab --list", "sudo synprobe lab synack-lost"],
    ),
];
/// The same of the program.
const FIRST_STEPS: &[&str] = &[
    "sudo synprobe diagnose                # what is wrong on this host?",
    #[cfg(feature = "top")]
    "sudo synprobe top                     # the same, live",
];

/// As the help shows them.
fn examples(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("\n  {line}")).collect();
    format!("Examples:{}", lines.concat())
}

/// The same command, with headings.
pub(super) fn with_headings(command: Command) -> Command {
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let command = command.after_help(examples(FIRST_STEPS));
    verbs.into_iter().fold(command, |command, name| {
        let own = LONG_ONLY_OF.iter().find(|(of, _)| *of == name);
        let own = own.map_or(&[][..], |(_, options)| *options);
        let typed = EXAMPLES.iter().find(|(of, _)| *of == name);
        command.mut_subcommand(name.clone(), |verb| {
            let verb = match typed {
                Some((_, lines)) => verb.after_help(examples(lines)),
                None => verb,
            };
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
                let long_only = LONG_ONLY.contains(&&*long) || own.contains(&&*long);
                let hidden = is_tuning || long_only;
                argument.hide_short_help(hidden)
            })
        })
    })
}
