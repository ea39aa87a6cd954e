//! `cargo xtask man`: man pages, shell completions and the help texts, from the definition of the command line.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use clap::Args;

use crate::{
    release_time::ReleaseTime,
    workspace::{cargo, root, run as run_command, target_dir},
};

/// `cargo xtask man`
#[derive(Args)]
pub struct ManArgs {
    /// Write the expectations of its tests anew (manual/tests/snapshots/)
    #[arg(long)]
    bless: bool,
}

/// Writes the pages into the target folder and prints where they are.
///
/// # Errors
///
/// When the agent cannot be built, or a file cannot be written.
pub fn run(args: &ManArgs) -> Result<()> {
    if args.bless {
        return run_command(
            Command::new(cargo())
                .current_dir(root())
                .env("SYNPROBE_BLESS", "1")
                .args(["test", "--locked", "--quiet", "-p", "synprobe-manual"]),
        );
    }
    let folder = target_dir().join("manual");
    write_to(&folder, &ReleaseTime::of_commit()?)?;
    println!("{}: read a page with man -l", folder.display());
    Ok(())
}

/// Writes `man1/`, `bash/`, `zsh/`, `fish/`, `help.txt` and `synprobe.default` into a folder.
///
/// # Errors
///
/// As [`run`].
pub fn write_to(folder: &Path, time: &ReleaseTime) -> Result<()> {
    let folder: PathBuf = folder.to_owned();
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .args(["run", "--locked", "--quiet", "-p", "synprobe-manual", "--"])
            .arg(folder)
            .args(["--date", &time.date()?]),
    )
}
