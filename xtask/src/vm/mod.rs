//! `cargo xtask vm`: runs the kernel tests on other kernels, each booted under software emulation.
//! `tests/kernels.toml` lists the kernels; docs/kernels.md has the results.

mod archives;
mod guest;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod packages;
mod programs;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use self::{
    archives::Addresses,
    guest::{GuestJob, GuestReport},
    initramfs::Initramfs,
    kernels::{Kernel, KernelSource, List},
    machine::GuestMachine,
    packages::Suite,
    programs::Programs,
};
use crate::workspace::target_dir;

/// The run fails if fewer kernels than this pass.
const ENOUGH: usize = 4;
/// Mount points for init.
const MOUNTS: &[&str] = &["proc", "sys", "dev", "tmp", "run", "modules"];
/// Lines of a failed guest's log that are shown.
const SHOWN: usize = 60;

/// `cargo xtask vm`
#[derive(Args)]
pub struct VmArgs {
    /// Kernels and programs of this architecture
    #[arg(long, value_enum, default_value_t)]
    arch: GuestMachine,
    /// Only this kernel (repeatable)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Include the kernels that are on demand
    #[arg(long)]
    all: bool,
    /// Test programs to run in each guest
    #[arg(
        long,
        value_name = "NAME",
        default_value = "guest,scenarios",
        value_delimiter = ','
    )]
    tests: Vec<String>,
    /// Guests that run in parallel
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Tests that run in parallel in a guest; more save no time, because a guest has one processor
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Time limit of a guest, minutes
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Address of an archive of tests/kernels.toml, where this system's apt does not have it or for another
    /// mirror (repeatable)
    #[arg(long, value_name = "NAME=URL", value_parser = archives::parse)]
    archive: Vec<(String, String)>,
    /// Fetch and unpack the kernels without booting them
    #[arg(long)]
    fetch: bool,
    /// As --fetch, and build the programs
    #[arg(long)]
    prepare: bool,
    /// Passed to each test program, such as a test's name
    #[arg(last = true)]
    filter: Vec<String>,
}

/// A kernel that is available.
struct AvailableKernel {
    name: String,
    image: PathBuf,
    modules: Option<PathBuf>,
    /// As in [`Kernel`].
    skip: Vec<String>,
    /// Package and version, or path.
    what: String,
}

/// The result of one kernel.
struct KernelResult {
    line: String,
    passed: bool,
}

/// Runs the tests on the kernels.
///
/// # Errors
///
/// When a kernel failed, or too few passed.
pub fn run(args: &VmArgs) -> Result<()> {
    let list = List::read()?;
    let home = target_dir().join("vm");
    fs::create_dir_all(&home)?;
    for name in &args.only {
        ensure!(
            list.kernels
                .iter()
                .any(|kernel| kernel.name == *name && kernel.arch == args.arch),
            "no kernel {name:?} for {} in tests/kernels.toml",
            args.arch.of_debian()
        );
    }
    let wanted: Vec<_> = list
        .kernels
        .iter()
        .filter(|kernel| kernel.arch == args.arch)
        .filter(|kernel| match args.only.as_slice() {
            [] => args.all || !kernel.on_demand,
            only => only.contains(&kernel.name),
        })
        .collect();
    let addresses = Addresses::of_this_system(&args.archive);
    let mut found = Vec::new();
    for kernel in &wanted {
        match find(&home, &list, &addresses, kernel) {
            Ok(kernel) => {
                println!("vm: {}: {}", kernel.name, kernel.what);
                found.push(kernel);
            }
            Err(error) => eprintln!(
                "vm: !!! {} IS NOT AVAILABLE and not tested: {error:#}",
                kernel.name
            ),
        }
    }
    if args.fetch {
        return enough(found.len(), wanted.len(), "were fetched");
    }
    let programs = Programs::build(&args.tests, args.arch)?;
    if args.prepare {
        return enough(found.len(), wanted.len(), "are ready");
    }
    let outcomes = all(&home, &found, &programs, args);
    let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
    println!();
    for outcome in &outcomes {
        println!("{}", outcome.line);
    }
    if let Some(failed) = outcomes.len().checked_sub(passed).filter(|n| *n > 0) {
        bail!("{failed} of {} kernels failed", outcomes.len());
    }
    enough(passed, wanted.len(), "passed")
}

fn enough(there: usize, wanted: usize, what: &str) -> Result<()> {
    let least = ENOUGH.min(wanted);
    ensure!(
        there >= least,
        "only {there} kernels {what}; at least {least} are required"
    );
    println!("vm: {there} of {wanted} kernels {what}");
    Ok(())
}

fn find(
    home: &Path,
    list: &List,
    addresses: &Addresses,
    kernel: &Kernel,
) -> Result<AvailableKernel> {
    let name = kernel.name.clone();
    let skip = kernel.skip.clone();
    match &kernel.source {
        KernelSource::Path { image, modules } => {
            let image = KernelSource::place(image);
            ensure!(image.exists(), "{}: no such file", image.display());
            Ok(AvailableKernel {
                name,
                skip,
                what: image.display().to_string(),
                image,
                modules: modules.as_ref().map(KernelSource::place),
            })
        }
        KernelSource::Package {
            archive,
            suite,
            package,
        } => {
            let apt = suite_of(home, kernel.arch, archive, list, addresses, suite)
                .with_context(|| format!("suite {suite}"))?;
            let unpacked = apt.unpack(package)?;
            Ok(AvailableKernel {
                name,
                skip,
                image: image_in(&unpacked.folder)?,
                modules: Some(unpacked.folder),
                what: format!("{} {} ({suite})", unpacked.package, unpacked.version),
            })
        }
    }
}

