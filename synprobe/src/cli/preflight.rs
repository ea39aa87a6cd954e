//! `synprobe preflight`

use clap::Args;

use super::Format;

/// `synprobe preflight`
#[derive(Debug, Args)]
pub struct PreflightArgs {
    /// Aligned text, or one JSON object
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
