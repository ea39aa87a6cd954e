//! `synprobe explain`

use clap::Args;

use super::LanguageArgs;

/// `synprobe explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The verdict, such as synack-lost. Without it, all verdicts are listed.
    pub verdict: Option<String>,
    /// The language of the page
    #[command(flatten)]
    pub language: LanguageArgs,
}
