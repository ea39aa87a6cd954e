//! `cargo xtask vm`: the kernel tests on the kernels that users have, each booted under software
//! emulation. `tests/kernels.toml` lists them; docs/kernels.md says what came of it.

mod archives;
mod guest;
mod initramfs;
mod kernels;
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
    guest::{Job, Said},
    initramfs::Initramfs,
    kernels::{Kernel, List, Source},
    packages::Suite,
    programs::Programs,
};
use crate::workspace::target_dir;

/// With fewer kernels passed than this, nothing is known of the kernels that users have.
const ENOUGH: usize = 4;
/// Where init mounts things.
const MOUNTS: &[&str] = &["proc", "sys", "dev", "tmp", "run", "modules"];
/// Lines of a guest's log that are shown when it failed.
const SHOWN: usize = 60;

/// `cargo xtask vm`
#[derive(Args)]
pub struct VmArgs {
    /// Only this kernel; may be given again
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Those too that are there on demand
    #[arg(long)]
    all: bool,
    /// Files of tests to run in each
    #[arg(
        long,
        value_name = "NAME",
        default_value = "guest,scenarios",
        value_delimiter = ','
    )]
    tests: Vec<String>,
    /// Guests at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Tests at once in a guest, which has one processor; its clock waits for nobody, so more of
    /// them save no time
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Minutes that a guest may take
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Where an archive of tests/kernels.toml is that this system's apt has no source of, or another
    /// mirror; may be given again
    #[arg(long, value_name = "NAME=URL", value_parser = archives::parse)]
    archive: Vec<(String, String)>,
    /// Fetch and unpack the kernels, and boot none
    #[arg(long)]
    fetch: bool,
    /// Handed to each file of tests, such as a test's name
    #[arg(last = true)]
    filter: Vec<String>,
}

/// A kernel that is there.
struct Found {
    name: String,
    image: PathBuf,
    modules: Option<PathBuf>,
    /// Package and version, or the path.
    what: String,
}

/// What came of it.
struct Outcome {
    line: String,
    passed: bool,
}

/// Runs it.
///
/// # Errors
///
/// When a kernel failed, or fewer than enough passed.
pub fn run(args: &VmArgs) -> Result<()> {
    let list = List::read()?;
    let home = target_dir().join("vm");
    fs::create_dir_all(&home)?;
    for name in &args.only {
        ensure!(
            list.kernels.iter().any(|kernel| kernel.name == *name),
            "no kernel {name:?} in tests/kernels.toml"
        );
    }
    let wanted: Vec<_> = list
        .kernels
        .iter()
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
                "vm: !!! {} CANNOT BE HAD, and is not tested: {error:#}",
                kernel.name
            ),
        }
    }
    if args.fetch {
        return enough(found.len(), wanted.len(), "could be fetched");
    }
    let programs = Programs::build(&args.tests)?;
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
        "{there} kernels {what}; fewer than {least} say nothing"
    );
    println!("vm: {there} of {wanted} kernels {what}");
    Ok(())
}

fn find(home: &Path, list: &List, addresses: &Addresses, kernel: &Kernel) -> Result<Found> {
    let name = kernel.name.clone();
    match &kernel.source {
        Source::Path { image, modules } => {
            let image = Source::place(image);
            ensure!(image.exists(), "{}: no such file", image.display());
            Ok(Found {
                name,
                what: image.display().to_string(),
                image,
                modules: modules.as_ref().map(Source::place),
            })
        }
        Source::Package {
            archive,
            suite,
            package,
        } => {
            let apt = suite_of(home, archive, list, addresses, suite)
                .with_context(|| format!("suite {suite}"))?;
            let unpacked = apt.unpack(package)?;
            Ok(Found {
                name,
                image: image_in(&unpacked.folder)?,
                modules: Some(unpacked.folder),
                what: format!("{} {} ({suite})", unpacked.package, unpacked.version),
            })
        }
    }
}

/// One suite of an archive, with the archive's keys fetched first where those are not here.
fn suite_of(
    home: &Path,
    archive: &str,
    list: &List,
    addresses: &Addresses,
    suite: &str,
) -> Result<Suite> {
    let address = |name: &str| addresses.of(name, list.archive(name)?);
    let Some(keys) = &list.archive(archive)?.keys else {
        return Suite::fetch(home, address(archive)?, suite, None);
    };
    let unpacked = Suite::fetch(home, address(&keys.archive)?, &keys.suite, None)
        .and_then(|from| from.unpack(&keys.package))
        .with_context(|| format!("its keys, {} of {}", keys.package, keys.suite))?;
    let file = unpacked.folder.join(&keys.file);
    Suite::fetch(home, address(archive)?, suite, Some(&file))
}

/// `boot/vmlinuz-…`, or `vmlinuz` beside the modules (Debian, from 7.1 on).
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

/// Boots them, a few at once; what came of each, in their order.
fn all(home: &Path, found: &[Found], programs: &Programs, args: &VmArgs) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    // The newest take longest, and stand last.
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

fn one(home: &Path, kernel: &Found, programs: &Programs, args: &VmArgs) -> Outcome {
    let began = Instant::now();
    let log = home.join(format!("{}.log", kernel.name));
    let jobs = programs.jobs(args.threads, &args.filter);
    let patience = Duration::from_secs(args.minutes * 60);
    let booted = initramfs(home, kernel, programs, &jobs)
        .and_then(|initramfs| guest::boot(&kernel.image, &initramfs, &log, patience))
        .and_then(|said| {
            said.held_against(&jobs).map(|()| said.clone()).map_err(
                // Whatever it is, which kernel it was is worth knowing.
                |error| error.context(format!("Linux {}", said.release)),
            )
        });
    let seconds = began.elapsed().as_secs();
    match booted {
        Ok(said) => Outcome {
            line: success(kernel, &said, seconds),
            passed: true,
        },
        Err(error) => {
            show(&log);
            Outcome {
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

fn success(kernel: &Found, said: &Said, seconds: u64) -> String {
    let guest: f64 = said.jobs.iter().map(|(_, seconds, _)| seconds).sum();
    format!(
        "vm: passed  {:6} Linux {}, {}: {} tests, {seconds} s ({} s of a processor; {guest:.0} s by \
         its own clock)",
        kernel.name, said.release, kernel.what, said.passed, said.processor
    )
}

fn initramfs(home: &Path, kernel: &Found, programs: &Programs, jobs: &[Job]) -> Result<PathBuf> {
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
    let lines: String = jobs.iter().map(Job::line).collect();
    archive.file("jobs.list", lines.as_bytes());
    let path = home.join(format!("{}.cpio", kernel.name));
    fs::write(&path, archive.finish())?;
    Ok(path)
}

/// The end of a log, without the lines of JSON, which are long and many.
fn show(log: &Path) {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        eprintln!("  | {line}");
    }
}
