//! `cargo xtask matrix`: what was done in the lab held against what `diagnose` says of it; and
//! `cargo xtask soak`: an agent beside all of it for a set time.

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

/// `cargo xtask soak`
#[derive(Args)]
pub struct SoakArgs {
    /// Handed on: --seconds N, --jobs N
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs it.
///
/// # Errors
///
/// When something wrong was said with certainty, or a run failed.
pub fn run(args: &MatrixArgs) -> Result<()> {
    program("matrix", &args.args)
}

/// Soaks.
///
/// # Errors
///
/// When memory grew, records do not add up, or something was left in the table.
pub fn soak(args: &SoakArgs) -> Result<()> {
    let mut build = Command::new(cargo());
    build.args(["build", "--release", "--quiet", "-p", "synprobe"]);
    run_command(build.current_dir(root()))?;
    program("soak", &args.args)
}

fn program(name: &str, args: &[String]) -> Result<()> {
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
                name,
                "--",
            ])
            .args(args),
    )
}
