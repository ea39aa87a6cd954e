//! The command line: parsing and checking arguments, nothing else. One file for each verb and for each
//! group of options that several verbs share.

mod connect;
mod diagnose;
mod environment;
mod errors;
mod explain;
mod headings;
mod join;
#[cfg(feature = "lab")]
mod lab;
mod language;
mod listeners;
mod preflight;
mod record;
mod report;
mod select;
#[cfg(feature = "serve")]
mod serve;
mod states;
#[cfg(feature = "top")]
mod top;
mod tuning;
mod values;
mod watch;

use clap::{Parser, Subcommand, ValueEnum};

pub use connect::ConnectArgs;
pub use diagnose::DiagnoseArgs;
pub use environment::{CommandLineError, with_environment};
pub(crate) use errors::{did_you_mean, likeliest};
pub use explain::ExplainArgs;
pub use join::JoinArgs;
#[cfg(feature = "lab")]
pub use lab::{FamilyArg, LabArgs};
pub use language::{LangArg, LanguageArgs};
pub use listeners::ListenersArgs;
pub use preflight::PreflightArgs;
pub use record::{RecordArgs, RecordingArgs};
pub use report::ReportArgs;
pub use select::{RoleArg, SelectArgs};
#[cfg(feature = "serve")]
pub use serve::{ServeArgs, ServeFormat};
pub use states::StatesArgs;
#[cfg(feature = "top")]
pub use top::TopArgs;
pub use tuning::{ModeArg, TuningArgs};
pub use watch::{States, WatchArgs};

/// Watches every TCP handshake on this host, times it, and says why it is stuck.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// Colours: auto, always or never
    ///
    /// auto: on a terminal, unless NO_COLOR is set or TERM is dumb.
    #[arg(
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value_t,
        value_name = "WHEN",
        display_order = 900
    )]
    pub color: ColorArg,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// When text has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// A verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every handshake as it happens
    Watch(WatchArgs),
    /// Watch for a while, then say what is wrong
    Diagnose(DiagnoseArgs),
    /// Record a run, for --replay of others
    Record(RecordArgs),
    /// Write one HTML file with pictures
    Report(ReportArgs),
    #[cfg(feature = "serve")]
    /// Watch all the time: metrics over HTTP
    Serve(ServeArgs),
    #[cfg(feature = "top")]
    /// Show what is wrong on a screen
    Top(TopArgs),
    /// Join two hosts: which way lost what
    Join(JoinArgs),
    /// Explain a verdict
    Explain(ExplainArgs),
    /// Connect once, and show how it went
    Connect(ConnectArgs),
    /// Count the sockets in each TCP state
    States(StatesArgs),
    /// List the listeners with their queues
    Listeners(ListenersArgs),
    /// Check what this host allows, and what is missing
    Preflight(PreflightArgs),
    #[cfg(feature = "lab")]
    /// Make a handshake fail on purpose, to see it
    Lab(LabArgs),
}

/// How lines are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned text
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        with_environment(Cli::command()).debug_assert();
    }

    /// The short help of a command is one screen, and shows how it is typed.
    #[test]
    fn the_short_help_is_below_thirty_lines_at_eighty_columns() {
        let mut command = with_environment(Cli::command().term_width(80));
        command.build();
        let lines = |command: &mut clap::Command| command.render_help().to_string();
        let help = lines(&mut command);
        assert!(help.lines().count() < 30, "{help}");
        for verb in command.get_subcommands_mut() {
            let help = lines(verb);
            assert!(help.lines().count() < 30, "{}: {help}", verb.get_name());
            assert!(
                help.lines().all(|line| line.chars().count() <= 80),
                "{help}"
            );
            // clap adds it.
            if verb.get_name() == "help" {
                continue;
            }
            let typed = format!("synprobe {}", verb.get_name());
            let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_default();
            assert!(examples.contains(&typed), "{}: {help}", verb.get_name());
        }
    }

    /// What the help shows to be typed can be typed.
    #[test]
    fn the_examples_of_the_help_are_taken() {
        let mut command = with_environment(Cli::command());
        command.build();
        let verbs = command
            .get_subcommands()
            .filter_map(clap::Command::get_after_help);
        let all = verbs.chain(command.get_after_help());
        let texts: Vec<String> = all.map(ToString::to_string).collect();
        let mut examples = 0;
        for line in texts.iter().flat_map(|text| text.lines().skip(1)) {
            let typed = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = typed.split_whitespace().filter(|w| *w != "sudo").collect();
            let taken = with_environment(Cli::command()).try_get_matches_from(&words);
            assert!(taken.is_ok(), "{line}: {taken:?}");
            examples += 1;
        }
        assert!(examples > 15, "{texts:?}");
    }
}
