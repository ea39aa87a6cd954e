//! `cargo xtask ebpf`: builds the objects that the agent embeds from `synprobe-ebpf`.
//!
//! The objects are committed, so that users need only stable Rust. [`toolchain`] finds a suitable
//! compiler. [`build`] builds reproducibly: the same compiler gives the same bytes in any folder. [`strip`]
//! removes the DWARF. [`check`] compares the committed objects with the source.

mod build;
mod check;
mod strip;
mod toolchain;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use toolchain::{Record, Toolchain};

use crate::workspace::root;

/// Binaries of `synprobe-ebpf`, each with the path of its object in the workspace.
const OBJECTS: [(&str, &str); 2] = [
    ("synprobe", "synprobe/bpf/synprobe.bpf.o"),
    ("lab", "synprobe-lab/bpf/synprobe-lab.bpf.o"),
];

/// `cargo xtask ebpf`
#[derive(Args)]
pub struct EbpfArgs {
    /// Only check that the committed objects match the source
    #[arg(long)]
    check: bool,
}

/// Builds or checks the objects.
///
/// # Errors
///
/// When the toolchain is missing, the build fails, or the committed objects differ.
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

/// The folder of the toolchain record.
fn folder() -> PathBuf {
    root().join("synprobe/bpf")
}
