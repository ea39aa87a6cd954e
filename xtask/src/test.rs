//! `cargo xtask test`: all tests, with what they need said first.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::workspace::{cargo, is_root, root, run as run_command};

/// `cargo xtask test`
#[derive(Args)]
pub struct TestArgs {
    /// Handed to `cargo test --workspace`, such as a test's name or `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs them.
///
/// # Errors
///
/// When one fails.
pub fn run(args: &TestArgs) -> Result<()> {
    if !is_root() {
        eprintln!(
            "xtask: not root: the tests that need the kernel are listed as ignored, everything \
             from recorded bytes on still runs. Run it as root to run them all."
        );
    }
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args(["test", "--workspace"])
            .args(&args.args),
    )
}
