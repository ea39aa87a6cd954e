//! Builds the objects.

use std::{ffi::OsString, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{OBJECTS, strip::without_dwarf, toolchain::Toolchain};
use crate::workspace::{remapped, remapped_paths, root, run, target_dir};

/// The target: little endian.
const TARGET: &str = "bpfel-unknown-none";

/// Environment variables that must not affect the build.
const REMOVED_VARIABLES: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_INCREMENTAL",
    "RUSTUP_TOOLCHAIN",
];

/// Builds every object. Returns file names and bytes.
///
/// # Errors
///
/// When the compiler or the linker fails.
pub fn build(toolchain: &Toolchain) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let target_dir = target_dir().join("bpf");
    let cargo = || {
        let mut command = Command::new(&toolchain.cargo);
        for name in REMOVED_VARIABLES {
            command.env_remove(name);
        }
        command.current_dir(root()).env("RUSTC", &toolchain.rustc);
        command
    };
    // Cargo does not detect a different linker.
    run(cargo()
        .args(["clean", "--quiet", "--release", "--target", TARGET])
        .args(["--package", "synprobe-ebpf", "--target-dir"])
        .arg(&target_dir))?;
    let mut command = cargo();
    command
        // Needed for `-Z build-std` and for the attributes of `core`.
        .env("RUSTC_BOOTSTRAP", "1")
        // The flags name the linker without its folder: they are part of the symbols' hashes.
        .env("PATH", path_with(&toolchain.linker)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain))
        .args(["build", "--locked", "--release", "--target", TARGET])
        .args(["--package", "synprobe-ebpf", "--features", "bpf"])
        .arg("--target-dir")
        .arg(&target_dir);
    for setting in [
        "opt-level=3",
        "panic=\"abort\"",
        "lto=false",
        "codegen-units=1",
        // BTF is generated from the debug information, which is stripped afterwards.
        "debug=2",
        "strip=false",
    ] {
        command.args(["--config", &format!("profile.release.{setting}")]);
    }
    if toolchain.build_std {
        command.args(["-Z", "build-std=core"]);
    }
    for (bin, _) in OBJECTS {
        command.args(["--bin", bin]);
    }
    run(&mut command)?;

    let built = target_dir.join(TARGET).join("release");
    let read = |(bin, name)| {
        let path = built.join(bin);
        let object = fs::read(&path).with_context(|| path.display().to_string())?;
        let stripped = without_dwarf(&object).with_context(|| format!("stripping {name}"))?;
        Ok((name, stripped))
    };
    OBJECTS.into_iter().map(read).collect()
}

/// Flags that keep paths of this machine out of the object.
fn flags(toolchain: &Toolchain) -> OsString {
    let mut flags: Vec<OsString> = ["-Clinker=bpf-linker", "-Clink-arg=--btf"]
        .map(OsString::from)
        .to_vec();
    flags.extend(remapped_paths());
    let library = toolchain.sysroot.join("lib/rustlib/src/rust");
    flags.push(remapped(&library, "/rust"));
    flags.join("\u{1f}".as_ref())
}

/// `PATH` with the linker's folder in front.
fn path_with(linker: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = linker
        .parent()
        .map(Path::to_path_buf)
        .into_iter()
        .chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("PATH")
}
