//! `synprobe report`

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    LanguageArgs, SelectArgs, TuningArgs,
    values::{duration, slow},
};

/// `synprobe report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Write the report into this file
    ///
    /// Such as incident.html. An existing file is replaced.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Read this recording in place of the kernel
    ///
    /// Needs no privileges. The selection narrows it further.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// How long to watch, such as 30s; default 10s
    ///
    /// Of a recording: all of it.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Examine only handshakes in trouble
    ///
    /// Those with a retransmission, that failed, or that were slow. The kernel counts the others. It costs less;
    /// the report then has only the durations of healthy handshakes.
    #[arg(long, conflicts_with = "replay")]
    pub quiet: bool,
    /// With --quiet: what is slow, such as 300ms
    ///
    /// A handshake without a retransmission is examined only above this time.
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s", requires = "quiet")]
    pub slow: Duration,
    /// The language of the report
    #[command(flatten)]
    pub language: LanguageArgs,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}
