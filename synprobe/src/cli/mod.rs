//! The command line: parsing and checking arguments, nothing else. One file for each verb and for each
//! group of options that several verbs share.

mod connect;
mod diagnose;
mod environment;
mod explain;
mod join;
#[cfg(feature = "lab")]
mod lab;
mod listeners;
mod preflight;
mod record;
mod report;
mod select;
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
pub use explain::ExplainArgs;
pub use join::JoinArgs;
#[cfg(feature = "lab")]
pub use lab::{FamilyArg, LabArgs};
pub use listeners::ListenersArgs;
pub use preflight::PreflightArgs;
pub use record::{RecordArgs, RecordingArgs};
pub use report::{Lang, ReportArgs};
pub use select::{RoleArg, SelectArgs};
pub use serve::{ServeArgs, ServeFormat};
pub use states::StatesArgs;
#[cfg(feature = "top")]
pub use top::TopArgs;
pub use tuning::{ModeArg, TuningArgs};
pub use watch::{States, WatchArgs};

/// Watches every TCP handshake on this host, times it truthfully, and says why it is stuck.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// When text has colours. auto: on a terminal, unless NO_COLOR is set or TERM is dumb
    #[arg(
        long,
        global = true,
        value_enum,
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
    /// Print every handshake as it happens, then a table of the peers
    Watch(WatchArgs),
    /// Watch for a while, then list the problems, worst first, with evidence and remedy
    Diagnose(DiagnoseArgs),
    /// Record a run: watch, diagnose and others replay it with --replay, on any Linux machine
    Record(RecordArgs),
    /// Write one HTML file: what is wrong, with pictures, of a recording or of a run
    Report(ReportArgs),
    /// Watch all the time: metrics, open problems and health over HTTP
    Serve(ServeArgs),
    #[cfg(feature = "top")]
    /// Show what is wrong on a screen, live or from a recording: problems, listeners, handshakes, peers
    Top(TopArgs),
    /// Join the recordings or the JSON lines of two hosts, handshake by handshake: which way lost what
    Join(JoinArgs),
    /// Explain a verdict: its meaning, its evidence, its remedies, and how to reproduce it
    Explain(ExplainArgs),
    /// Connect once, and show for each address of the name: timing, SYNs and outcome
    Connect(ConnectArgs),
    /// Count the sockets in each TCP state, per network namespace and listening port
    States(StatesArgs),
    /// List the listeners with their SYN and accept queues and what limits them, fullest first
    Listeners(ListenersArgs),
    /// Check what this host allows, what is missing, and how to get it
    Preflight(PreflightArgs),
    #[cfg(feature = "lab")]
    /// Make a handshake fail on purpose, in network namespaces of its own, and watch it
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
    }
}
