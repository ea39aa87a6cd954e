//! `cargo xtask matrix`: causes in the lab against the verdicts of `diagnose`. `cargo xtask soak`: the
//! released binary beside all scenarios for a while.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{
    dist,
    workspace::{cargo, root, run as run_command, target_dir},
};

/// `cargo xtask matrix`
#[derive(Args)]
pub struct MatrixArgs {
    /// Passed on: --runs N, --jobs N, --only NAME, --seed N, --verbose
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// `cargo xtask soak`
#[derive(Args)]
pub struct SoakArgs {
    /// Passed on: --seconds N, --jobs N
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the matrix.
///
/// # Errors
///
/// When a wrong verdict was `certain`, or a run failed.
pub fn run(args: &MatrixArgs) -> Result<()> {
    matrix(&args.args)
}

/// Runs the soak test.
///
/// # Errors
///
/// When memory grew, records do not add up, or entries remained in the table.
pub fn soak(args: &SoakArgs) -> Result<()> {
    let agent = dist::build()?;
    // The traffic generator uses the tests' profile, so most of it is built already.
    let mut build = Command::new(cargo());
    build.args(["build", "--quiet", "--workspace", "--bin", "soak"]);
    run_command(build.current_dir(root()))?;
    let soak = target_dir().join("debug/soak");
    run_command(
        Command::new(soak)
            .arg("--agent")
            .arg(agent)
            .args(&args.args),
    )
}

fn matrix(args: &[String]) -> Result<()> {
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args(["run", "--release", "--quiet", "-p", "synprobe-tests"])
            .args(["--bin", "matrix", "--"])
            .args(args),
    )
}
