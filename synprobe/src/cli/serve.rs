//! `synprobe serve`

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    LanguageArgs, SelectArgs, TuningArgs,
    values::{duration, size, slow, window},
};
use crate::serve::{ListenAddr, OtlpUrl};

/// `synprobe serve`
///
/// Each option can also come from the environment: `SYNPROBE_` and its name (`Cli::read`).
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where HTTP is served
    ///
    /// ADDR:PORT, or unix:PATH for a socket in the file system. It has /metrics, /problems, /healthz, and a page at /.
    /// There is no authentication: /problems and the page name addresses, processes and namespaces of this host.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9823")]
    pub listen: ListenAddr,
    /// Problems are judged over this time, and closed when nothing of them was seen for as long
    #[arg(long, value_name = "TIME", value_parser = window, default_value = "60s")]
    pub window: Duration,
    /// One JSON object a line on standard output (docs/events.md), or nothing
    #[arg(long, value_enum, default_value_t)]
    pub format: ServeFormat,
    /// Send metrics and log records to this collector
    ///
    /// An OpenTelemetry collector (OTLP/HTTP), such as http://127.0.0.1:4318. Log records are troubled handshakes and
    /// problems.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<OtlpUrl>,
    /// With --otlp: how often metrics are sent
    #[arg(long, value_name = "TIME", value_parser = window, default_value = "15s", requires = "otlp")]
    pub otlp_interval: Duration,
    /// Record into this folder, and keep only the last part
    #[arg(long, value_name = "DIR")]
    pub rolling: Option<PathBuf>,
    /// With --rolling: how much of the past to keep
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15m", requires = "rolling")]
    pub keep: Duration,
    /// With --rolling: what the folder may take
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "256M", requires = "rolling")]
    pub max_size: u64,
    /// With --rolling: when a problem opens, what is kept is copied to a file in the folder; so many of them
    /// stay, in half of --max-size. 0: none
    #[arg(long, value_name = "N", default_value_t = 8, requires = "rolling")]
    pub keep_problems: usize,
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// A handshake without a retransmission is printed only above this time, such as 300ms
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s")]
    pub slow: Duration,
    /// Examine every handshake, also healthy ones
    ///
    /// It prints a line for each, and costs more.
    #[arg(long, conflicts_with = "slow")]
    pub every: bool,
    /// The language of the page at /
    #[command(flatten)]
    pub language: LanguageArgs,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ServeFormat {
    /// One JSON object a line
    #[default]
    Json,
    /// Nothing
    None,
}
