//! Finds a compiler and a linker for eBPF on this machine.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::workspace::{cargo, cargo_home, output};

/// The file beside the objects that records their toolchain.
const FILE: &str = "TOOLCHAIN";
/// Its first line; `--check` ignores it.
const HEADER: &str = "# The toolchain that built these objects; written by `cargo xtask ebpf`.";

/// Error without a compiler for the target.
const NO_RUSTC: &str = "no Rust compiler on this machine can build for bpfel-unknown-none. Install one of:
  rustup (any system):   rustup toolchain install nightly --component rust-src
  Debian's packages:     apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf
Only rebuilding the eBPF objects needs it. They are committed, and `cargo build` needs only stable Rust.";
/// Error without bpf-linker.
const NO_LINKER: &str = "no bpf-linker in PATH or in cargo's bin folder. Install it:
  with LLVM from rustup: cargo install bpf-linker --locked
  with Debian's LLVM:    apt-get install llvm-22-dev && LLVM_PREFIX=/usr/lib/llvm-22 \\
                         cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22
Only rebuilding the eBPF objects needs it. They are committed, and `cargo build` needs only stable Rust.";

/// A compiler, its cargo, and bpf-linker.
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo beside it, otherwise the one that runs this program.
    pub cargo: PathBuf,
    /// The compiler's sysroot.
    pub sysroot: PathBuf,
    /// Whether `core` has to be built from its source.
    pub build_std: bool,
    /// Path of bpf-linker.
    pub linker: PathBuf,
    record: Record,
}

/// The versions that determine the bytes of the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Vec<(String, String)>);

impl Toolchain {
    /// The recorded toolchain if it is installed, otherwise the first suitable one.
    ///
    /// # Errors
    ///
    /// When there is none; the error says what to install.
    pub fn find(recorded: Option<&Record>) -> Result<Self> {
        let linker = find_linker().context(NO_LINKER)?;
        let linker_version = output(Command::new(&linker).arg("--version"))?;
        let llvm = llvm_of(&linker);
        let mut found = Vec::new();
        for rustc in compilers() {
            let Ok(mut toolchain) = Self::examine(&rustc, &linker) else {
                continue;
            };
            if let Some(record) = &mut toolchain {
                record.record.push("bpf-linker", &linker_version);
                record.record.push("llvm", &llvm);
            }
            found.extend(toolchain);
        }
        let best = found.iter().position(|t| Some(&t.record) == recorded);
        match (best, found.is_empty()) {
            (_, true) => bail!(NO_RUSTC),
            (best, false) => Ok(found.swap_remove(best.unwrap_or(0))),
        }
    }

    /// Examines a compiler. `None` where it cannot build for the target.
    fn examine(rustc: &Path, linker: &Path) -> Result<Option<Self>> {
        let sysroot = PathBuf::from(output(Command::new(rustc).args(["--print", "sysroot"]))?);
        let has_core = has_core(&sysroot);
        let has_source = sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists();
        if !has_core && !has_source {
            return Ok(None);
        }
        let beside = rustc.with_file_name("cargo");
        let cargo = if beside.exists() { beside } else { cargo() };
        let core = match (has_core, has_source) {
            (false, _) => "build-std",
            (true, false) => "prebuilt",
            // LLVM quotes source lines in BTF where it finds the file, and the paths of a prebuilt
            // `core` are not remapped: the bytes differ.
            (true, true) => "prebuilt, quoting its source",
        };
        let mut record = Record(Vec::new());
        record.push("rustc", &output(Command::new(rustc).arg("--version"))?);
        record.push("core", core);
        record.push("cargo", &output(Command::new(&cargo).arg("--version"))?);
        Ok(Some(Self {
            rustc: rustc.to_path_buf(),
            cargo,
            sysroot,
            build_std: !has_core,
            linker: linker.to_path_buf(),
            record,
        }))
    }

    /// The versions of the toolchain.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<_> = self
            .record
            .0
            .iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect();
        write!(f, "{} ({})", self.rustc.display(), values.join("; "))
    }
}

