//! `cargo xtask test`: all tests, with a note where privileges are missing.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::workspace::{cargo, is_root, root, run as run_command};

/// `cargo xtask test`
#[derive(Args)]
pub struct TestArgs {
    /// Passed to `cargo test --workspace`, such as a test's name or `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the tests.
///
/// # Errors
///
/// When a test fails.
pub fn run(args: &TestArgs) -> Result<()> {
    if !is_root() {
        eprintln!(
            "xtask: not root: kernel tests are listed as ignored; all other tests run. Run as root \
             to run all tests."
        );
    }
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args(["test", "--workspace"])
            .args(&args.args),
    )
}
