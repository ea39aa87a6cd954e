//! `cargo xtask matrix`: what was done in the lab held against what `diagnose` says of it; and
//! `cargo xtask soak`: the agent as it is given out beside all of it for a set time.

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
    matrix(&args.args)
}

/// Soaks.
///
/// # Errors
///
/// When memory grew, records do not add up, or something was left in the table.
pub fn soak(args: &SoakArgs) -> Result<()> {
    let agent = dist::build()?;
    // What makes the traffic is built as the tests are, and so mostly is there already.
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