impl Record {
    fn push(&mut self, key: &str, value: &str) {
        self.0.push((key.to_owned(), value.to_owned()));
    }

    /// Reads the record beside the objects, if there is one.
    pub fn read(folder: &Path) -> Option<Self> {
        fs::read_to_string(folder.join(FILE))
            .ok()
            .map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(": "));
        Self(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    fn text(&self) -> String {
        let lines = self.0.iter().map(|(k, v)| format!("{k}: {v}\n"));
        format!("{HEADER}\n{}", lines.collect::<String>())
    }

    /// Writes the record beside the objects.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        fs::write(&path, self.text()).with_context(|| path.display().to_string())
    }

    /// The differences of another toolchain: `rustc 1.96.0 … instead of rustc 1.95.0 …`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let other_value = |key: &str| {
            let pair = other.0.iter().find(|(k, _)| k == key);
            pair.map_or("none", |(_, v)| v.as_str())
        };
        let differing = self.0.iter().filter(|(k, v)| other_value(k) != v);
        differing
            .map(|(k, v)| format!("{k}: {} instead of {v}", other_value(k)))
            .collect()
    }
}

/// Whether a sysroot has `core` compiled for the kernel.
fn has_core(sysroot: &Path) -> bool {
    let Ok(files) = fs::read_dir(sysroot.join("lib/rustlib/bpfel-unknown-none/lib")) else {
        return false;
    };
    files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore") && name.ends_with(".rlib")
    })
}

/// Every compiler on this machine: those in `PATH`, the system's, then rustup's nightlies.
fn compilers() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let toolchains = rustup
        .and_then(|home| fs::read_dir(home.join("toolchains")).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly"))
        .map(|entry| entry.path().join("bin"));
    let mut toolchains: Vec<_> = toolchains.collect();
    // Dated toolchains sort by age.
    toolchains.sort();
    let mut seen = BTreeSet::new();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")])
        // rustup's proxy runs the default toolchain and may download one.
        .filter(|folder| !folder.join("rustup").exists())
        .chain(toolchains.into_iter().rev())
        .map(|folder| folder.join("rustc"))
        .filter(|rustc| rustc.is_file())
        .filter(|rustc| seen.insert(fs::canonicalize(rustc).unwrap_or_else(|_| rustc.clone())))
        .collect()
}

fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// The version of bpf-linker's LLVM. It is the code generator, so its patch level matters.
fn llvm_of(linker: &Path) -> String {
    let Ok(libraries) = output(Command::new("ldd").arg(linker)) else {
        return "inside bpf-linker".to_owned();
    };
    let library = libraries
        .lines()
        .find(|line| line.trim_start().starts_with("libLLVM"))
        .and_then(|line| line.split_whitespace().nth(2));
    match library {
        None => "inside bpf-linker".to_owned(),
        Some(path) => version_in(path).unwrap_or_else(|| path.to_owned()),
    }
}

/// The full version inside `…/libLLVM.so.22.1`: the string that begins with the version in its name.
fn version_in(library: &str) -> Option<String> {
    let series = library.rsplit_once(".so.")?.1;
    let bytes = fs::read(library).ok()?;
    let mut strings = bytes.split(|b| *b == 0);
    strings.find_map(|string| {
        let text = std::str::from_utf8(string).ok()?;
        let patch = text.strip_prefix(series)?.strip_prefix('.')?;
        patch.parse::<u32>().ok().map(|_| text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rustc: &str) -> Record {
        let mut record = Record(Vec::new());
        record.push("rustc", rustc);
        record.push("bpf-linker", "bpf-linker 0.13.0");
        record
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let written = record("rustc 1.96.0 (ac68faa20 2026-05-25)");
        assert_eq!(Record::parse(&written.text()), written);
    }

    #[test]
    fn differences_name_both_versions() {
        let differences = record("rustc 1.96.0").differences(&record("rustc 1.97.0"));
        assert_eq!(differences, ["rustc: rustc 1.97.0 instead of rustc 1.96.0"]);
        assert!(record("a").differences(&record("a")).is_empty());
    }
}
