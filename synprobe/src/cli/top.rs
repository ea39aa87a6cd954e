//! `synprobe top`

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    SelectArgs, TuningArgs,
    values::{duration, slow, window},
};

/// `synprobe top`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print plain text instead of a screen: needs no terminal
    #[arg(short, long)]
    pub batch: bool,
    /// With --batch: stop after this number of frames. Of a recording they are spread evenly, the last one at
    /// its end, unless --interval is given.
    #[arg(short = 'n', long, value_name = "N", requires = "batch",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub frames: Option<u32>,
    /// How often the screen is refreshed, such as 500ms or 5s. Default: 1s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Use ASCII characters only
    #[arg(long)]
    pub ascii: bool,
    /// Problems are judged over this time, and closed when nothing of them was seen for as long
    #[arg(long, value_name = "TIME", value_parser = window, default_value = "60s")]
    pub window: Duration,
    /// Take this recording in place of the kernel. Needs no privileges. The selection narrows it further.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// A handshake without a retransmission is examined only above this time. The kernel counts the
    /// others.
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s")]
    pub slow: Duration,
    /// Examine every handshake, also the healthy ones. It costs more.
    #[arg(long, conflicts_with = "slow")]
    pub every: bool,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}
