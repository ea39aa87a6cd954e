//! `synprobe record`, and the options of other verbs that have to do with recordings.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};

use super::{
    SelectArgs, TuningArgs,
    values::{duration, size, slow},
};

/// `synprobe record`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true).args(["output", "rolling", "cut"]))]
pub struct RecordArgs {
    /// Record into this file, such as incident.synrec
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Record into this folder, and keep only the last part
    #[arg(long, value_name = "DIR")]
    pub rolling: Option<PathBuf>,
    /// With --rolling: how much of the past to keep
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15m", requires = "rolling")]
    pub keep: Duration,
    /// With --rolling: what the folder may take
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "256M", requires = "rolling")]
    pub max_size: u64,
    /// Join a rolling recording into this file
    ///
    /// The recorder may go on.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub cut: Option<PathBuf>,
    /// With --cut: the folder of the rolling recording
    #[arg(long, value_name = "DIR", requires = "cut")]
    pub from: Option<PathBuf>,
    /// With --cut: only this much, back from the newest
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "cut")]
    pub last: Option<Duration>,
    /// What to record
    #[command(flatten)]
    pub select: SelectArgs,
    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Record only handshakes in trouble
    ///
    /// Those with a retransmission, that failed, or that were slow. The kernel counts the others. It costs less;
    /// a replay has no healthy handshakes.
    #[arg(long)]
    pub quiet: bool,
    /// With --quiet: what is slow, such as 300ms
    ///
    /// A handshake without a retransmission is recorded only above this time.
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s", requires = "quiet")]
    pub slow: Duration,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// A recording beside the output, or in place of the kernel.
#[derive(Debug, Default, Args)]
pub struct RecordingArgs {
    /// Record the run into this file as well
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Read this recording in place of the kernel
    ///
    /// Needs no privileges. The selection narrows it further.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
}
