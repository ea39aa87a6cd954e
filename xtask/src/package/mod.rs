//! `cargo xtask package`: a .deb and an .rpm from the static binary, with everything that belongs to them.

mod deb;
mod licences;
mod reproduce;
mod rpm;
mod sbom;
mod staging;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    dist, man,
    release_time::ReleaseTime,
    workspace::{output, root, target_dir},
};

/// The description in both packages.
const SUMMARY: &str = "watches TCP handshakes and says why one is stuck";
const DESCRIPTION: [&str; 2] = [
    "synprobe watches every TCP handshake on a host from inside the kernel, by eBPF, and times it as the kernel does. \
     Where a handshake is stuck it names the cause, with the evidence. It needs Linux 5.8 or later with BTF.",
    "The package has a service for systemd (synprobe serve). It is not enabled: it is an agent with privileges.",
];
const MAINTAINER: &str = "synprobe maintainers <maintainers@synprobe.invalid>";
const HOMEPAGE: &str = "https://github.com/synprobe/synprobe";

/// `cargo xtask package`
#[derive(Args)]
pub struct PackageArgs {
    /// For which processor
    #[arg(long, value_enum, default_values_t = [Processor::X86_64])]
    arch: Vec<Processor>,
    /// Where the packages are put, in place of the target folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Build them once more in another folder, from a clone, and compare; takes as long again as the first build of all
    #[arg(long)]
    check_reproducible: bool,
}

/// A processor that servers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Processor {
    /// 64 bit of Intel and AMD
    #[value(name = "x86_64")]
    X86_64,
    /// 64 bit of Arm
    #[value(name = "aarch64")]
    Aarch64,
}

impl Processor {
    fn target(self) -> &'static str {
        match self {
            Self::X86_64 => dist::TARGET,
            Self::Aarch64 => dist::ARM_TARGET,
        }
    }

    /// Debian's name.
    fn of_debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The kernel's name, and rpm's.
    fn of_kernel(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// What both kinds of package are made from.
struct Release {
    version: String,
    time: ReleaseTime,
    processor: Processor,
    /// Folder for what is made on the way.
    scratch: PathBuf,
    /// Folder of the packages.
    output: PathBuf,
}

/// Builds the packages, their checksums and the SBOM, and prints their names.
///
/// # Errors
///
/// When something cannot be built, or a tool is missing: the message says what to install.
pub fn run(args: &PackageArgs) -> Result<()> {
    let time = ReleaseTime::of_commit()?;
    let folder = match &args.output {
        Some(folder) => std::path::absolute(folder)?,
        None => target_dir().join("packages"),
    };
    let scratch = target_dir().join("packages.d");
    for folder in [&folder, &scratch] {
        emptied(folder)?;
    }
    let manual = scratch.join("manual");
    man::write_to(&manual, &time)?;
    for processor in &args.arch {
        let release = Release {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time,
            processor: *processor,
            scratch: scratch.join(processor.of_kernel()),
            output: folder.clone(),
        };
        emptied(&release.scratch)?;
        let binary = dist::build_for(processor.target())?;
        let sbom = sbom::write(&release)?;
        let third_party = licences::third_party(processor.target())?;
        let content = staging::Content {
            binary: &binary,
            manual: &manual,
            sbom: &sbom,
            third_party: &third_party,
        };
        deb::build(&release, &content)?;
        rpm::build(&release, &content)?;
    }
    for line in checksums(&folder)?.lines() {
        println!("{line}");
    }
    println!("in {}", folder.display());
    if args.check_reproducible {
        reproduce::check(&folder, &args.arch)?;
    }
    Ok(())
}

/// Writes SHA256SUMS of everything in the folder, and returns it.
fn checksums(folder: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let sums = output(
        Command::new("sha256sum")
            .current_dir(folder)
            .arg("--")
            .args(names),
    )?;
    fs::write(folder.join("SHA256SUMS"), format!("{sums}\n"))?;
    Ok(sums)
}

/// A folder with nothing in it.
fn emptied(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// A file of the source tree.
fn source(path: &str) -> Result<Vec<u8>> {
    let path = root().join(path);
    fs::read(&path).with_context(|| path.display().to_string())
}
