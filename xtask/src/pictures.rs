//! `cargo xtask pictures`: the pictures of the documents, from recordings.

use std::process::Command;

use anyhow::Result;

use crate::workspace::{cargo, root, run as run_command};

/// Writes `docs/pictures/` anew. A test compares them with what the program shows.
///
/// # Errors
///
/// When the tests cannot be built, or a file cannot be written.
pub fn run() -> Result<()> {
    let picture = "pictures-show-what-the-program-shows";
    run_command(
        Command::new(cargo())
            .current_dir(root())
            .env("SYNPROBE_BLESS", "1")
            .args(["test", "--locked", "--quiet", "-p", "synprobe-tests"])
            .args(["--test", "top", "--", picture]),
    )
}
