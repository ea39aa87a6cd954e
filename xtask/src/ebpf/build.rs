//! One build of the objects.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{OBJECTS, strip::without_dwarf, toolchain::Toolchain};
use crate::workspace::{cargo_home, root, run, target_dir};

/// The target: little endian, like every machine this is likely to run on.
const TARGET: &str = "bpfel-unknown-none";

/// What surrounds a build and may not change what comes out of it.
const FOREIGN: [&str; 9] = [
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

/// Builds every object; gives back file name and bytes.
///
/// # Errors
///
/// When the compiler or the linker fails.
pub fn build(toolchain: &Toolchain) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let target_dir = target_dir().join("bpf");
    let cargo = || {
        let mut command = Command::new(&toolchain.cargo);
        for name in FOREIGN {
            command.env_remove(name);
        }
        command.current_dir(root()).env("RUSTC", &toolchain.rustc);
        command
    };
    // Cargo would not notice another linker.
    run(cargo()
        .args(["clean", "--quiet", "--release", "--target", TARGET])
        .args(["--package", "synprobe-ebpf", "--target-dir"])
        .arg(&target_dir))?;
    let mut command = cargo();
    command
        // Both ways use what stable hides: `-Z build-std`, and the attributes of `core` itself.
        .env("RUSTC_BOOTSTRAP", "1")
        // The linker is named without its folder, for the flags are part of the symbols' hashes.
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
        // BTF is made from the debug information, which is then stripped.
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

    let made = target_dir.join(TARGET).join("release");
    let read = |(bin, name)| {
        let path = made.join(bin);
        let object = fs::read(&path).with_context(|| path.display().to_string())?;
        let stripped = without_dwarf(&object).with_context(|| format!("stripping {name}"))?;
        Ok((name, stripped))
    };
    OBJECTS.into_iter().map(read).collect()
}

/// Flags that leave no trace of this machine in the object.
fn flags(toolchain: &Toolchain) -> OsString {
    let mut flags: Vec<OsString> = ["-Clinker=bpf-linker", "-Clink-arg=--btf"]
        .map(OsString::from)
        .to_vec();
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    remap(root(), "/synprobe");
    for index in package_sources() {
        remap(&index, "/packages");
    }
    remap(&toolchain.sysroot.join("lib/rustlib/src/rust"), "/rust");
    flags.join("\u{1f}".as_ref())
}

/// Folders with unpacked packages; each bears its index's name and hash, which are the machine's.
fn package_sources() -> Vec<PathBuf> {
    let Some(home) = cargo_home() else {
        return Vec::new();
    };
    let Ok(folders) = fs::read_dir(home.join("registry/src")) else {
        return Vec::new();
    };
    let mut folders: Vec<_> = folders.flatten().map(|f| f.path()).collect();
    folders.sort();
    folders
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
