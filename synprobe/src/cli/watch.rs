//! `synprobe watch`

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{
    Format, RecordingArgs, SelectArgs, TuningArgs,
    values::{count, duration, slow},
};

/// `synprobe watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// Rows, or one JSON object a line
    ///
    /// docs/events.md has the fields.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Stop after so many handshakes
    #[arg(long, value_name = "N", value_parser = count)]
    pub count: Option<u64>,
    /// Which state changes to print
    #[arg(long, value_enum, default_value_t)]
    pub states: States,
    /// Print only handshakes in trouble
    ///
    /// Those with a retransmission, that failed, or that were slow. The kernel counts the others.
    #[arg(long, conflicts_with = "states")]
    pub quiet: bool,
    /// With --quiet: what is slow, such as 300ms
    ///
    /// A handshake without a retransmission is printed only above this time.
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s", requires = "quiet")]
    pub slow: Duration,
    /// On a terminal: print every row
    ///
    /// Without it, rows of one kind, listener and second become one. A pipe has every row.
    #[arg(long)]
    pub no_fold: bool,
    /// Times in the zone of this host, not in UTC
    ///
    /// JSON stays UTC.
    #[arg(long)]
    pub local_time: bool,
    /// A recording
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// Which state changes are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum States {
    /// Into and out of SYN_SENT and SYN_RECV
    #[default]
    Handshake,
    /// All
    All,
}
