//! `cargo xtask dist`: the static binary that is copied to other hosts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use object::{
    Endianness, elf,
    read::elf::{ElfFile64, ProgramHeader},
};

use crate::workspace::{cargo, output, remapped_paths, root, run as run_command, target_dir};

/// The target whose C library can be linked statically, name resolution included.
pub const TARGET: &str = "x86_64-unknown-linux-musl";
/// The same for arm64. The linker is in `.cargo/config.toml`.
pub const ARM_TARGET: &str = "aarch64-unknown-linux-musl";

/// `cargo xtask dist`
#[derive(Args)]
pub struct DistArgs {
    /// For this target, such as aarch64-unknown-linux-musl
    #[arg(long, value_name = "TARGET", default_value = TARGET)]
    target: String,
}

/// Builds the binary and prints its path.
///
/// # Errors
///
/// When it cannot be built, or needs a dynamic library.
pub fn run(args: &DistArgs) -> Result<()> {
    let binary = build_for(&args.target)?;
    let bytes = fs::metadata(&binary)?.len();
    println!(
        "{}: {:.1} MB, no dynamic libraries",
        binary.display(),
        bytes as f64 / 1e6
    );
    Ok(())
}

/// Builds the binary and returns its path.
///
/// # Errors
///
/// As [`run`].
pub fn build() -> Result<PathBuf> {
    build_for(TARGET)
}

/// As [`build`], for another target.
///
/// # Errors
///
/// As [`run`].
pub fn build_for(target: &str) -> Result<PathBuf> {
    need_target(target)?;
    run_command(
        Command::new(cargo())
            .current_dir(root())
            // No path of this machine is in the binary, and no other flag changes it.
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                remapped_paths().join("\u{1f}".as_ref()),
            )
            // Incremental compilation divides a crate in another way: other bytes.
            .env("CARGO_INCREMENTAL", "0")
            .args(["build", "--locked", "--profile", "dist", "--target", target])
            .args(["-p", "synprobe"]),
    )?;
    let binary = target_dir().join(target).join("dist/synprobe");
    check_static(&binary).with_context(|| binary.display().to_string())?;
    Ok(binary)
}

/// Checks that the target's standard library is installed.
///
/// # Errors
///
/// When it is not; names the command that installs it.
pub fn need_target(target: &str) -> Result<()> {
    let libraries = output(
        Command::new(cargo().with_file_name("rustc"))
            .current_dir(root())
            .args(["--print", "target-libdir", "--target", target]),
    )?;
    ensure!(
        Path::new(&libraries).exists(),
        "no standard library for {target}: rustup target add {target}"
    );
    Ok(())
}

/// Checks that the binary needs neither a program loader nor a library.
fn check_static(binary: &Path) -> Result<()> {
    let data = fs::read(binary)?;
    let file = ElfFile64::<Endianness>::parse(&*data)?;
    let endian = file.endian();
    for header in file.elf_program_headers() {
        if header.interpreter(endian, &*data)?.is_some() {
            bail!("it needs a program loader");
        }
        for entry in header.dynamic(endian, &*data)?.unwrap_or_default() {
            ensure!(
                entry.d_tag.get(endian) != elf::DT_NEEDED,
                "it needs a dynamic library"
            );
        }
    }
    Ok(())
}
