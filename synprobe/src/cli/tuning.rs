//! Options of the kernel side and of the agent's tables.

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::values::{bytes, memory, small_count};
use crate::probe::half_open_source::RequestedMode;

/// Kernel side and tables.
#[derive(Debug, Args)]
pub struct TuningArgs {
    /// Size of the ring buffer between kernel and agent, rounded up to a power of two. Default: 16M, or
    /// 1M where healthy handshakes are only counted.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub ring_size: Option<u32>,
    /// Memory that the process may take. The tables share what the program and the ring leave of it; a full
    /// one evicts its oldest entry. Evictions are reported.
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = memory)]
    pub max_memory: u64,
    /// Handshakes in progress that are remembered, for each role. Default: their share of --max-memory.
    #[arg(long, value_name = "N", value_parser = small_count)]
    pub max_handshakes: Option<u32>,
    /// Responsive peers that are counted one by one. Default: their share of --max-memory. When the table is full, the
    /// healthiest peer is evicted.
    #[arg(long, value_name = "N", value_parser = small_count)]
    pub max_peers: Option<u32>,
    /// How the end of a half-open is detected
    #[arg(long, value_enum, default_value_t)]
    pub mode: ModeArg,
    /// Diagnostics on standard error, including the kernel side's
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = log_levels())]
    pub log_level: log::LevelFilter,
}

fn log_levels() -> impl TypedValueParser<Value = log::LevelFilter> {
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<log::LevelFilter>())
}

/// How the end of a half-open is detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// `exact` by fentry where this host allows it, else `tracepoints`
    #[default]
    Auto,
    /// By reading the kernel's socket tables once a second. Uses only TCP's tracepoints.
    Tracepoints,
    /// By an event at that moment: fentry, else the timer tracepoints, which cost more
    Exact,
}

impl From<ModeArg> for RequestedMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Tracepoints => Self::Tracepoints,
            ModeArg::Exact => Self::Exact,
        }
    }
}
