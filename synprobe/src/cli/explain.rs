//! `synprobe explain`

use clap::Args;

/// `synprobe explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The verdict, such as synack-lost. Without it, all verdicts are listed.
    pub verdict: Option<String>,
}
