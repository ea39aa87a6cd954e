//! What is linked into the binary, and the licence texts of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::source;
use crate::workspace::{cargo, output, root};

/// Texts of the libraries that come with the target and are no crates.
const WITH_THE_TARGET: [(&str, &str); 2] = [
    ("musl", "deploy/packages/licences/musl.txt"),
    ("libunwind", "deploy/packages/licences/libunwind.txt"),
];
/// How the name of a file with a licence begins.
const BEGINNINGS: [&str; 5] = ["licen", "copying", "copyright", "notice", "unlicense"];

/// A crate and its version.
pub type CrateVersion = (String, String);

#[derive(Deserialize)]
struct CargoMetadata {
    packages: Vec<CargoPackage>,
}

#[derive(Deserialize)]
struct CargoPackage {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    /// `None`: of this workspace.
    source: Option<String>,
}

/// The crates that the binary is built from, with the features that it is built with. Macros are among them, and
/// the tools of its build are not.
///
/// # Errors
///
/// When cargo fails.
pub fn linked(target: &str) -> Result<BTreeSet<CrateVersion>> {
    tree(&["-p", "synprobe", "--target", target])
}

/// The crates that the programs for the kernel are built from, which are in the binary as compiled objects.
fn in_the_kernel() -> Result<BTreeSet<CrateVersion>> {
    tree(&["-p", "synprobe-ebpf", "--features", "bpf"])
}

fn tree(arguments: &[&str]) -> Result<BTreeSet<CrateVersion>> {
    let listed = output(
        Command::new(cargo())
            .current_dir(root())
            .args(["tree", "--locked", "--edges", "normal", "--prefix", "none"])
            .args(["--no-dedupe", "--format", "{p}"])
            .args(arguments),
    )?;
    // `serde_derive v1.0.229 (proc-macro)`
    let parsed = listed.lines().map(|line| {
        let mut words = line.split(' ');
        let (name, version) = (words.next(), words.next());
        let version = version.and_then(|version| version.strip_prefix('v'));
        Some((name?.to_owned(), version?.to_owned()))
    });
    let all: Option<BTreeSet<CrateVersion>> = parsed.collect();
    all.context("cargo tree: a line without a name and a version")
}

/// The file for the packages: a table of the crates, then each text once, with the crates that it is of.
///
/// # Errors
///
/// When cargo fails, or the source of a crate is not there.
pub fn third_party(target: &str) -> Result<String> {
    let mut wanted = linked(target)?;
    wanted.extend(in_the_kernel()?);
    let metadata = output(Command::new(cargo()).current_dir(root()).args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
    ]))?;
    let metadata: CargoMetadata = serde_json::from_str(&metadata)?;
    let mut packages = metadata.packages;
    packages
        .retain(|p| p.source.is_some() && wanted.contains(&(p.name.clone(), p.version.clone())));
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));

    let mut table = String::new();
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &packages {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref();
        let licence = licence.with_context(|| format!("{name} names no licence"))?;
        let origin = package.repository.as_deref().unwrap_or_default();
        let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
        let texts = texts(folder)?;
        let note = if texts.is_empty() {
            "; its package has no text"
        } else {
            ""
        };
        table.push_str(&format!("{name}: {licence}; {origin}{note}\n"));
        for text in texts {
            users.entry(text).or_default().push(name.clone());
        }
    }
    for (name, file) in WITH_THE_TARGET {
        let text = String::from_utf8(source(file)?)?;
        users.entry(text).or_default().push(name.to_owned());
    }
    let mut texts: Vec<(Vec<String>, String)> = users.into_iter().map(|(t, u)| (u, t)).collect();
    texts.sort();
    let mut all = format!(
        "What is linked into synprobe, and its licences. Crates of Rust, by name; after them the texts. musl and\n\
         libunwind come with the target. rust-standard-library.html has the notices of Rust's standard library.\n\n\
         {table}"
    );
    for (users, text) in texts {
        let line = "=".repeat(78);
        all.push_str(&format!(
            "\n{line}\n{}\n{line}\n\n{}\n",
            users.join(", "),
            text.trim()
        ));
    }
    Ok(all)
}

/// The texts in a crate's folder, and in its folder LICENSES, sorted by file name.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let is_licence = |name: &OsStr| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        BEGINNINGS
            .iter()
            .any(|beginning| name.starts_with(beginning))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if !is_licence(&entry.file_name()) {
            continue;
        }
        if entry.path().is_dir() {
            for below in fs::read_dir(entry.path())? {
                files.push(below?.path());
            }
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    // `license.rs` is code.
    files.retain(|file| file.extension().is_none_or(|extension| extension != "rs"));
    files
        .iter()
        .map(|file| {
            let bytes = fs::read(file).with_context(|| file.display().to_string())?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            Ok(text.trim().to_owned())
        })
        .collect()
}

/// The notices of Rust's standard library, from the toolchain.
///
/// # Errors
///
/// When the toolchain does not have them.
pub fn standard_library() -> Result<Vec<u8>> {
    let sysroot = output(
        Command::new(cargo().with_file_name("rustc"))
            .current_dir(root())
            .args(["--print", "sysroot"]),
    )?;
    let file = Path::new(&sysroot).join("share/doc/rust/COPYRIGHT-library.html");
    ensure!(file.exists(), "the toolchain has no {}", file.display());
    Ok(fs::read(file)?)
}
