//! `cargo xtask recordings`: the recordings of `tests/recordings/` and what their replays print.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::workspace::{cargo, root, run as run_command};

/// `cargo xtask recordings`
#[derive(Args)]
pub struct RecordingsArgs {
    /// Passed on: --bless, --make, --only NAME
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Makes recordings or their expectations.
///
/// # Errors
///
/// When a recording cannot be made or replayed.
pub fn run(args: &RecordingsArgs) -> Result<()> {
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args(["run", "--quiet", "-p", "synprobe-tests"])
            .args(["--bin", "recordings", "--"])
            .args(&args.args),
    )
}
