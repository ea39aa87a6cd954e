//! `cargo xtask matrix`: what was done in the lab held against what `diagnose` says of it.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::workspace::{cargo, root, run as run_command};

/// `cargo xtask matrix`
#[derive(Args)]
pub struct MatrixArgs {
    /// Handed on: --runs N, --jobs N, --only NAME, --seed N, --verbose
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs it.
///
/// # Errors
///
/// When something wrong was said with certainty, or a run failed.
pub fn run(args: &MatrixArgs) -> Result<()> {
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args([
                "run",
                "--release",
                "--quiet",
                "-p",
                "synprobe-tests",
                "--bin",
                "matrix",
                "--",
            ])
            .args(&args.args),
    )
}