/// One suite of an archive. Fetches the archive's keys first where the system does not have them.
fn suite_of(
    home: &Path,
    machine: GuestMachine,
    archive: &str,
    list: &List,
    addresses: &Addresses,
    suite: &str,
) -> Result<Suite> {
    let address = |name: &str| addresses.of(name, list.archive(name)?);
    let Some(keys) = &list.archive(archive)?.keys else {
        return Suite::fetch(home, machine, address(archive)?, suite, None);
    };
    let unpacked = Suite::fetch(home, machine, address(&keys.archive)?, &keys.suite, None)
        .and_then(|from| from.unpack(&keys.package))
        .with_context(|| format!("its keys, {} of {}", keys.package, keys.suite))?;
    let file = unpacked.folder.join(&keys.file);
    Suite::fetch(home, machine, address(archive)?, suite, Some(&file))
}

/// Finds `boot/vmlinuz-…`, or `vmlinuz` beside the modules (Debian, from 7.1 on).
fn image_in(folder: &Path) -> Result<PathBuf> {
    for place in ["boot", "usr/lib/modules", "lib/modules"] {
        let Ok(entries) = fs::read_dir(folder.join(place)) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str());
            if name.is_some_and(|name| name.starts_with("vmlinuz")) {
                return Ok(path);
            }
            if path.join("vmlinuz").exists() {
                return Ok(path.join("vmlinuz"));
            }
        }
    }
    bail!("no vmlinuz in {}", folder.display())
}

/// Boots the kernels, `--jobs` in parallel. Returns the results in the order of the kernels.
fn all(
    home: &Path,
    found: &[AvailableKernel],
    programs: &Programs,
    args: &VmArgs,
) -> Vec<KernelResult> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    // Start with the last: the newest kernels take longest.
                    let taken = next.fetch_add(1, Ordering::Relaxed) + 1;
                    let Some(index) = found.len().checked_sub(taken) else {
                        break;
                    };
                    let kernel = &found[index];
                    let outcome = one(home, kernel, programs, args);
                    println!("{}", outcome.line);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn one(home: &Path, kernel: &AvailableKernel, programs: &Programs, args: &VmArgs) -> KernelResult {
    let began = Instant::now();
    let log = home.join(format!("{}.log", kernel.name));
    let jobs = programs.jobs(args.threads, &kernel.skip, &args.filter);
    let patience = Duration::from_secs(args.minutes * 60);
    let booted = initramfs(home, kernel, programs, &jobs)
        .and_then(|initramfs| guest::boot(args.arch, &kernel.image, &initramfs, &log, patience))
        .and_then(|report| {
            report.check(&jobs).map(|()| report.clone()).map_err(
                // Name the kernel in every error.
                |error| error.context(format!("Linux {}", report.release)),
            )
        });
    let seconds = began.elapsed().as_secs();
    match booted {
        Ok(report) => KernelResult {
            line: success(kernel, &report, seconds),
            passed: true,
        },
        Err(error) => {
            show(&log);
            KernelResult {
                line: format!(
                    "vm: FAILED  {:6} {}: {error:#} ({seconds} s; {})",
                    kernel.name,
                    kernel.what,
                    log.display()
                ),
                passed: false,
            }
        }
    }
}

fn success(kernel: &AvailableKernel, report: &GuestReport, seconds: u64) -> String {
    let guest: f64 = report.jobs.iter().map(|(_, seconds, _)| seconds).sum();
    format!(
        "vm: passed  {:6} Linux {}, {}: {} tests, {seconds} s ({} s CPU time; {guest:.0} s by the \
         guest's clock)",
        kernel.name, report.release, kernel.what, report.passed, report.processor
    )
}

fn initramfs(
    home: &Path,
    kernel: &AvailableKernel,
    programs: &Programs,
    jobs: &[GuestJob],
) -> Result<PathBuf> {
    let (folders, places) = programs.places();
    let mut archive = Initramfs::new(&[MOUNTS, &folders].concat());
    archive.program("init", programs.init());
    for (place, bytes) in places {
        archive.program(&place, bytes);
    }
    let mut names = String::new();
    if let Some(folder) = &kernel.modules {
        for module in modules::needed(folder)? {
            let place = format!("modules/{}.ko", module.name);
            archive.file(&place, &module.bytes);
            names.push_str(&format!("/{place}\n"));
        }
    }
    archive.file("modules.list", names.as_bytes());
    let lines: String = jobs.iter().map(GuestJob::line).collect();
    archive.file("jobs.list", lines.as_bytes());
    let path = home.join(format!("{}.cpio", kernel.name));
    fs::write(&path, archive.finish())?;
    Ok(path)
}

/// Prints the end of a log without JSON lines, which are long and numerous.
fn show(log: &Path) {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        eprintln!("  | {line}");
    }
}
