//! `cargo xtask dist`: the static binary that is copied to other hosts.

use std::{
    ffi::OsString,
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

use crate::workspace::{
    cargo, output, remapped, remapped_paths, root, run as run_command, target_dir,
};

/// The target whose C library can be linked statically, name resolution included.
pub const TARGET: &str = "x86_64-unknown-linux-musl";
/// The same for arm64.
pub const ARM_TARGET: &str = "aarch64-unknown-linux-musl";
/// Relative relocations take a bit each, not 24 bytes. Functions with the same code are there once.
const LINKER_ARGUMENTS: [&str; 2] = ["--pack-dyn-relocs=relr", "--icf=all"];

/// `cargo xtask dist`
#[derive(Args)]
pub struct DistArgs {
    /// For this target, such as aarch64-unknown-linux-musl
    #[arg(long, value_name = "TARGET", default_value = TARGET)]
    target: String,
    /// Without the lab, serve and top: synprobe-small
    #[arg(long)]
    no_default_features: bool,
}

/// What the binary contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// All features.
    Everything,
    /// None of the features that can be left out.
    Least,
}

impl Contents {
    /// The most bytes that it may have: docs/building.md has the measured sizes.
    fn limit(self) -> u64 {
        match self {
            Self::Everything => 8_600_000,
            Self::Least => 7_000_000,
        }
    }
}

/// Builds the binary and prints its path.
///
/// # Errors
///
/// When it cannot be built, needs a dynamic library, or is too large.
pub fn run(args: &DistArgs) -> Result<()> {
    let contents = match args.no_default_features {
        true => Contents::Least,
        false => Contents::Everything,
    };
    let binary = build_of(contents, &args.target)?;
    let (bytes, limit) = (fs::metadata(&binary)?.len(), contents.limit());
    println!(
        "{}: {bytes} bytes of at most {limit}, no dynamic libraries",
        binary.display()
    );
    ensure!(
        bytes <= limit,
        "{} bytes too many: docs/building.md says what takes how much",
        bytes - limit
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
    build_of(Contents::Everything, target)
}

fn build_of(contents: Contents, target: &str) -> Result<PathBuf> {
    need_target(target)?;
    let mut command = Command::new(cargo());
    command
        .current_dir(root())
        // No path of this machine is in the binary, and no other flag changes it.
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}".as_ref()))
        // Incremental compilation divides a crate in another way: other bytes.
        .env("CARGO_INCREMENTAL", "0")
        .args(["build", "--locked", "--profile", "dist", "--target", target])
        .args(["-p", "synprobe"]);
    if contents == Contents::Least {
        command.arg("--no-default-features");
    }
    run_command(&mut command)?;
    let mut binary = target_dir().join(target).join("dist/synprobe");
    if contents == Contents::Least {
        // The other steps take the one with everything.
        let small = binary.with_file_name("synprobe-small");
        fs::rename(&binary, &small)?;
        binary = small;
    }
    check_static(&binary).with_context(|| binary.display().to_string())?;
    Ok(binary)
}

/// Flags of rustc. The linker is rust-lld (`.cargo/config.toml`).
fn flags() -> Vec<OsString> {
    let mut flags = remapped_paths();
    flags.push(remapped(&target_dir(), "/target"));
    for argument in LINKER_ARGUMENTS {
        flags.push(format!("-Clink-arg={argument}").into());
    }
    flags
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
