//! `synprobe top`

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    LanguageArgs, SelectArgs, TuningArgs,
    values::{duration, slow, small_count, window},
};

/// `synprobe top`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print plain text: needs no terminal
    #[arg(short, long)]
    pub batch: bool,
    /// With --batch: stop after so many frames
    ///
    /// Of a recording they are spread evenly, the last one at its end, unless --interval is given.
    #[arg(short = 'n', long, value_name = "N", requires = "batch",
          value_parser = small_count)]
    pub frames: Option<u32>,
    /// How often it is refreshed; default 1s
    ///
    /// Such as 500ms or 5s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Use ASCII characters only
    #[arg(long)]
    pub ascii: bool,
    /// The language of the screen; with --ascii it is English
    #[command(flatten)]
    pub language: LanguageArgs,
    /// Problems are judged over this time
    ///
    /// They are closed when nothing of them was seen for as long.
    #[arg(long, value_name = "TIME", value_parser = window, default_value = "60s")]
    pub window: Duration,
    /// Where the key R records to; default: the working directory
    ///
    /// The folder is opened at the start, and files are created later, with the privileges that are left. So it must
    /// belong to the user that runs synprobe. Without this option, where the working directory takes no file, it is
    /// the folder for temporary files.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["replay", "batch"])]
    pub record_dir: Option<PathBuf>,
    /// Read this recording in place of the kernel
    ///
    /// Needs no privileges. The selection narrows it further.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// What is slow, such as 300ms
    ///
    /// A handshake without a retransmission is examined only above this time. The kernel counts the others.
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s")]
    pub slow: Duration,
    /// Examine every handshake, also healthy ones
    ///
    /// It costs more.
    #[arg(long, conflicts_with = "slow")]
    pub every: bool,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}
