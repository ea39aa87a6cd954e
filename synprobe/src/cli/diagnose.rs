//! `synprobe diagnose`

use std::time::Duration;

use clap::Args;

use super::{
    Format, LanguageArgs, RecordingArgs, SelectArgs, TuningArgs,
    values::{duration, slow},
};

/// `synprobe diagnose`
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// How long to watch, such as 30s; default 10s
    ///
    /// Of a recording: all of it.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// A page, or one JSON object a line
    ///
    /// docs/events.md has the fields.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Exit code 10 if something is wrong
    ///
    /// That is a problem, or something that no problem explains; else 0.
    #[arg(long)]
    pub exit_code: bool,
    /// What is slow, such as 300ms
    ///
    /// A handshake without a retransmission is examined only above this time. The kernel counts the others.
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s")]
    pub slow: Duration,
    /// Examine every handshake, also healthy ones
    ///
    /// It costs more, and adds the usual times of each peer, slow-peer below --slow, flash-crowd, and the
    /// connecting processes.
    #[arg(long, conflicts_with = "slow")]
    pub every: bool,
    /// The language of the page
    #[command(flatten)]
    pub language: LanguageArgs,
    /// A recording
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}
