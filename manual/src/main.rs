//! `cargo xtask man` runs this: writes the man pages, the completions and the help texts to a folder.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

/// Writes man1/, bash/, zsh/, fish/, help.txt and synprobe.default
#[derive(Parser)]
struct ManualOptions {
    /// The folder
    folder: PathBuf,
    /// The day that the pages bear, such as 2026-01-31
    #[arg(long)]
    date: String,
}

fn main() -> Result<()> {
    let options = ManualOptions::parse();
    let folder = |name: &str| -> Result<PathBuf> {
        let folder = options.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    };
    for page in synprobe_manual::pages(&options.date)? {
        fs::write(folder("man1")?.join(page.file_name), page.text)?;
    }
    for completion in synprobe_manual::completions() {
        fs::write(
            folder(completion.shell)?.join(completion.file_name),
            completion.text,
        )?;
    }
    fs::write(options.folder.join("help.txt"), synprobe_manual::help())?;
    let file = options.folder.join("synprobe.default");
    fs::write(file, synprobe_manual::default_file())?;
    Ok(())
}
