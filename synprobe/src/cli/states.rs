//! `synprobe states`

use clap::Args;

use super::Format;

/// `synprobe states`
#[derive(Debug, Args)]
pub struct StatesArgs {
    /// Only this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Aligned text, or one JSON object a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
