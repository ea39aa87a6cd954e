//! `synprobe join`

use std::path::PathBuf;

use clap::Args;

use super::Format;

/// `synprobe join`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The client's side: a recording (.synrec), or JSON lines of watch or diagnose; - for standard
    /// input
    pub client: PathBuf,
    /// The server's side, in the same way
    pub server: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
