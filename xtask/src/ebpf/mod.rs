//! `cargo xtask ebpf`: from `synprobe-ebpf` to the objects that the agent embeds.
//!
//! Users need stable Rust only, so the objects are committed. [`toolchain`] finds a compiler that
//! can make them, [`build`] makes them in such a way that the same compiler gives the same bytes
//! in any folder, [`strip`] takes the DWARF out, [`check`] holds the committed ones against the
//! source.

mod build;
mod check;
mod strip;
mod toolchain;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::root;
use toolchain::{Record, Toolchain};

/// A binary of `synprobe-ebpf`, and the object that it becomes: its path in the workspace.
const OBJECTS: [(&str, &str); 2] = [
    ("synprobe", "synprobe/bpf/synprobe.bpf.o"),
    ("lab", "synprobe-lab/bpf/synprobe-lab.bpf.o"),
];

/// `cargo xtask ebpf`
#[derive(Args)]
pub struct EbpfArgs {
    /// Only say whether the committed objects are what the source gives
    #[arg(long)]
    check: bool,
}

/// Builds, or checks.
///
/// # Errors
///
/// When the toolchain is not there, the build fails, or the committed objects are others.
pub fn run(args: &EbpfArgs) -> Result<()> {
    let recorded = Record::read(&folder());
    let toolchain = Toolchain::find(recorded.as_ref())?;
    eprintln!("xtask: building with {toolchain}");
    let objects = build::build(&toolchain)?;
    if args.check {
        return check::check(recorded.as_ref(), &toolchain, &objects);
    }
    for (name, bytes) in &objects {
        let path = root().join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        eprintln!("xtask: {name}: {} bytes", bytes.len());
    }
    toolchain.record().write(&folder())
}

/// Where the record of the toolchain is.
fn folder() -> PathBuf {
    root().join("synprobe/bpf")
}
